//! Which buffers nothing comes for at the moment, in the order in which they are taken for others.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Holder, HolderId, Place};

type InOrder = BTreeSet<(Duration, HolderId)>;

/// Kept beside the holders, so that a choice among thousands costs no walk over them.
#[derive(Debug, Default)]
pub(super) struct IdleIndex {
    small: Queues,
    open: Queues,
    slot: Queues,
}

#[derive(Debug, Default)]
struct Queues {
    /// By the moment since when nothing came.
    idle: InOrder,
    /// Those among them that only trickle, by the moment since when they do.
    slow: InOrder,
}

impl IdleIndex {
    pub(super) fn insert(&mut self, id: HolderId, holder: &Holder) {
        let Some(since) = holder.takeable_since() else { return };
        let queues = self.at_mut(holder.place);
        queues.idle.insert((since, id));
        if let Some(slow) = holder.slow_since {
            queues.slow.insert((slow, id));
        }
    }

    pub(super) fn remove(&mut self, id: HolderId, holder: &Holder) {
        let Some(since) = holder.takeable_since() else { return };
        let queues = self.at_mut(holder.place);
        queues.idle.remove(&(since, id));
        if let Some(slow) = holder.slow_since {
            queues.slow.remove(&(slow, id));
        }
    }

    /// Those in these places that trickle, slowest for longest first, then those idle since `until` or before,
    /// longest first.
    pub(super) fn takeable(
        &self,
        places: &'static [Place],
        until: Option<Duration>,
    ) -> impl Iterator<Item = HolderId> {
        let slow = places.iter().flat_map(|p| self.at(*p).slow.iter().copied());
        let mut slow: Vec<_> = slow.take(LOOKED_AT_MAX).collect();
        slow.sort_unstable();
        let idle = places.iter().flat_map(|p| {
            let ripe = |(since, _): &&(Duration, HolderId)| until.is_some_and(|u| *since <= u);
            self.at(*p).idle.iter().take_while(ripe).take(LOOKED_AT_MAX).copied()
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable();
        slow.into_iter().chain(idle).map(|(_, id)| id)
    }

    /// Those in one place that have been idle since `until` or before.
    pub(super) fn idle_in(&self, place: Place, until: Duration) -> impl Iterator<Item = HolderId> {
        self.at(place).idle.iter().take_while(move |(since, _)| *since <= until).map(|(_, id)| *id)
    }

    /// Whether nobody is idle.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let all = [&self.small, &self.open, &self.slot];
        all.iter().all(|q| q.idle.is_empty() && q.slow.is_empty())
    }

    fn at(&self, place: Place) -> &Queues {
        match place {
            Place::Small => &self.small,
            Place::Open => &self.open,
            Place::Slot => &self.slot,
        }
    }

    fn at_mut(&mut self, place: Place) -> &mut Queues {
        match place {
            Place::Small => &mut self.small,
            Place::Open => &mut self.open,
            Place::Slot => &mut self.slot,
        }
    }
}

/// A choice looks at no more than so many of each order.
const LOOKED_AT_MAX: usize = 8;
