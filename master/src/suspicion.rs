//! Which servers others have lately met a failure of, and whom to believe.
//!
//! Two servers that can't reach each other accuse each other, and so does one that is cut off: to it all others look dead.
//! The one that is accused by more of them is believed less.
//!
//! A server that fails again as soon as it is trusted again would get new volumes each time, for ever. So each term is twice
//! as long as the one before, and half as long again for each that it was well.

use std::collections::HashMap;
use std::time::Duration;

use hay_common::ids::NodeId;
use hay_common::limits::{NODE_SUSPECTED, NODE_SUSPECTED_MAX};

/// Who says of whom that it failed as a replica, and until when that counts.
#[derive(Debug, Default)]
pub struct Suspicions {
    /// By the accused, then by the one who says so.
    accused: HashMap<NodeId, HashMap<NodeId, Duration>>,
    /// Of those that are, or were lately, believed to have failed.
    terms: HashMap<NodeId, Term>,
}

/// For how long a server is taken for one that has failed.
#[derive(Debug, Clone, Copy)]
struct Term {
    until: Duration,
    length: Duration,
    /// The term before, for one that turns out to be nobody's fault.
    before: Option<(Duration, Duration)>,
    /// It has not come back meanwhile, and nobody more trusted has said otherwise.
    holds: bool,
}

impl Term {
    /// The term that follows one of `length` that ended at `until`.
    fn after(earlier: Option<(Duration, Duration)>, now: Duration) -> Self {
        let length = earlier.map_or(NODE_SUSPECTED, |(until, length)| {
            let well = now.saturating_sub(until).as_millis() / length.as_millis().max(1);
            // Beyond so many halvings nothing is left of any.
            let halved = length / (1 << well.min(16));
            (halved * 2).clamp(NODE_SUSPECTED, NODE_SUSPECTED_MAX)
        });
        Self { until: now + length, length, before: earlier, holds: true }
    }

    fn runs(&self, now: Duration) -> bool {
        self.holds && now < self.until
    }
}

impl Suspicions {
    /// `by` has met a failure of `node`.
    pub fn accuse(&mut self, by: NodeId, node: NodeId, now: Duration) {
        self.accused.retain(|_, accusers| {
            accusers.retain(|_, until| *until > now);
            !accusers.is_empty()
        });
        self.accused.entry(node).or_default().insert(by, now + NODE_SUSPECTED);
        self.judge(now);
    }

    /// Who speaks first is believed only until others have spoken.
    fn judge(&mut self, now: Duration) {
        self.terms.retain(|_, term| now < term.until.saturating_add(NODE_SUSPECTED_MAX * 4));
        for node in self.accused.keys().copied().collect::<Vec<_>>() {
            let known = self.terms.get(&node).copied();
            let runs = known.is_some_and(|term| term.runs(now));
            match (self.is_accused(node, now), known) {
                (true, Some(term)) if runs => {
                    let until = term.until.max(now + NODE_SUSPECTED);
                    self.terms.insert(node, Term { until, ..term });
                }
                (true, known) => {
                    let earlier = known.map(|term| (term.until, term.length));
                    self.terms.insert(node, Term::after(earlier, now));
                }
                (false, Some(term)) if runs => match term.before {
                    Some((until, length)) => {
                        self.terms.insert(node, Term { until, length, before: None, holds: false });
                    }
                    None => drop(self.terms.remove(&node)),
                },
                (false, _) => {}
            }
        }
    }

    /// A server has come back: what it met while it was away, and what others met of it, says nothing any more.
    pub fn acquit(&mut self, node: NodeId) {
        self.accused.remove(&node);
        let mut over = vec![node];
        for (accused, accusers) in &mut self.accused {
            if accusers.remove(&node).is_some() && accusers.is_empty() {
                over.push(*accused);
            }
        }
        for node in over {
            // How long it was is remembered: coming back is no proof of being well.
            if let Some(term) = self.terms.get_mut(&node) {
                term.holds = false;
            }
        }
    }

    fn accusers(&self, node: NodeId, now: Duration) -> impl Iterator<Item = NodeId> {
        let accusers = self.accused.get(&node).into_iter().flatten();
        accusers.filter(move |(_, until)| **until > now).map(|(by, _)| *by)
    }

    /// How many have met a failure of it.
    pub fn weight(&self, node: NodeId, now: Duration) -> usize {
        self.accusers(node, now).count()
    }

    /// Whether somebody that is no more suspicious itself has met a failure of it, and its term is not over.
    pub fn failed(&self, node: NodeId, now: Duration) -> bool {
        self.is_accused(node, now) || self.terms.get(&node).is_some_and(|term| term.runs(now))
    }

    fn is_accused(&self, node: NodeId, now: Duration) -> bool {
        let weight = self.weight(node, now);
        self.accusers(node, now).any(|by| self.weight(by, now) <= weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn node(n: u128) -> NodeId {
        NodeId::from_random(n)
    }

    fn failed(suspicions: &Suspicions, now: Duration) -> Vec<u128> {
        (1..=3).filter(|n| suspicions.failed(node(*n), now)).collect()
    }

    #[test]
    fn the_one_that_is_cut_off_is_found_whoever_speaks_first() {
        let mut suspicions = Suspicions::default();
        suspicions.accuse(node(1), node(2), NOW);
        assert_eq!(failed(&suspicions, NOW), [2], "nobody has said anything else");
        suspicions.accuse(node(1), node(3), NOW);
        suspicions.accuse(node(2), node(1), NOW);
        suspicions.accuse(node(3), node(1), NOW);
        assert_eq!(failed(&suspicions, NOW), [1]);
    }

    #[test]
    fn between_two_nobody_is_right() {
        let mut suspicions = Suspicions::default();
        suspicions.accuse(node(1), node(2), NOW);
        suspicions.accuse(node(2), node(1), NOW);
        assert_eq!(failed(&suspicions, NOW), [1, 2]);
    }

    #[test]
    fn an_accusation_ends_with_its_time_and_with_a_return_of_either() {
        let mut suspicions = Suspicions::default();
        suspicions.accuse(node(1), node(2), NOW);
        let over = NOW + NODE_SUSPECTED;
        assert_eq!(failed(&suspicions, over), [0; 0]);
        suspicions.accuse(node(3), node(2), over);
        assert_eq!((failed(&suspicions, over), suspicions.weight(node(2), over)), (vec![2], 1));
        suspicions.acquit(node(2));
        assert_eq!(failed(&suspicions, over), [0; 0]);
        suspicions.accuse(node(1), node(2), over);
        suspicions.acquit(node(1));
        assert_eq!(failed(&suspicions, over), [0; 0]);
    }

    /// For how long a server that others accuse right now is avoided.
    fn term(suspicions: &mut Suspicions, now: Duration) -> Duration {
        // It says of the others what they say of it, and first.
        suspicions.accuse(node(1), node(2), now);
        suspicions.accuse(node(1), node(3), now);
        suspicions.accuse(node(2), node(1), now);
        suspicions.accuse(node(3), node(1), now);
        assert_eq!(failed(suspicions, now), [1]);
        let second = Duration::from_secs(1);
        let over = (1..).map(|n| now + second * n).find(|at| !suspicions.failed(node(1), *at)).unwrap();
        assert_eq!(failed(suspicions, over), [0; 0], "the others no longer than that");
        over - now
    }

    #[test]
    fn who_fails_again_and_again_is_avoided_for_longer_each_time() {
        let mut suspicions = Suspicions::default();
        let (mut now, mut made) = (NOW, 0);
        let mut terms = Vec::new();
        // A day of a server that reaches the masters and no other server.
        while now < NOW + Duration::from_secs(24 * 3600) {
            let term = term(&mut suspicions, now);
            terms.push(term);
            now += term + Duration::from_secs(1);
            made += 1;
        }
        assert_eq!(terms[..4], [1, 2, 4, 8].map(|n| NODE_SUSPECTED * n));
        assert_eq!(terms.last(), Some(&NODE_SUSPECTED_MAX));
        assert!(made < 60, "{made} times a day it gets new volumes");
        // Well for twice as long as it was avoided: half of that, and in the end all is forgotten.
        now += NODE_SUSPECTED_MAX * 2;
        assert_eq!(term(&mut suspicions, now), NODE_SUSPECTED_MAX / 2);
        now += NODE_SUSPECTED_MAX * 8;
        assert_eq!(term(&mut suspicions, now), NODE_SUSPECTED);
        // Coming back is no proof of being well.
        suspicions.acquit(node(1));
        assert!(!suspicions.failed(node(1), now));
        now += Duration::from_secs(1);
        assert_eq!(term(&mut suspicions, now), NODE_SUSPECTED * 2);
    }
}
