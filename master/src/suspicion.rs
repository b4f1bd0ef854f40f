//! Which servers others have lately met a failure of, and whom to believe.
//!
//! Two servers that can't reach each other accuse each other, and so does one that is cut off: to it all others look dead.
//! The one that is accused by more of them is believed less.

use std::collections::HashMap;
use std::time::Duration;

use hay_common::ids::NodeId;
use hay_common::limits::NODE_SUSPECTED;

/// Who says of whom that it failed as a replica, and until when that counts.
#[derive(Debug, Default)]
pub struct Suspicions {
    /// By the accused, then by the one who says so.
    accused: HashMap<NodeId, HashMap<NodeId, Duration>>,
}

impl Suspicions {
    /// `by` has met a failure of `node`.
    pub fn accuse(&mut self, by: NodeId, node: NodeId, now: Duration) {
        self.accused.retain(|_, accusers| {
            accusers.retain(|_, until| *until > now);
            !accusers.is_empty()
        });
        self.accused.entry(node).or_default().insert(by, now + NODE_SUSPECTED);
    }

    /// A server has come back: what it met while it was away, and what others met of it, says nothing any more.
    pub fn acquit(&mut self, node: NodeId) {
        self.accused.remove(&node);
        for accusers in self.accused.values_mut() {
            accusers.remove(&node);
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

    /// Whether somebody that is no more suspicious itself has met a failure of it.
    pub fn failed(&self, node: NodeId, now: Duration) -> bool {
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
}
