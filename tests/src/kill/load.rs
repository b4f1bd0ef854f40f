//! Writers that never stop: new files, replacements and deletes of all sizes, each answer noted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Body;
use tokio::task::JoinHandle;

use super::history::{History, State, Track};
use crate::harness::{Api, Pattern, pattern_stream};

const WRITERS: u64 = 12;
const PATHS_PER_WRITER: u64 = 40;

/// What writers take for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// The server may go away, or say that it is going.
    Expected,
    /// Every request must be answered, and well.
    Never,
}

/// A running load.
pub struct Load {
    writers: Vec<JoinHandle<BTreeMap<String, Track>>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    next_content: u64,
}

impl Load {
    /// Goes on where `history` stands, against a server that may go away.
    pub fn start(api: Api, history: History, seed: u64) -> Self {
        Self::start_on(&[api], Errors::Expected, history, seed)
    }

    /// Goes on where `history` stands, each writer at one of `servers`.
    pub fn start_on(servers: &[Api], errors: Errors, mut history: History, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        // Each writer takes contents from a range of its own, of which no round sees the end.
        const CONTENTS: u64 = 1 << 20;
        let writers = (0..WRITERS)
            .map(|number| {
                let prefix = format!("kill/w{number:02}/");
                let own: BTreeMap<String, Track> =
                    history.tracks.extract_if(.., |path, _| path.starts_with(&prefix)).collect();
                let writer = Writer {
                    api: servers[number as usize % servers.len()].clone(),
                    errors,
                    stop: stop.clone(),
                    acknowledged: acknowledged.clone(),
                    random: StdRng::seed_from_u64(seed.wrapping_add(number)),
                    next_content: history.next_content.wrapping_add(number * CONTENTS),
                    prefix,
                    tracks: own,
                };
                tokio::spawn(writer.run())
            })
            .collect();
        Self {
            writers,
            stop,
            acknowledged,
            next_content: history.next_content.wrapping_add(WRITERS * CONTENTS),
        }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The server is gone, or going: gathers what each writer knows.
    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::SeqCst);
        let mut history = History::new(self.next_content);
        let mut open = 0;
        for writer in self.writers {
            let tracks = writer.await.expect("a writer saw what it should not have seen");
            open += tracks.values().filter(|t| t.open.is_some()).count();
            history.tracks.extend(tracks);
        }
        assert!(!history.tracks.is_empty(), "nothing was written");
        println!("{} paths written, {open} writes unanswered", history.tracks.len());
        history
    }
}

struct Writer {
    api: Api,
    errors: Errors,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    random: StdRng,
    next_content: u64,
    prefix: String,
    tracks: BTreeMap<String, Track>,
}

impl Writer {
    async fn run(mut self) -> BTreeMap<String, Track> {
        while !self.stop.load(Ordering::SeqCst) {
            let path = format!("{}f{:02}", self.prefix, self.random.random_range(0..PATHS_PER_WRITER));
            let known = self.tracks.get(&path).and_then(|t| t.known);
            let next = self.choose(known);
            self.tracks.entry(path.clone()).or_default().open = Some(next);
            if !self.write(&path, known, next).await {
                break;
            }
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
            self.tracks.insert(path, Track { known: next, open: None });
        }
        self.tracks
    }

    /// A delete now and then, else new bytes.
    fn choose(&mut self, known: State) -> State {
        if known.is_some() && self.random.random_ratio(1, 6) {
            return None;
        }
        self.next_content += 1;
        let len = match self.random.random_range(0..100) {
            0..5 => 0,
            5..15 => self.random.random_range(1..100),
            15..55 => self.random.random_range(100..10_000),
            55..80 => self.random.random_range(10_000..300_000),
            80..92 => self.random.random_range(300_000..2_000_000),
            92..97 => 8 << 20,
            _ => (8 << 20) + self.random.random_range(1..10_000_000),
        };
        Some(Pattern::new(self.next_content, len))
    }

    /// Whether it was acknowledged. An unanswered write ends the writer: what became of it will show.
    async fn write(&mut self, path: &str, known: State, next: State) -> bool {
        let sent = match next {
            Some(pattern) if self.random.random_ratio(1, 4) => {
                self.api.try_put(path, Body::wrap_stream(pattern_stream(pattern))).await
            }
            Some(pattern) => self.api.try_put(path, pattern.bytes()).await,
            None => self.api.try_delete(path).await,
        };
        match sent {
            Ok(answer) if answer.is_success() => true,
            other if self.errors == Errors::Never => {
                panic!("{path}, from {known:?} to {next:?}: a client saw an error: {other:?}")
            }
            // A server that is ending may say so instead of nothing.
            Ok(answer) if answer.status == 503 => {
                let deadline = crate::harness::Stopwatch::start();
                while !self.stop.load(Ordering::SeqCst) {
                    assert!(
                        deadline.seconds() < 30.0,
                        "{path}: 503 without an end in sight: {}",
                        answer.text()
                    );
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                false
            }
            Ok(answer) => panic!("{path}, from {known:?} to {next:?}: {} {}", answer.status, answer.text()),
            Err(_) => false,
        }
    }
}
