//! How many pairs of work and floor there are, and which count. Decisions only: what happened comes in.

/// A pair during which the host took more of the CPU time away than this says nothing.
pub const STEAL_PERCENT_MAX: f64 = 10.0;
/// Pairs in all, whatever the count asks for.
const PAIRS_MAX: u32 = 1_000;

/// The course of one mode's pairs.
#[derive(Debug, Clone)]
pub struct Course {
    wanted: u32,
    count: u64,
    repeats_left: u32,
    kept: u32,
    repeated: u32,
    done: u64,
}

/// What becomes of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Keep,
    /// It is done once more.
    Repeat,
}

impl Course {
    /// At least `wanted` pairs, and as many as `count` operations take.
    pub fn new(wanted: u32, count: u64) -> Self {
        Self { wanted, count, repeats_left: wanted.saturating_mul(2), kept: 0, repeated: 0, done: 0 }
    }

    /// How many operations the next slice of work may do; `None` when the course is over.
    pub fn next(&self) -> Option<u64> {
        if self.kept >= PAIRS_MAX || (self.kept >= self.wanted && self.done >= self.count) {
            return None;
        }
        let pairs_left = self.wanted.saturating_sub(self.kept).max(1);
        Some(self.count.saturating_sub(self.done).div_ceil(u64::from(pairs_left)).max(1))
    }

    /// Takes note of a pair with `ops` operations of work.
    pub fn take(&mut self, ops: u64, steal_percent: f64) -> Verdict {
        if steal_percent > STEAL_PERCENT_MAX && self.repeats_left > 0 {
            self.repeats_left -= 1;
            self.repeated += 1;
            return Verdict::Repeat;
        }
        self.kept += 1;
        self.done += ops;
        Verdict::Keep
    }

    /// Pairs that were repeated.
    pub fn repeated(&self) -> u32 {
        self.repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(course: &mut Course, slice_max: u64, steal: impl Fn(u32) -> f64) -> (u32, u64) {
        let (mut pairs, mut ops) = (0, 0);
        while let Some(quota) = course.next() {
            let done = quota.min(slice_max);
            ops += done;
            course.take(done, steal(pairs));
            pairs += 1;
        }
        (pairs, ops)
    }

    #[test]
    fn the_count_is_spread_over_the_pairs() {
        assert_eq!(run(&mut Course::new(5, 100), u64::MAX, |_| 0.0), (5, 100));
        assert_eq!(run(&mut Course::new(5, 7), u64::MAX, |_| 0.0), (5, 7));
    }

    #[test]
    fn there_are_five_pairs_even_for_one_object() {
        assert_eq!(run(&mut Course::new(5, 1), u64::MAX, |_| 0.0).0, 5);
    }

    #[test]
    fn slices_that_run_out_of_time_are_followed_by_more() {
        assert_eq!(run(&mut Course::new(5, 100), 10, |_| 0.0), (10, 100));
    }

    #[test]
    fn stolen_pairs_are_repeated_but_not_for_ever() {
        let mut course = Course::new(5, 50);
        assert_eq!(run(&mut course, u64::MAX, |pair| if pair == 1 { 40.0 } else { 0.0 }).0, 6);
        assert_eq!(course.repeated(), 1);
        let mut course = Course::new(5, 50);
        assert_eq!(run(&mut course, u64::MAX, |_| 40.0).0, 15);
        assert_eq!(course.repeated(), 10);
    }
}
