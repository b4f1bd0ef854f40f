//! Whether the next batch shall wait for company, as a decision.
//!
//! The callers of a batch that has just been answered are likely to come again at once. A sync begun for the first of
//! them makes the others wait for the next one: with 16 callers, 10 share a sync instead of 16. So where several were
//! there, the appender gives them a moment, a fraction of what a sync takes. Where that brings too few (callers with
//! other work between their appends) it stops trying for a while. A lone caller never waits.

use std::time::Duration;

use super::queue::Gather;

/// No batch waits longer.
const PATIENCE_MAX: Duration = Duration::from_micros(250);
/// A wait that brought fewer than one more for each four is not worth its time …
const WORTH_PERCENT: usize = 125;
/// … and the next one comes after so many batches.
const REST_BATCHES: u32 = 32;

/// What is known of the last batches.
#[derive(Debug, Default)]
pub(crate) struct Company {
    /// Needles of callers around when the last batch ended: its own, and those that waited.
    around: usize,
    /// Needles that waited then: what a batch without a wait would have had.
    waited: usize,
    sync: Duration,
    rest: u32,
    tried: bool,
}

impl Company {
    /// For the next batch.
    pub fn gather(&mut self) -> Option<Gather> {
        self.tried = false;
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        if self.around < 2 || self.waited >= self.around {
            return None;
        }
        self.tried = true;
        Some(Gather { needles: self.around, patience: (self.sync / 4).min(PATIENCE_MAX) })
    }

    /// A batch of `needles` ended, its sync took `sync`; `waiting` others are there.
    pub fn batch(&mut self, needles: usize, waiting: usize, sync: Duration) {
        if self.tried && needles * 100 < self.waited.max(1) * WORTH_PERCENT {
            self.rest = REST_BATCHES;
        }
        self.around = needles + waiting;
        self.waited = waiting;
        self.sync = sync;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(400);

    #[test]
    fn a_lone_caller_never_waits() {
        let mut company = Company::default();
        for _ in 0..100 {
            assert_eq!(company.gather(), None);
            company.batch(1, 0, SYNC);
        }
    }

    #[test]
    fn callers_that_come_again_share_a_sync() {
        let mut company = Company::default();
        assert_eq!(company.gather(), None);
        company.batch(6, 10, SYNC);
        for _ in 0..100 {
            assert_eq!(company.gather(), Some(Gather { needles: 16, patience: SYNC / 4 }));
            company.batch(16, 0, SYNC);
        }
        company.batch(16, 0, Duration::from_secs(1));
        assert_eq!(company.gather().unwrap().patience, PATIENCE_MAX);
    }

    #[test]
    fn a_wait_that_brings_nobody_is_not_repeated_at_once() {
        let mut company = Company::default();
        company.batch(6, 10, SYNC);
        assert!(company.gather().is_some());
        company.batch(11, 5, SYNC);
        for _ in 0..REST_BATCHES {
            assert_eq!(company.gather(), None);
            company.batch(8, 8, SYNC);
        }
        assert!(company.gather().is_some());
    }
}
