//! The rate below which a body loses its buffer. Only the time spent waiting for the client counts: a client is
//! never blamed for our own slowness.

use std::time::Duration;

/// How slow is too slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimits {
    /// Bytes a second …
    pub(crate) bytes_per_s_min: u64,
    /// … over this much waiting.
    pub(crate) window: Duration,
}

/// Watches one body.
#[derive(Debug)]
pub(crate) struct RateFloor {
    limits: RateLimits,
    waited: Duration,
    bytes: u64,
}

/// A body below the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl RateFloor {
    /// A fresh window.
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self { limits, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next bytes may take before it must be judged again.
    pub(crate) fn patience(&self) -> Duration {
        self.limits.window.saturating_sub(self.waited)
    }

    /// `bytes` came after `waited` (0 bytes: nothing came).
    ///
    /// # Errors
    /// When a window is over and too little came in it.
    pub(crate) fn note(&mut self, bytes: usize, waited: Duration) -> Result<(), TooSlow> {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < self.limits.window {
            return Ok(());
        }
        let wanted = self.limits.bytes_per_s_min.saturating_mul(self.limits.window.as_millis() as u64) / 1000;
        let enough = self.bytes >= wanted;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        if enough { Ok(()) } else { Err(TooSlow) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RateLimits = RateLimits { bytes_per_s_min: 4096, window: Duration::from_secs(30) };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_steady_body_at_the_rate_passes_and_one_below_does_not() {
        let mut floor = RateFloor::new(LIMITS);
        for second in 0..300 {
            assert_eq!(floor.note(4096, SECOND), Ok(()), "{second}");
        }
        let mut floor = RateFloor::new(LIMITS);
        for _ in 0..29 {
            assert_eq!(floor.note(4095, SECOND), Ok(()));
        }
        assert_eq!(floor.note(4095, SECOND), Err(TooSlow));
    }

    #[test]
    fn a_stalled_body_is_judged_when_its_window_ends() {
        let mut floor = RateFloor::new(LIMITS);
        floor.note(1 << 10, SECOND * 10).unwrap();
        assert_eq!(floor.patience(), SECOND * 20);
        assert_eq!(floor.note(0, floor.patience()), Err(TooSlow));
    }

    #[test]
    fn bytes_of_an_earlier_window_do_not_count() {
        let mut floor = RateFloor::new(LIMITS);
        floor.note(1 << 30, SECOND * 30).unwrap();
        assert_eq!(floor.note(0, SECOND * 30), Err(TooSlow));
    }

    #[test]
    fn waiting_alone_counts() {
        let mut floor = RateFloor::new(LIMITS);
        for _ in 0..10_000 {
            floor.note(1, Duration::ZERO).unwrap();
        }
        assert_eq!(floor.patience(), LIMITS.window);
    }
}
