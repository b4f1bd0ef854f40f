//! Upload memory for many tasks: the [`Ledger`] behind a lock, and the waiting around it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hay_common::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::gauge::{BufferGauge, Held};
use super::ledger::{Changes, HolderId, Ledger, LedgerLimits};

/// A waiting body looks again this often, because idleness ripens without an event.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The buffer was taken away because its client sends nothing, or next to nothing, and others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evicted;

/// Why a buffer does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoGrowth {
    /// It was taken away.
    Evicted,
    /// Nothing became free in time.
    NoRoom,
}

/// All upload memory of a gateway.
#[derive(Clone)]
pub(crate) struct UploadMemory {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    clock: SharedClock,
    gauge: BufferGauge,
    wait_max: Duration,
}

struct State {
    ledger: Ledger,
    /// One for each share: woken when it is granted what it waits for, or evicted.
    wakers: HashMap<HolderId, Arc<Fate>>,
}

#[derive(Default)]
struct Fate {
    news: Notify,
    // 0 nothing, 1 granted, 2 evicted; written under the state's lock.
    verdict: std::sync::atomic::AtomicU8,
}

const GRANTED: u8 = 1;
const EVICTED: u8 = 2;

impl UploadMemory {
    /// Memory with these limits, counted in `gauge`.
    pub(crate) fn new(limits: LedgerLimits, clock: SharedClock, gauge: BufferGauge) -> Self {
        let wait_max = limits.wait_max;
        let state = State { ledger: Ledger::new(limits), wakers: HashMap::new() };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), clock, gauge, wait_max }) }
    }

    /// A buffer of no bytes.
    pub(crate) fn share(&self) -> Share {
        let fate = Arc::new(Fate::default());
        let mut state = self.inner.state.lock();
        let id = state.ledger.open();
        state.wakers.insert(id, Arc::clone(&fate));
        drop(state);
        Share { memory: self.clone(), id, fate, held: self.inner.gauge.hold(0), bytes: 0, idle: false }
    }

    /// Counts bytes that no share pays for.
    pub(crate) fn count(&self, bytes: usize) -> Held {
        self.inner.gauge.hold(bytes)
    }

    fn settle(&self, state: &mut State) {
        if !state.ledger.has_waiters() {
            return;
        }
        let Changes { granted, evicted } = state.ledger.settle(self.inner.clock.monotonic());
        for (ids, verdict) in [(granted, GRANTED), (evicted, EVICTED)] {
            for fate in ids.iter().filter_map(|id| state.wakers.get(id)) {
                fate.verdict.store(verdict, std::sync::atomic::Ordering::Release);
                fate.news.notify_one();
            }
        }
    }
}

/// The right to so many bytes of buffer. Dropping it gives them back.
pub(crate) struct Share {
    memory: UploadMemory,
    id: HolderId,
    fate: Arc<Fate>,
    held: Held,
    bytes: usize,
    idle: bool,
}

impl Share {
    /// Waits until the buffer may have `to` bytes in all.
    ///
    /// # Errors
    /// When it was evicted, or waited for too long.
    pub(crate) async fn grow(&mut self, to: usize) -> Result<(), NoGrowth> {
        self.idle = false;
        let granted = {
            let mut state = self.memory.inner.state.lock();
            if self.verdict() == EVICTED {
                return Err(NoGrowth::Evicted);
            }
            self.fate.verdict.store(0, std::sync::atomic::Ordering::Release);
            let granted = state.ledger.grow(self.id, to);
            self.memory.settle(&mut state);
            granted
        };
        if !granted {
            tokio::time::timeout(self.memory.inner.wait_max, self.wait())
                .await
                .map_err(|_| NoGrowth::NoRoom)?
                .map_err(|Evicted| NoGrowth::Evicted)?;
        }
        self.bytes = self.bytes.max(to);
        self.held.resize(self.bytes);
        Ok(())
    }

    async fn wait(&self) -> Result<(), Evicted> {
        loop {
            match self.verdict() {
                GRANTED => return Ok(()),
                EVICTED => return Err(Evicted),
                _ => {}
            }
            if tokio::time::timeout(LOOK_AGAIN, self.fate.news.notified()).await.is_err() {
                self.memory.settle(&mut self.memory.inner.state.lock());
            }
        }
    }

    fn verdict(&self) -> u8 {
        self.fate.verdict.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Nothing comes from the client.
    pub(crate) fn idle(&mut self) {
        if !self.idle {
            self.idle = true;
            let now = self.memory.inner.clock.monotonic();
            self.memory.inner.state.lock().ledger.idle(self.id, now);
        }
    }

    /// Bytes came; `is_slow`: fewer than the floor that counts under pressure.
    ///
    /// # Errors
    /// When it was evicted meanwhile.
    pub(crate) fn active(&mut self, is_slow: bool) -> Result<(), Evicted> {
        if self.idle {
            self.idle = false;
            let now = self.memory.inner.clock.monotonic();
            self.memory.inner.state.lock().ledger.active(self.id, is_slow, now);
        }
        if self.verdict() == EVICTED { Err(Evicted) } else { Ok(()) }
    }

    /// Resolves when it is evicted.
    pub(crate) async fn evicted(&self) -> Evicted {
        while self.verdict() != EVICTED {
            self.fate.news.notified().await;
        }
        Evicted
    }

    /// The chunk is complete: from now on it is never evicted.
    ///
    /// # Errors
    /// When it was evicted before.
    pub(crate) fn seal(&mut self) -> Result<(), Evicted> {
        self.memory.inner.state.lock().ledger.seal(self.id);
        if self.verdict() == EVICTED { Err(Evicted) } else { Ok(()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.memory.inner.state.lock();
        state.ledger.release(self.id);
        state.wakers.remove(&self.id);
        self.memory.settle(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::clock::ManualClock;

    fn memory(open_bytes: usize, slots: usize) -> (UploadMemory, Arc<ManualClock>) {
        patient_memory(open_bytes, slots, Duration::from_secs(60))
    }

    fn patient_memory(
        open_bytes: usize,
        slots: usize,
        wait_max: Duration,
    ) -> (UploadMemory, Arc<ManualClock>) {
        let clock = ManualClock::at(0);
        let limits = LedgerLimits {
            small_bytes: 100,
            small_each: 10,
            open_bytes,
            slots,
            park_idle: Duration::from_millis(10),
            pressure_idle: Duration::from_secs(3),
            wait_max,
        };
        (UploadMemory::new(limits, clock.clone(), BufferGauge::default()), clock)
    }

    #[tokio::test]
    async fn a_waiter_goes_on_when_another_is_dropped() {
        let (memory, _) = memory(100, 0);
        let mut first = memory.share();
        first.grow(100).await.unwrap();
        let mut second = memory.share();
        let waiting = tokio::spawn(async move { second.grow(50).await.map(|()| second) });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        assert_eq!((memory.inner.gauge.held(), memory.inner.gauge.peak()), (0, 100));
    }

    #[tokio::test]
    async fn a_stalled_one_is_told_that_it_lost_its_buffer() {
        let (memory, clock) = memory(100, 0);
        let mut stalled = memory.share();
        stalled.grow(100).await.unwrap();
        stalled.idle();
        clock.advance(Duration::from_secs(4));
        let mut working = memory.share();
        working.grow(80).await.unwrap();
        assert_eq!(stalled.evicted().await, Evicted);
        assert_eq!(stalled.active(false), Err(Evicted));
        assert_eq!(stalled.grow(101).await, Err(NoGrowth::Evicted));
    }

    #[tokio::test]
    async fn one_that_stops_waiting_leaves_no_trace() {
        let (memory, _) = memory(100, 0);
        let mut first = memory.share();
        first.grow(100).await.unwrap();
        let mut impatient = memory.share();
        assert!(tokio::time::timeout(Duration::from_millis(50), impatient.grow(50)).await.is_err());
        drop(impatient);
        assert!(!memory.inner.state.lock().ledger.has_waiters());
        assert_eq!(memory.inner.state.lock().wakers.len(), 1);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let (memory, _) = patient_memory(100, 0, Duration::from_millis(30));
        let mut first = memory.share();
        first.grow(100).await.unwrap();
        assert_eq!(memory.share().grow(50).await, Err(NoGrowth::NoRoom));
    }

    #[tokio::test]
    async fn one_that_trickles_gives_way_although_it_is_never_idle() {
        let (memory, _) = memory(100, 0);
        let mut trickling = memory.share();
        trickling.grow(100).await.unwrap();
        trickling.idle();
        trickling.active(true).unwrap();
        let mut working = memory.share();
        working.grow(80).await.unwrap();
        assert_eq!(trickling.evicted().await, Evicted);
    }
}
