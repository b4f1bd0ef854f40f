//! When to try again, as a decision: how often, after how long.

use std::time::Duration;

use crate::random::Random;

/// Exponential backoff with full jitter and an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first one included.
    pub attempts_max: u32,
    /// The first pause; each further one is twice as long.
    pub pause_first: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
}

impl RetryPolicy {
    /// The pause before try number `attempt` (the first retry is 1), or `None` when it is time to give up.
    pub fn pause(&self, attempt: u32, random: &dyn Random) -> Option<Duration> {
        if attempt >= self.attempts_max {
            return None;
        }
        let whole = self
            .pause_first
            .saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(self.pause_max);
        let share = f64::from(random.u32()) / f64::from(u32::MAX);
        Some(whole.mul_f64(0.5 + share / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn it_ends_and_stays_below_its_bound() {
        let policy = RetryPolicy {
            attempts_max: 40,
            pause_first: Duration::from_millis(10),
            pause_max: Duration::from_secs(1),
        };
        let random = SeededRandom::shared(1);
        for attempt in 1..40 {
            let pause = policy.pause(attempt, random.as_ref()).unwrap();
            assert!(pause <= policy.pause_max && pause >= Duration::from_millis(5), "{attempt}: {pause:?}");
        }
        assert_eq!(policy.pause(40, random.as_ref()), None);
    }
}
