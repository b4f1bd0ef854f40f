//! Bytes of one chunk, from whichever copy gives them.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use hay_client::filer::Resolve;
use hay_client::volume::{Data, NeedleRange, Parts};
use hay_common::error::{ErrorCode, Failure, Remedy};
use hay_common::ids::{ContentHash, ManifestId};
use hay_common::limits::{READ_PATIENCE, RPC_BULK_PART_BYTES};
use hay_common::model::{LocatedChunk, Location};
use hay_common::retry::RetryPolicy;

use super::plan::Wanted;
use crate::app::{App, token};
use crate::auth::Authenticated;

/// Between tries of a part that can't be read for the moment, for [`READ_PATIENCE`]: the location may be old, or the only
/// server that lives is starting again.
const REPEATS: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(20),
    pause_max: Duration::from_millis(500),
};

/// How often a part is read again that all who could have it say they have not, or not whole: the location may be old.
const DAMAGED_TRIES_MAX: u32 = 4;

/// How long an answer waits for the report of a damaged copy.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);

/// The file that a download reads, for asking again where its chunks are.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) content_hash: Option<ContentHash>,
    pub(crate) manifest: Option<ManifestId>,
}

/// Reads a part of a chunk as a whole; at most one inner message long.
///
/// # Errors
/// What the last try said.
pub(crate) async fn read_whole(
    app: &App,
    caller: &Authenticated,
    source: &Source,
    wanted: Wanted,
) -> Result<Bytes, Failure> {
    let mut reader = Reader::new(app, caller, source, wanted);
    loop {
        match reader.try_whole().await {
            Ok(bytes) => return Ok(bytes),
            Err(failure) => reader.recover(failure).await?,
        }
    }
}

/// A part of a chunk that arrives piece by piece, and goes on elsewhere where one copy breaks off.
pub(crate) struct Reader<'a> {
    app: &'a App,
    caller: &'a Authenticated,
    source: &'a Source,
    wanted: Wanted,
    open: Option<Parts>,
    /// Failures since bytes last came, and when the first one was.
    attempt: u32,
    failing_since: Option<Duration>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(app: &'a App, caller: &'a Authenticated, source: &'a Source, wanted: Wanted) -> Self {
        Self { app, caller, source, wanted, open: None, attempt: 0, failing_since: None }
    }

    /// The next piece; `None` when all have come.
    ///
    /// # Errors
    /// What the last try said.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while self.wanted.start < self.wanted.end {
            match self.try_next().await {
                Ok(bytes) => {
                    let left = self.wanted.end - self.wanted.start;
                    let came = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    if came > left {
                        return Err(Failure::new(
                            ErrorCode::Internal,
                            "a volume server sent more than was asked for",
                        ));
                    }
                    self.wanted.start += came;
                    self.attempt = 0;
                    self.failing_since = None;
                    return Ok(Some(bytes));
                }
                Err(failure) => {
                    self.open = None;
                    self.recover(failure).await?;
                }
            }
        }
        Ok(None)
    }

    /// Bytes that are still to come.
    pub(crate) fn left(&self) -> u32 {
        self.wanted.end.saturating_sub(self.wanted.start)
    }

    /// The reading as it is open on a volume server.
    pub(crate) fn take_reading(&mut self) -> Option<Parts> {
        self.open.take()
    }

    /// The last `bytes` that came are wanted again.
    pub(crate) fn step_back(&mut self, bytes: usize) {
        if bytes > 0 {
            self.open = None;
            self.wanted.start = self.wanted.start.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    async fn try_next(&mut self) -> Result<Bytes, Failure> {
        if self.open.is_none() {
            let range = self.range()?;
            let app = self.app;
            match read(app, range).await? {
                Data::Whole(bytes) => return self.exact(bytes),
                Data::Parts(parts) => self.open = Some(parts),
            }
        }
        let Some(parts) = self.open.as_mut() else { return Err(broken_off()) };
        loop {
            match parts.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(piece) => return piece,
                None => return Err(broken_off()),
            }
        }
    }

    async fn try_whole(&mut self) -> Result<Bytes, Failure> {
        let range = self.range()?;
        let places = self.app.deps.master.locate(range.volume).await?;
        let bytes = self.app.deps.volumes.read_whole(&places, range).await?;
        self.exact(bytes)
    }

    fn exact(&self, bytes: Bytes) -> Result<Bytes, Failure> {
        match bytes.len() == (self.wanted.end - self.wanted.start) as usize {
            true => Ok(bytes),
            false => Err(broken_off()),
        }
    }

    fn range(&self) -> Result<NeedleRange, Failure> {
        let located = &self.wanted.located;
        match located.copy.location {
            Location::Volume { volume, cookie } => Ok(NeedleRange {
                volume,
                key: located.chunk.hash.needle_key(),
                cookie,
                offset: self.wanted.start,
                length: self.wanted.end - self.wanted.start,
            }),
            Location::Staged { .. } => {
                Err(Failure::new(ErrorCode::Unavailable, "a staged content is not readable by this gateway"))
            }
        }
    }

    /// What the client is told. The filer knows of the file, so a needle that is not there is damage, and never looks
    /// like a file that does not exist. The copy is reported, so that the next put of the content stores another.
    async fn given_up(&mut self, failure: Failure) -> Failure {
        if !matches!(failure.code, ErrorCode::NotFound | ErrorCode::Corrupt) {
            return failure;
        }
        let LocatedChunk { chunk, copy, .. } = self.wanted.located;
        let report = self.app.deps.filer.report_damaged(token(self.caller), chunk.hash, copy.id);
        let told = tokio::time::timeout(REPORT_PATIENCE, report).await;
        tracing::error!(
            hash = %chunk.hash,
            location = ?copy.location,
            reported = matches!(told, Ok(Ok(()))),
            reason = %failure.message,
            "a copy of a chunk is damaged"
        );
        Failure::new(
            ErrorCode::Corrupt,
            format!("a stored chunk of the file can't be read: {}", failure.message),
        )
    }

    /// The pause before another try, if one may help.
    fn pause(&mut self, code: ErrorCode) -> Option<Duration> {
        let now = self.app.deps.clock.monotonic();
        let failing = now.saturating_sub(*self.failing_since.get_or_insert(now));
        let may_help = match code {
            ErrorCode::NotFound | ErrorCode::Corrupt => self.attempt < DAMAGED_TRIES_MAX,
            code => matches!(code.remedy(), Remedy::Refresh | Remedy::RetryLater) && failing < READ_PATIENCE,
        };
        REPEATS.pause(self.attempt, self.app.deps.random.as_ref()).filter(|_| may_help)
    }

    /// Prepares another try, or gives up with the failure.
    async fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        self.attempt += 1;
        let Some(pause) = self.pause(failure.code) else { return Err(self.given_up(failure).await) };
        if let Location::Volume { volume, .. } = self.wanted.located.copy.location {
            self.app.deps.master.forget(volume);
        }
        // The first time the map may have been old; after that the copy itself may have moved.
        if self.attempt > 1 {
            tokio::time::sleep(pause).await;
            let (app, caller, source, located) = (self.app, self.caller, self.source, self.wanted.located);
            match locate_again(app, caller, source, located).await {
                Ok(Some(located)) => self.wanted.located = located,
                Ok(None) => {}
                // Withdrawn while it is read.
                Err(refused) if matches!(refused.code, ErrorCode::Unauthenticated | ErrorCode::Forbidden) => {
                    return Err(refused);
                }
                // The old location may still be good: a file that was deleted keeps its needles for a while.
                Err(unknown) => tracing::debug!(code = %unknown.code, "a chunk could not be located again"),
            }
        }
        Ok(())
    }
}

/// At most one part as a whole, more in parts: what comes is never more than one part long.
async fn read(app: &App, range: NeedleRange) -> Result<Data, Failure> {
    let places = app.deps.master.locate(range.volume).await?;
    match range.length as usize <= RPC_BULK_PART_BYTES {
        true => app.deps.volumes.read_whole(&places, range).await.map(Data::Whole),
        false => app.deps.volumes.read_parts(&places, range).await.map(Data::Parts),
    }
}

/// Where the tenant's row says the chunk is now.
async fn locate_again(
    app: &App,
    caller: &Authenticated,
    source: &Source,
    old: LocatedChunk,
) -> Result<Option<LocatedChunk>, Failure> {
    let filer = &app.deps.filer;
    let chunks = match source.manifest {
        Some(manifest) => filer.read_manifest(token(caller), manifest, old.number, 1).await?,
        None => {
            let ask = Resolve { path: source.path.clone(), offset: old.offset, chunks: 1, suffix: None };
            let resolved = filer.resolve(token(caller), ask).await?;
            if resolved.entry.content_hash != source.content_hash {
                return Ok(None);
            }
            resolved.chunks
        }
    };
    Ok(chunks.into_iter().find(|c| c.number == old.number && c.chunk == old.chunk))
}

fn broken_off() -> Failure {
    Failure::new(ErrorCode::Unavailable, "a volume server broke a read off")
}
