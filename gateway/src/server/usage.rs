//! What one connection is used for: requests in work, and bytes of a head that is not complete yet.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hay_common::clock::SharedClock;
use hay_common::limits::{HTTP_HEAD_SHORT_BYTES, HTTP_HEADS_BYTES_MAX};

use crate::memory::gauge::BufferGauge;

/// The use of one connection.
pub(crate) struct Usage {
    in_work: AtomicUsize,
    requests: AtomicU64,
    /// Since when nothing is in work, in ms of the monotonic clock.
    idle_since_ms: AtomicU64,
    /// Read while nothing was in work: the head of the next request, as far as it has come.
    head_bytes: AtomicUsize,
    /// The same of all connections.
    heads: BufferGauge,
    clock: SharedClock,
}

impl Usage {
    /// Of a new connection.
    pub(crate) fn new(heads: BufferGauge, clock: SharedClock) -> Arc<Self> {
        let usage = Self {
            in_work: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            idle_since_ms: AtomicU64::new(0),
            head_bytes: AtomicUsize::new(0),
            heads,
            clock,
        };
        usage.idle_since_ms.store(usage.now_ms(), Ordering::Relaxed);
        Arc::new(usage)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request has come; it is in work until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InWork {
        self.in_work.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.heads.forget(self.head_bytes.swap(0, Ordering::Relaxed));
        InWork(Arc::clone(self))
    }

    /// Whether a request ever came.
    pub(crate) fn had_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// How long nothing has been in work.
    pub(crate) fn idle_for(&self) -> Duration {
        match self.in_work.load(Ordering::Relaxed) {
            0 => Duration::from_millis(
                self.now_ms().saturating_sub(self.idle_since_ms.load(Ordering::Relaxed)),
            ),
            _ => Duration::ZERO,
        }
    }

    /// Bytes came from the client.
    ///
    /// # Errors
    /// When heads that nobody completes fill the memory for them, and this one is not short.
    pub(crate) fn note_read(&self, bytes: usize) -> io::Result<()> {
        if bytes == 0 || self.in_work.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        let mine = self.head_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.heads.remember(bytes);
        if mine > HTTP_HEAD_SHORT_BYTES && self.heads.held() > HTTP_HEADS_BYTES_MAX as u64 {
            return Err(io::Error::other("too many heads of requests are not complete"));
        }
        Ok(())
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.heads.forget(*self.head_bytes.get_mut());
    }
}

/// One request in work.
pub(crate) struct InWork(Arc<Usage>);

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.idle_since_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::clock::ManualClock;

    #[test]
    fn idleness_begins_with_the_end_of_the_last_request() {
        let clock = ManualClock::at(0);
        let usage = Usage::new(BufferGauge::default(), clock.clone());
        clock.advance(Duration::from_secs(3));
        assert_eq!((usage.idle_for(), usage.had_requests()), (Duration::from_secs(3), false));
        let (first, second) = (usage.begin(), usage.begin());
        clock.advance(Duration::from_secs(3));
        drop(first);
        assert_eq!((usage.idle_for(), usage.had_requests()), (Duration::ZERO, true));
        drop(second);
        clock.advance(Duration::from_secs(5));
        assert_eq!(usage.idle_for(), Duration::from_secs(5));
    }

    #[test]
    fn heads_that_nobody_completes_are_bounded_and_short_ones_are_read_all_the_same() {
        let heads = BufferGauge::default();
        let new = || Usage::new(heads.clone(), ManualClock::at(0));
        let many: Vec<_> = (0..4_000).map(|_| new()).collect();
        let refused = many.iter().filter(|u| u.note_read(60_000).is_err()).count();
        assert!(refused > 3_000, "{refused}");
        new().note_read(HTTP_HEAD_SHORT_BYTES).unwrap();
        let in_work = many[0].begin();
        let before = heads.held();
        many[0].note_read(1 << 20).unwrap();
        assert_eq!(heads.held(), before, "a body is not a head");
        drop((many, in_work));
        assert_eq!(heads.held(), 0);
    }
}
