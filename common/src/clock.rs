//! Time comes in from outside, so that a decision can be repeated and a simulation can own it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A source of time. Cheap to ask.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970 on the wall clock. May jump.
    fn wall_ms(&self) -> u64;
    /// Time since some fixed moment of this process. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// A clock that many hold.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The machine's clock; `monotonic` counts from now.
    #[expect(clippy::disallowed_methods, reason = "the one place where the real clock enters")]
    pub fn shared() -> SharedClock {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the real clock enters")]
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands until it is moved, for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(u64, Duration)>,
}

impl ManualClock {
    /// Stands at `wall_ms`.
    pub fn at(wall_ms: u64) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new((wall_ms, Duration::ZERO)) })
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        now.0 += by.as_millis() as u64;
        now.1 += by;
    }

    /// Sets the wall clock alone, back or forth.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.now.lock().0 = wall_ms;
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.now.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().1
    }
}
