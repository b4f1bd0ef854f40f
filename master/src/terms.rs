//! For how long something is not tried again that has failed: for twice as long each further time, and for half as long again
//! for each such time that it did not fail.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// The shortest and the longest time, and the least that counts as one in which it did not fail.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    pub least: Duration,
    pub most: Duration,
    pub calm: Duration,
}

/// What is not tried again yet.
#[derive(Debug)]
pub struct Terms<K>(HashMap<K, Term>);

#[derive(Debug, Clone, Copy)]
struct Term {
    until: Duration,
    length: Duration,
}

impl<K> Default for Terms<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Terms<K> {
    /// It has failed. What fails while its term runs counts once.
    pub fn begin(&mut self, key: K, lengths: Lengths, now: Duration) {
        let length = match self.0.get(&key) {
            Some(before) if now < before.until => return,
            Some(before) => {
                let calm = before.length.max(lengths.calm).as_millis().max(1);
                let well = now.saturating_sub(before.until).as_millis() / calm;
                // Beyond so many halvings nothing is left of any.
                let halved = before.length / (1 << well.min(16));
                (halved * 2).clamp(lengths.least, lengths.most)
            }
            None => lengths.least,
        };
        self.0.retain(|_, term| now < term.until.saturating_add(lengths.most * 4));
        self.0.insert(key, Term { until: now.saturating_add(length), length });
    }

    /// For how long it is not to be tried yet.
    pub fn left(&self, key: &K, now: Duration) -> Option<Duration> {
        self.0.get(key)?.until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// These terms are over; how long they were is remembered.
    pub fn end(&mut self, is_over: impl Fn(&K) -> bool, now: Duration) {
        let over = self.0.iter_mut().filter(|(key, _)| is_over(key));
        over.for_each(|(_, term)| term.until = term.until.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_double_while_it_fails_and_are_forgotten_while_it_does_not() {
        let second = Duration::from_secs(1);
        let lengths = Lengths { least: second, most: second * 300, calm: second * 60 };
        let (mut terms, mut now) = (Terms::default(), second * 100);
        let mut seen = Vec::new();
        for _ in 0..12 {
            assert_eq!(terms.left(&1, now), None);
            terms.begin(1, lengths, now);
            terms.begin(1, lengths, now);
            let left = terms.left(&1, now).unwrap();
            assert_eq!(terms.left(&2, now), None);
            seen.push(left.as_secs());
            // It takes a moment until it is tried and fails again.
            now += left + second * 5;
        }
        assert_eq!((&seen[..4], seen[11]), (&[1, 2, 4, 8][..], 300));
        now += lengths.most * 2;
        terms.begin(1, lengths, now);
        assert_eq!(terms.left(&1, now), Some(second * 150), "two times without a failure");
        terms.end(|key| *key == 1, now);
        assert_eq!(terms.left(&1, now), None);
        terms.begin(1, lengths, now);
        assert_eq!(terms.left(&1, now), Some(second * 300));
        now += lengths.most * 20;
        terms.begin(1, lengths, now);
        assert_eq!(terms.left(&1, now), Some(second));
    }
}
