//! Room on the disk: who waits for it, and when nobody must wait any longer.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hay_common::disk::is_full;
use hay_common::limits::LOG_ROOM_CHECK;

/// What the parts of one group know of the room on its disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    waiting: AtomicUsize,
    closing: AtomicBool,
}

impl Room {
    /// Whether the disk is full, and something waits for room.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The group ends: nothing waits for room any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// The disk counts as full until what this gives is dropped.
    pub(crate) fn wait<'a>(&'a self, dir: &'a Path) -> Waiting<'a> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(dir = %dir.display(), "the disk is full: the group waits for room");
        }
        Waiting { room: self, dir }
    }

    /// Does `work` again and again while the disk is full and the group goes on. A try that failed must leave nothing that
    /// counts: the next one begins from the beginning. Blocks.
    pub(crate) fn retry<T>(&self, dir: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut done = work();
        let mut waiting = None;
        while let Err(error) = &done
            && is_full(error)
            && !self.is_closing()
        {
            waiting.get_or_insert_with(|| self.wait(dir));
            std::thread::sleep(LOG_ROOM_CHECK);
            done = work();
        }
        done
    }
}

/// Something waits for room.
pub(crate) struct Waiting<'a> {
    room: &'a Room,
    dir: &'a Path,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.room.waiting.fetch_sub(1, Ordering::Relaxed) == 1 && !self.room.is_closing() {
            tracing::info!(dir = %self.dir.display(), "there is room again: the group goes on");
        }
    }
}
