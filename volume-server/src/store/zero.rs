//! Space zeroed ahead of the appender, in the background: a sync into it needs no journal.
//!
//! The zeroing thread and the appender never write the same bytes: the thread announces each step, and an append that
//! would reach into what is not zeroed yet waits for the step, or, when none is under way, moves the border.

use hay_common::disk::is_full;
use hay_common::limits::ZERO_STEP_BYTES;
use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
struct Border {
    /// From the last record to here there are zeros, on disk.
    to: u64,
    /// A thread is at work beyond `to`.
    running: bool,
    /// The thread shall end.
    stop: bool,
}

/// How far a volume is zeroed.
#[derive(Debug)]
pub(crate) struct ZeroAhead {
    border: Mutex<Border>,
    moved: Condvar,
    /// How far ahead; 0 for volumes that grow.
    ahead: u64,
}

impl ZeroAhead {
    pub fn new(zeroed_to: u64, ahead: u64) -> Self {
        let border = Border { to: zeroed_to, running: false, stop: false };
        Self { border: Mutex::new(border), moved: Condvar::new(), ahead }
    }

    /// Before a write up to `end`: afterwards no zeros will be written below `end`.
    pub fn reach(&self, end: u64) {
        if self.ahead == 0 {
            return;
        }
        let mut border = self.border.lock();
        while border.running && border.to < end {
            self.moved.wait(&mut border);
        }
        border.to = border.to.max(end);
    }

    /// Where zeros end.
    pub fn zeroed_to(&self) -> u64 {
        self.border.lock().to
    }

    /// After a write up to `end`: whether a thread shall go and zero, and up to where. The caller must start one that
    /// runs [`ZeroAhead::run`].
    pub fn due(&self, end: u64, file_max: u64) -> Option<u64> {
        let target = end.saturating_add(self.ahead).min(file_max);
        let mut border = self.border.lock();
        // From half on, so that steps are many at a time.
        let is_low = border.to < end.saturating_add(self.ahead / 2).min(file_max);
        if self.ahead == 0 || border.running || border.stop || !is_low {
            return None;
        }
        border.running = true;
        Some(target)
    }

    /// Zeros up to `target` in steps. Each changes the file's size, so each makes the syncs of appends meanwhile wait
    /// for the file system's journal: few large steps hold up less in all than many small ones.
    pub fn run(
        &self,
        target: u64,
        mut step: impl FnMut(u64, u64) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        // However this ends, an appender that waits goes on.
        let _ends = Ends(self);
        loop {
            let from = {
                let border = self.border.lock();
                if border.stop || border.to >= target {
                    return Ok(());
                }
                border.to
            };
            let to = target.min(from + ZERO_STEP_BYTES.max(self.ahead / 4));
            match step(from, to) {
                Ok(()) => {}
                // What of it was written are zeros beyond the border: harmless.
                Err(e) if is_full(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
            self.border.lock().to = to;
            self.moved.notify_all();
        }
    }

    /// Runs `cut`, which takes the file back to `end`, while nothing is zeroed.
    pub fn cut_to(&self, end: u64, cut: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
        let mut border = self.border.lock();
        while border.running {
            self.moved.wait(&mut border);
        }
        cut()?;
        border.to = end;
        Ok(())
    }

    /// After [`ZeroAhead::due`] has said yes and no thread could be started.
    pub fn abandon(&self) {
        drop(Ends(self));
    }

    /// Ends the zeroing for good and waits for it.
    pub fn stop(&self) {
        let mut border = self.border.lock();
        border.stop = true;
        while border.running {
            self.moved.wait(&mut border);
        }
    }
}

struct Ends<'a>(&'a ZeroAhead);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.border.lock().running = false;
        self.0.moved.notify_all();
    }
}
