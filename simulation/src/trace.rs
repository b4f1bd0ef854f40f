//! All that happens, in its order, as one digest: two runs of a seed are the same where their digests are.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::clock::Time;

/// The events of one run.
pub struct Trace {
    time: Arc<Time>,
    seen: Mutex<Seen>,
}

struct Seen {
    digest: Sha256,
    events: u64,
    /// Where the events go as text too, to look for the first that differs.
    text: Option<BufWriter<File>>,
}

impl Trace {
    /// None yet. With `HAY_TRACE=FILE` in the environment they are written there too.
    pub fn new(time: Arc<Time>) -> Arc<Self> {
        let text = std::env::var_os("HAY_TRACE").map(|path| BufWriter::new(File::create(path).unwrap()));
        Arc::new(Self { time, seen: Mutex::new(Seen { digest: Sha256::new(), events: 0, text }) })
    }

    /// Something happened now.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {event}\n", self.time.now().as_secs_f64());
        let mut seen = self.seen.lock();
        seen.digest.update(line.as_bytes());
        seen.events += 1;
        if let Some(text) = &mut seen.text {
            text.write_all(line.as_bytes()).unwrap();
        }
    }

    /// The digest of all events so far, and how many there were.
    pub fn digest(&self) -> (String, u64) {
        let mut seen = self.seen.lock();
        if let Some(text) = &mut seen.text {
            text.flush().unwrap();
        }
        (hex::encode(seen.digest.clone().finalize()), seen.events)
    }
}
