//! Upload memory for many tasks: the [`Ledger`] behind a lock, and the waiting around it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hay_common::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::aside::AsideRoom;
use super::gauge::{BufferGauge, Held};
use super::ledger::{Changes, HolderId, Ledger, LedgerLimits};

/// While bodies wait, one task for all of them looks this often, because idleness ripens without an event.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The buffer was taken away because its client sends nothing, or next to nothing, and others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evicted;

/// What a body is told while it waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It has lost its buffer.
    Evicted,
    /// It is to set its buffer aside.
    SetAside,
}

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
    aside: Option<Arc<AsideRoom>>,
    times_aside: AtomicU64,
}

struct State {
    ledger: Ledger,
    /// One for each share: woken when there is a verdict.
    wakers: HashMap<HolderId, Arc<Fate>>,
    /// Whether the task that looks again is there.
    is_looked_after: bool,
}

#[derive(Default)]
struct Fate {
    news: Notify,
    // One of those below; written under the state's lock.
    verdict: AtomicU8,
}

const NOTHING: u8 = 0;
const GRANTED: u8 = 1;
const EVICTED: u8 = 2;
const SET_ASIDE: u8 = 3;

impl UploadMemory {
    /// Memory with these limits, counted in `gauge`. Nothing is set aside without a room for it, whatever the limits say.
    pub(crate) fn new(
        mut limits: LedgerLimits,
        clock: SharedClock,
        gauge: BufferGauge,
        aside: Option<AsideRoom>,
    ) -> Self {
        let wait_max = limits.wait_max;
        if aside.is_none() {
            limits.aside.bytes = 0;
        }
        let state = State { ledger: Ledger::new(limits), wakers: HashMap::new(), is_looked_after: false };
        let (state, aside) = (Mutex::new(state), aside.map(Arc::new));
        let times_aside = AtomicU64::new(0);
        Self { inner: Arc::new(Inner { state, clock, gauge, wait_max, aside, times_aside }) }
    }

    /// A buffer of no bytes.
    pub(crate) fn share(&self) -> Share {
        let fate = Arc::new(Fate::default());
        let mut state = self.inner.state.lock();
        let id = state.ledger.open();
        state.wakers.insert(id, Arc::clone(&fate));
        drop(state);
        let lease = Lease { inner: Arc::clone(&self.inner), id, bytes: AtomicUsize::new(0) };
        Share { lease: Arc::new(lease), fate, idle: false }
    }

    /// Counts bytes that no share pays for.
    pub(crate) fn count(&self, bytes: usize) -> Held {
        self.inner.gauge.hold(bytes)
    }

    /// Bytes in files.
    pub(crate) fn aside_bytes(&self) -> usize {
        self.inner.state.lock().ledger.aside_bytes()
    }

    /// How often a buffer was set aside.
    pub(crate) fn times_aside(&self) -> u64 {
        self.inner.times_aside.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn settle(&self, state: &mut State) {
        if !state.ledger.has_waiters() {
            return;
        }
        let Changes { granted, evicted, to_set_aside } = state.ledger.settle(self.clock.monotonic());
        for (ids, verdict) in [(granted, GRANTED), (evicted, EVICTED), (to_set_aside, SET_ASIDE)] {
            for fate in ids.iter().filter_map(|id| state.wakers.get(id)) {
                fate.verdict.store(verdict, Ordering::Release);
                fate.news.notify_one();
            }
        }
    }

    /// Looks again until nobody waits any more.
    async fn look_after(inner: Weak<Self>) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let Some(inner) = inner.upgrade() else { return };
            let mut state = inner.state.lock();
            if !state.ledger.has_waiters() {
                state.is_looked_after = false;
                return;
            }
            inner.settle(&mut state);
        }
    }
}

/// What is given back when the last one who needs it is done.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    id: HolderId,
    bytes: AtomicUsize,
}

impl Lease {
    fn count(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.inner.gauge.remember(bytes.saturating_sub(before));
        self.inner.gauge.forget(before.saturating_sub(bytes));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.count(0);
        let mut state = self.inner.state.lock();
        state.ledger.release(self.id);
        state.wakers.remove(&self.id);
        self.inner.settle(&mut state);
    }
}

/// The right to so many bytes of buffer. Dropping it gives them back.
pub(crate) struct Share {
    lease: Arc<Lease>,
    fate: Arc<Fate>,
    idle: bool,
}

impl Share {
    fn inner(&self) -> &Inner {
        &self.lease.inner
    }

    /// Keeps the memory from being given back, also after the share was dropped: for threads that work on it.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// Where buffers are set aside.
    pub(crate) fn aside_room(&self) -> Option<Arc<AsideRoom>> {
        self.inner().aside.clone()
    }

    /// Waits until the buffer may have `to` bytes in all.
    ///
    /// # Errors
    /// When it was evicted, or waited for too long.
    pub(crate) async fn grow(&mut self, to: usize) -> Result<(), NoGrowth> {
        self.idle = false;
        let granted = {
            let mut state = self.inner().state.lock();
            if self.verdict() == EVICTED {
                return Err(NoGrowth::Evicted);
            }
            self.fate.verdict.store(NOTHING, Ordering::Release);
            let granted = state.ledger.grow(self.lease.id, to);
            if !granted && !state.is_looked_after {
                state.is_looked_after = true;
                tokio::spawn(Inner::look_after(Arc::downgrade(&self.lease.inner)));
            }
            self.inner().settle(&mut state);
            granted
        };
        if !granted {
            tokio::time::timeout(self.inner().wait_max, self.wait())
                .await
                .map_err(|_| NoGrowth::NoRoom)?
                .map_err(|Evicted| NoGrowth::Evicted)?;
        }
        self.lease.count(to.max(self.lease.bytes.load(Ordering::Relaxed)));
        Ok(())
    }

    async fn wait(&self) -> Result<(), Evicted> {
        loop {
            match self.verdict() {
                GRANTED => return Ok(()),
                EVICTED => return Err(Evicted),
                _ => self.fate.news.notified().await,
            }
        }
    }

    fn verdict(&self) -> u8 {
        self.fate.verdict.load(Ordering::Acquire)
    }

    /// Nothing comes from the client.
    pub(crate) fn idle(&mut self) {
        if !self.idle {
            self.idle = true;
            let now = self.inner().clock.monotonic();
            self.inner().state.lock().ledger.idle(self.lease.id, now);
        }
    }

    /// Bytes came; `is_slow`: fewer than the floor that counts under pressure.
    ///
    /// # Errors
    /// When it was evicted meanwhile.
    pub(crate) fn active(&mut self, is_slow: bool) -> Result<(), Evicted> {
        if self.idle {
            self.idle = false;
            let now = self.inner().clock.monotonic();
            let mut state = self.inner().state.lock();
            state.ledger.active(self.lease.id, is_slow, now);
            // It was chosen a moment before: another will be.
            if self.verdict() == SET_ASIDE {
                self.fate.verdict.store(NOTHING, Ordering::Release);
                self.inner().settle(&mut state);
            }
        }
        if self.verdict() == EVICTED { Err(Evicted) } else { Ok(()) }
    }

    /// Resolves when others need its memory.
    pub(crate) async fn news(&self) -> News {
        loop {
            match self.verdict() {
                EVICTED => return News::Evicted,
                SET_ASIDE => return News::SetAside,
                _ => self.fate.news.notified().await,
            }
        }
    }

    /// Its buffer is empty again: `bytes` of it went to its file.
    pub(crate) fn set_aside(&mut self, bytes: usize) {
        self.inner().times_aside.fetch_add(1, Ordering::Relaxed);
        self.lease.count(0);
        self.tell(|ledger, id, _| ledger.set_aside(id, bytes));
    }

    /// It could not be set aside and stays where it is.
    pub(crate) fn not_set_aside(&mut self) {
        self.tell(|ledger, id, now| ledger.not_set_aside(id, now));
    }

    /// What was in its file is in its buffer again.
    pub(crate) fn taken_back(&mut self) {
        self.tell(|ledger, id, _| ledger.taken_back(id));
    }

    fn tell(&self, what: impl FnOnce(&mut Ledger, HolderId, Duration)) {
        let now = self.inner().clock.monotonic();
        let mut state = self.inner().state.lock();
        if self.verdict() == SET_ASIDE {
            self.fate.verdict.store(NOTHING, Ordering::Release);
        }
        what(&mut state.ledger, self.lease.id, now);
        self.inner().settle(&mut state);
    }

    /// The chunk is complete: from now on it is never taken.
    ///
    /// # Errors
    /// When it was evicted before.
    pub(crate) fn seal(&mut self) -> Result<(), Evicted> {
        self.tell(|ledger, id, _| ledger.seal(id));
        if self.verdict() == EVICTED { Err(Evicted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ledger::AsideLimits;
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
            aside: AsideLimits { bytes: 0, at_once: 0, worth: 0, each: 0, pause: Duration::ZERO },
        };
        (UploadMemory::new(limits, clock.clone(), BufferGauge::default(), None), clock)
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
        assert_eq!(stalled.news().await, News::Evicted);
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
    async fn one_that_trickles_gives_way_although_it_is_never_idle_for_long() {
        let (memory, _) = memory(100, 0);
        let mut trickling = memory.share();
        trickling.grow(100).await.unwrap();
        trickling.idle();
        trickling.active(true).unwrap();
        trickling.idle();
        let mut working = memory.share();
        working.grow(80).await.unwrap();
        assert_eq!(trickling.news().await, News::Evicted);
    }
}
