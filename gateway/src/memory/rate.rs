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

/// Watches one body. Its credit is the time that it may still let us wait: it begins with the window, each byte earns
/// the time that it may take at the rate, and no credit beyond the window is kept, so that a fast beginning excuses no
/// stall.
#[derive(Debug)]
pub(crate) struct RateFloor {
    limits: RateLimits,
    credit: Duration,
}

/// A body below the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl RateFloor {
    /// With a whole window of credit.
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self { limits, credit: limits.window }
    }

    /// How long the next bytes may take.
    pub(crate) fn patience(&self) -> Duration {
        self.credit
    }

    /// `bytes` came after `waited` (0 bytes: nothing came).
    ///
    /// # Errors
    /// When the credit is used up.
    pub(crate) fn note(&mut self, bytes: usize, waited: Duration) -> Result<(), TooSlow> {
        let left = self.credit.saturating_sub(waited);
        if left.is_zero() {
            return Err(TooSlow);
        }
        let earned_us = (bytes as u64).saturating_mul(1_000_000) / self.limits.bytes_per_s_min.max(1);
        self.credit = left.saturating_add(Duration::from_micros(earned_us)).min(self.limits.window);
        Ok(())
    }
}

/// The higher floor that counts only while others wait for buffers: what is below it is no error, but is named slow.
#[derive(Debug)]
pub(crate) struct PressureFloor {
    limits: RateLimits,
    credit: Duration,
}

impl PressureFloor {
    /// With a whole window of credit.
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self { limits, credit: limits.window }
    }

    /// `bytes` came after `waited`. True: over the last window less came than the floor asks for.
    pub(crate) fn note(&mut self, bytes: usize, waited: Duration) -> bool {
        let left = self.credit.saturating_sub(waited);
        let earned_us = (bytes as u64).saturating_mul(1_000_000) / self.limits.bytes_per_s_min.max(1);
        self.credit = left.saturating_add(Duration::from_micros(earned_us)).min(self.limits.window);
        left.is_zero()
    }

    /// Whether it has been waited for until no credit was left.
    pub(crate) fn is_used_up(&self) -> bool {
        self.credit.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RateLimits = RateLimits { bytes_per_s_min: 4096, window: Duration::from_secs(30) };
    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds a body of so many bytes a second is given up.
    fn given_up_after(bytes_per_s: usize, first: usize) -> Option<u32> {
        let mut floor = RateFloor::new(LIMITS);
        floor.note(first, Duration::ZERO).unwrap();
        (1..=1000).find(|_| floor.note(bytes_per_s, SECOND).is_err())
    }

    #[test]
    fn a_body_at_the_rate_passes_and_one_below_does_not() {
        for (bytes_per_s, first, expected) in [
            (4096, 0, None),
            (8192, 0, None),
            (0, 0, Some(30)),
            (0, 1 << 30, Some(30)),
            (200, 200 << 10, Some(32)),
            (2048, 0, Some(59)),
        ] {
            assert_eq!(given_up_after(bytes_per_s, first), expected, "{bytes_per_s} bytes/s after {first}");
        }
    }

    #[test]
    fn bytes_in_bursts_count_as_well() {
        let mut floor = RateFloor::new(LIMITS);
        for _ in 0..100 {
            floor.note(20 * 4096, SECOND * 20).unwrap();
        }
        assert_eq!(floor.note(1, SECOND * 30), Err(TooSlow));
    }

    #[test]
    fn only_waiting_costs() {
        let mut floor = RateFloor::new(LIMITS);
        for _ in 0..10_000 {
            floor.note(1, Duration::ZERO).unwrap();
        }
        assert_eq!(floor.patience(), LIMITS.window);
        floor.note(0, SECOND * 10).unwrap();
        assert_eq!(floor.patience(), SECOND * 20);
    }

    #[test]
    fn a_trickle_is_slow_and_a_steady_body_is_not() {
        let limits = RateLimits { bytes_per_s_min: 65_536, window: SECOND * 5 };
        let tenth = Duration::from_millis(100);
        for (bytes, slow) in [(600, true), (6_000, true), (6_554, false), (100_000, false)] {
            let mut floor = PressureFloor::new(limits);
            floor.note(5 << 20, Duration::ZERO);
            let noted: Vec<bool> = (0..1000).map(|_| floor.note(bytes, tenth)).collect();
            assert_eq!(noted.last(), Some(&slow), "{bytes} bytes in 100 ms");
            assert!(noted.iter().take(40).all(|n| !n), "{bytes}: a window passes first");
        }
        let mut floor = PressureFloor::new(limits);
        assert!(floor.note(0, SECOND * 6));
        floor.note(1 << 20, tenth);
        assert!(!floor.note(10, tenth), "it came back");
    }
}
