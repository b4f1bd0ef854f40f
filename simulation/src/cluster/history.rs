//! What was acknowledged, and what should never have happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hay_client::volume::NeedleRange;
use hay_common::ids::{Cookie, Epoch, NeedleKey, VolumeId};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::entropy;
use crate::trace::Trace;

/// A needle that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needle {
    pub volume: VolumeId,
    pub key: NeedleKey,
    pub cookie: Cookie,
    pub length: u32,
}

impl Needle {
    pub fn data(&self) -> Bytes {
        data(self.key, self.length)
    }

    pub fn range(&self) -> NeedleRange {
        let Self { volume, key, cookie, length } = *self;
        NeedleRange { volume, key, cookie, offset: 0, length }
    }
}

/// The bytes of the content of that key.
pub fn data(key: NeedleKey, length: u32) -> Bytes {
    let mut bytes = vec![0; length as usize];
    entropy::fill(key.0 as u64, &mut bytes);
    bytes.into()
}

/// A writer that is at something.
pub struct AtWork<'a>(&'a AtomicUsize);

impl Drop for AtWork<'_> {
    /// Also where it is killed.
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of one run.
pub struct History {
    trace: Arc<Trace>,
    acknowledged: Mutex<Vec<Needle>>,
    violations: Mutex<Vec<String>>,
    /// The servers of a volume in an epoch, as whichever master leased it first.
    pub(super) grants: Mutex<BTreeMap<(VolumeId, Epoch), Vec<String>>>,
    /// Who led in a term.
    leaders: Mutex<BTreeMap<u64, String>>,
    /// Writers that are at something.
    busy: AtomicUsize,
    /// Reads that gave what was written.
    pub reads: AtomicUsize,
    /// Volumes that were sealed in the end.
    pub sealed: AtomicUsize,
    /// Repairs that were begun.
    pub repairs: AtomicUsize,
    /// Needles that a fenced replica refused.
    pub fenced: AtomicUsize,
    /// Needles that servers hold, acknowledged or not.
    pub compared: AtomicUsize,
}

impl History {
    pub fn new(trace: Arc<Trace>) -> Self {
        Self {
            trace,
            acknowledged: Mutex::default(),
            violations: Mutex::default(),
            grants: Mutex::default(),
            leaders: Mutex::default(),
            busy: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            sealed: AtomicUsize::new(0),
            repairs: AtomicUsize::new(0),
            fenced: AtomicUsize::new(0),
            compared: AtomicUsize::new(0),
        }
    }

    pub fn acknowledge(&self, needle: Needle, epoch: Epoch, writer: &str) {
        let Needle { volume, key, length, .. } = needle;
        self.trace.note(format_args!(
            "{writer}: {:x} of {length} bytes is on volume {volume}, epoch {epoch}",
            key.0
        ));
        self.acknowledged.lock().push(needle);
    }

    pub fn acknowledged(&self) -> Vec<Needle> {
        self.acknowledged.lock().clone()
    }

    /// Any needle that was acknowledged, if there is one.
    pub fn any(&self, rng: &mut StdRng) -> Option<Needle> {
        let acknowledged = self.acknowledged.lock();
        (!acknowledged.is_empty()).then(|| acknowledged[rng.random_range(0..acknowledged.len())])
    }

    pub fn violation(&self, what: fmt::Arguments<'_>) {
        self.trace.note(format_args!("VIOLATION: {what}"));
        let mut violations = self.violations.lock();
        if violations.len() < 20 {
            violations.push(what.to_string());
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// A master says that it leads in a term.
    pub fn leads(&self, term: u64, master: &str) {
        let mut leaders = self.leaders.lock();
        let before = leaders.get(&term).cloned();
        match before {
            None => {
                self.trace.note(format_args!("{master} leads in term {term}"));
                leaders.insert(term, master.to_owned());
            }
            Some(before) if before == master => {}
            Some(before) => self.violation(format_args!("{before} and {master} both lead in term {term}")),
        }
    }

    pub fn leaderships(&self) -> usize {
        self.leaders.lock().len()
    }

    /// A writer is at something until what this gives is dropped.
    pub fn at_work(&self) -> AtWork<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        AtWork(&self.busy)
    }

    /// How many writers are at something.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    pub fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}
