//! What a replica may do, as a decision: by what is durable here, what a master has confirmed since this server started,
//! and whether another replica has failed.
//!
//! Why a replica needs no confirmation to serve a needle that it holds: names are of content, so it can't be wrong data. What
//! it may not do unconfirmed is take appends, or say that something is *not* there: it may have been left behind.

use std::time::Duration;

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{HEARTBEAT_TIMEOUT, NODE_SUSPECTED};
use hay_needle::State;

use crate::store::AppendError;

/// What a master says of this server's copy of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// One of its replicas.
    Whole,
    /// To be filled.
    Filling,
    /// No member.
    Stranger,
}

/// Why nothing is acknowledged any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub epoch: Epoch,
    /// The replica that failed.
    pub node: NodeId,
    pub reason: String,
    /// Tried again from then on: masters that can't be reached seal nothing.
    until: Duration,
}

/// What is known of one volume beside its files. Gone with the process.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    confirmed: Option<(Epoch, Part)>,
    stopped: Option<Stopped>,
}

/// Whether no other server has the volume.
pub(crate) fn is_sole(state: &State) -> bool {
    state.members.len() <= 1 && !state.filling
}

impl Standing {
    /// A master has said so. What was said before of a later epoch stands: a command may be late, or come twice. But that it
    /// is no member is taken from whoever says it.
    pub fn confirm(&mut self, epoch: Epoch, part: Part) {
        let is_old = self.confirmed.is_some_and(|(known, _)| epoch < known);
        if !is_old || part == Part::Stranger {
            self.confirmed = Some((epoch, part));
        }
    }

    /// What a master has said counts no more, until one says it again.
    pub fn unconfirm(&mut self) {
        self.confirmed = None;
    }

    /// A replica has failed. The first failure stands.
    pub fn stop(&mut self, epoch: Epoch, node: NodeId, reason: String, now: Duration) -> bool {
        if self.stopped(epoch, now).is_some() {
            return false;
        }
        self.stopped = Some(Stopped { epoch, node, reason, until: now + NODE_SUSPECTED });
        true
    }

    /// Why nothing is acknowledged in `epoch`.
    pub fn stopped(&self, epoch: Epoch, now: Duration) -> Option<&Stopped> {
        self.stopped.as_ref().filter(|stopped| stopped.epoch >= epoch && now < stopped.until)
    }

    fn confirmed_as(&self, part: Part) -> Option<Epoch> {
        self.confirmed.filter(|(_, as_part)| *as_part == part).map(|(epoch, _)| epoch)
    }

    /// Whether appends from another replica may be stored.
    pub fn may_follow(&self, id: VolumeId, state: &State) -> Result<(), AppendError> {
        if state.filling {
            return Err(AppendError::Filling(id));
        }
        match self.confirmed_as(Part::Whole) {
            Some(epoch) if epoch == state.epoch => Ok(()),
            _ => Err(AppendError::Unconfirmed(id)),
        }
    }

    /// Whether appends from a writer may be stored here and everywhere.
    pub fn may_lead(&self, id: VolumeId, state: &State, now: Duration) -> Result<(), AppendError> {
        self.may_follow(id, state)?;
        match self.stopped(state.epoch, now) {
            None => Ok(()),
            Some(stopped) => Err(AppendError::ReplicaFailed { volume: id, reason: stopped.reason.clone() }),
        }
    }

    /// Whether its names may be copied from here: a replica that takes nothing any more, and was not left behind. One that
    /// can't be written to need not have persisted the epoch and the seal for that.
    pub fn may_list(&self, state: &State, heard: Option<Duration>) -> bool {
        let is_closed = state.sealed.is_some() || state.read_only.is_some();
        let is_replica = state.read_only.is_some()
            && self.confirmed_as(Part::Whole).is_some()
            && heard.is_some_and(|ago| ago < HEARTBEAT_TIMEOUT);
        is_closed && !state.filling && (is_replica || self.may_say_absent(state, heard))
    }

    /// Whether what is not held here is nowhere. `heard`: how long ago a master last answered. A server that no master
    /// has answered for longer than they wait for it may have been left behind meanwhile.
    pub fn may_say_absent(&self, state: &State, heard: Option<Duration>) -> bool {
        if is_sole(state) {
            return true;
        }
        let is_in_touch = heard.is_some_and(|ago| ago < HEARTBEAT_TIMEOUT);
        let is_current = self.confirmed_as(Part::Whole).is_some_and(|epoch| epoch <= state.epoch);
        !state.filling && is_in_touch && is_current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::ids::Incarnation;

    const ID: VolumeId = VolumeId(7);
    const NOW: Duration = Duration::from_secs(1000);

    fn node(n: u128) -> NodeId {
        NodeId::from_random(n)
    }

    fn state(epoch: u64, members: u128) -> State {
        State {
            volume: ID,
            incarnation: Incarnation::from_random(1),
            epoch: Epoch(epoch),
            sealed: None,
            read_only: None,
            incomplete: false,
            filling: false,
            members: (0..members).map(node).collect(),
        }
    }

    #[test]
    fn the_only_replica_asks_nobody() {
        let standing = Standing::default();
        for members in [0, 1] {
            assert!(is_sole(&state(1, members)));
            assert!(standing.may_say_absent(&state(1, members), None));
        }
        assert!(!is_sole(&state(1, 2)));
    }

    #[test]
    fn a_replica_is_nothing_until_it_is_confirmed_in_its_epoch() {
        let mut standing = Standing::default();
        let heard = Some(Duration::ZERO);
        let refused = |standing: &Standing, epoch| {
            assert_eq!(standing.may_lead(ID, &state(epoch, 2), NOW), Err(AppendError::Unconfirmed(ID)));
            assert_eq!(standing.may_follow(ID, &state(epoch, 2)), Err(AppendError::Unconfirmed(ID)));
        };
        refused(&standing, 3);
        assert!(!standing.may_say_absent(&state(3, 2), heard));
        standing.confirm(Epoch(3), Part::Whole);
        assert_eq!(standing.may_lead(ID, &state(3, 2), NOW), Ok(()));
        assert!(standing.may_say_absent(&state(3, 2), heard));
        assert!(!standing.may_say_absent(&state(3, 2), Some(HEARTBEAT_TIMEOUT)), "left alone");
        assert!(!standing.may_say_absent(&state(3, 2), None));
        // The map has gone on: this replica was left behind.
        standing.confirm(Epoch(4), Part::Whole);
        refused(&standing, 3);
        assert!(!standing.may_say_absent(&state(3, 2), heard));
        for part in [Part::Filling, Part::Stranger] {
            standing.confirm(Epoch(4), part);
            refused(&standing, 4);
            assert!(!standing.may_say_absent(&state(4, 2), heard));
        }
        standing.confirm(Epoch(4), Part::Whole);
        assert_eq!(standing.may_follow(ID, &state(4, 2)), Ok(()));
        standing.unconfirm();
        refused(&standing, 4);
        assert!(!standing.may_say_absent(&state(4, 2), heard));
        let filling = State { filling: true, ..state(4, 2) };
        standing.confirm(Epoch(4), Part::Whole);
        standing.confirm(Epoch(3), Part::Filling);
        assert_eq!(standing.may_follow(ID, &state(4, 2)), Ok(()), "what is old changes nothing");
        assert_eq!(standing.may_lead(ID, &filling, NOW), Err(AppendError::Filling(ID)));
        assert!(!standing.may_say_absent(&filling, heard));
        let alone = State { filling: true, ..state(4, 1) };
        assert!(!standing.may_say_absent(&alone, heard));
    }

    #[test]
    fn after_a_replica_failed_nothing_is_acknowledged_for_a_while() {
        let mut standing = Standing::default();
        standing.confirm(Epoch(3), Part::Whole);
        assert!(standing.stop(Epoch(3), node(1), "replica 1 failed".to_owned(), NOW));
        assert!(!standing.stop(Epoch(3), node(2), "replica 2 failed".to_owned(), NOW), "the first stands");
        let refused = standing.may_lead(ID, &state(3, 3), NOW);
        let reason = "replica 1 failed".to_owned();
        assert_eq!(refused, Err(AppendError::ReplicaFailed { volume: ID, reason }));
        // As a replica of another it goes on: that one asks everybody itself.
        assert_eq!(standing.may_follow(ID, &state(3, 3)), Ok(()));
        assert_eq!(standing.may_lead(ID, &state(3, 3), NOW + NODE_SUSPECTED), Ok(()));
    }
}
