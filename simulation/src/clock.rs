//! One time for all machines, moved by whoever runs the simulation; each machine's wall clock may be off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hay_common::clock::Clock;

/// 2026-01-01, in ms since 1970.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// Simulated time since the beginning.
#[derive(Debug, Default)]
pub struct Time(AtomicU64);

impl Time {
    pub fn set(&self, now: Duration) {
        self.0.store(now.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// The clock of one machine.
#[derive(Debug)]
pub struct MachineClock {
    time: Arc<Time>,
    /// By how much its wall clock is off, in ms.
    off_ms: AtomicI64,
}

impl MachineClock {
    pub fn new(time: Arc<Time>) -> Arc<Self> {
        Arc::new(Self { time, off_ms: AtomicI64::new(0) })
    }

    pub fn be_off_by_ms(&self, off_ms: i64) {
        self.off_ms.store(off_ms, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn wall_ms(&self) -> u64 {
        let now_ms = EPOCH_MS + self.time.now().as_millis() as u64;
        now_ms.saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.time.now()
    }
}
