//! Rows that most queries read and few commands change (who is behind a token, directories), at hand for the readers.
//!
//! They are exactly what the reader's own snapshot holds, never older or newer: a reader notes the generation before it
//! takes its snapshot, and uses or adds rows only while that generation still stands. The writer ends the generation
//! before a write that changes such a row, takes the changed rows out, and begins the next after the write.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hay_common::limits::HOT_ROWS_MAX;
use parking_lot::RwLock;

use crate::schema::keys::{self, Key};

/// Rows at hand for the readers.
#[derive(Default)]
pub(super) struct KnownRows {
    /// Odd while a write is under way. Changed only under the lock of `rows`, so that it stands still for its holders.
    generation: AtomicU64,
    rows: RwLock<HashMap<Key, Vec<u8>>>,
}

/// The generation in which a reader began. One of an odd generation opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass(u64);

impl KnownRows {
    /// To be taken before the snapshot.
    pub fn pass(&self) -> Pass {
        Pass(self.generation.load(Ordering::Acquire))
    }

    fn admits(&self, pass: Pass) -> bool {
        pass.0.is_multiple_of(2) && self.generation.load(Ordering::Acquire) == pass.0
    }

    /// The row of `key` as it is in every snapshot that was taken with `pass`, where it is at hand.
    pub fn get(&self, pass: Pass, key: &[u8]) -> Option<Vec<u8>> {
        let rows = self.rows.read();
        if self.admits(pass) { rows.get(key).cloned() } else { None }
    }

    /// Keeps a row that was read in a snapshot taken with `pass`, unless a write began since.
    pub fn keep(&self, pass: Pass, key: &[u8], value: &[u8]) {
        let mut rows = self.rows.write();
        if self.admits(pass) {
            if rows.len() >= HOT_ROWS_MAX {
                // The few that matter are back at once; no order of use is kept for the rest.
                rows.clear();
            }
            rows.insert(key.to_vec(), value.to_vec());
        }
    }

    /// A write of these keys is about to begin. Says whether it concerns rows of this kind: then [`KnownRows::open`]
    /// has to follow when the write is through. After one that failed it stays shut: what readers find is uncertain.
    pub fn shut<'k>(&self, changed: impl Iterator<Item = &'k Key>) -> bool {
        let mut changed = changed.filter(|key| keys::is_known(key)).peekable();
        if changed.peek().is_none() {
            return false;
        }
        let mut rows = self.rows.write();
        self.end();
        for key in changed {
            rows.remove(key);
        }
        true
    }

    /// The database is about to be another one.
    pub fn shut_all(&self) {
        let mut rows = self.rows.write();
        self.end();
        rows.clear();
    }

    fn end(&self) {
        self.generation.fetch_or(1, Ordering::AcqRel);
    }

    /// The write is through: snapshots that are taken from now on hold it.
    pub fn open(&self) {
        let _rows = self.rows.write();
        let ended = self.generation.load(Ordering::Acquire) | 1;
        self.generation.store(ended.wrapping_add(1), Ordering::Release);
    }
}
