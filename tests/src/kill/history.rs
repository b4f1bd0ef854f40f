//! What was acknowledged, and what may have happened besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures::{StreamExt, stream};

use crate::harness::{Api, Pattern, etag_of};

/// The state of one path: absent, or these bytes.
pub type State = Option<Pattern>;

/// One path. Only one writer ever touches it, so its states follow each other.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// As the last acknowledged write left it.
    pub known: State,
    /// A write that was sent and not answered: it happened, or it did not.
    pub open: Option<State>,
}

/// All paths.
pub struct History {
    pub tracks: BTreeMap<String, Track>,
    pub next_content: u64,
}

/// What a verification has seen.
pub struct Seen {
    files: usize,
    bytes: u64,
    absent: usize,
    open_done: usize,
    open_undone: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, bytes, absent, open_done, open_undone } = self;
        write!(f, "{files} files with {bytes} bytes whole, {absent} paths empty; ")?;
        write!(f, "of unanswered writes {open_done} happened, {open_undone} did not")
    }
}

impl History {
    pub fn new(seed: u64) -> Self {
        Self { tracks: BTreeMap::new(), next_content: seed }
    }

    /// Compares every path with what it may be, byte for byte, and the listing with the paths; afterwards what was
    /// open is known.
    pub async fn verify(&mut self, api: &Api, when: &str) -> Seen {
        let mut seen = Seen { files: 0, bytes: 0, absent: 0, open_done: 0, open_undone: 0 };
        let mut present = BTreeSet::new();
        let tracks = std::mem::take(&mut self.tracks);
        let mut checked = stream::iter(tracks)
            .map(|(path, track)| async move {
                let found = look(api, &path, &track, when).await;
                (path, track, found)
            })
            .buffer_unordered(8);
        while let Some((path, track, found)) = checked.next().await {
            if let Some(open) = track.open {
                if found == open { seen.open_done += 1 } else { seen.open_undone += 1 }
            }
            match found {
                Some(pattern) => {
                    seen.files += 1;
                    seen.bytes += pattern.len;
                    present.insert(path.clone());
                }
                None => seen.absent += 1,
            }
            self.tracks.insert(path, Track { known: found, open: None });
        }
        let listed: BTreeSet<String> = match present.is_empty() {
            true => BTreeSet::new(),
            false => files_listed(api).await,
        };
        assert_eq!(listed, present, "{when}: the listing shows what can be read, and nothing else");
        seen
    }
}

async fn files_listed(api: &Api) -> BTreeSet<String> {
    api.list_all("kill", true, 500)
        .await
        .into_iter()
        .filter(|(_, kind)| kind == "file")
        .map(|(p, _)| p)
        .collect()
}

/// What is at `path` now; fails unless it is one of the states that it may have.
async fn look(api: &Api, path: &str, track: &Track, when: &str) -> State {
    let may_be = [Some(track.known), track.open];
    let answer = api.get(path).await;
    match answer.status {
        404 => {
            assert!(may_be.contains(&Some(None)), "{when}: {path} is gone; it should be one of {may_be:?}");
            None
        }
        200 => {
            let fits = |s: &State| s.is_some_and(|pattern| pattern.is(&answer.body));
            let found = may_be.into_iter().flatten().find(fits).unwrap_or_else(|| {
                panic!("{when}: {path} has {} bytes that are none of {may_be:?}", answer.body.len())
            });
            assert_eq!(answer.etag(), etag_of(&answer.body), "{when}: the ETag of {path}");
            found
        }
        other => {
            panic!("{when}: {path} answers {other} ({}); it should be one of {may_be:?}", answer.error_code())
        }
    }
}
