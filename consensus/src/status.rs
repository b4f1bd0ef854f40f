//! How a group fares.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hay_common::ids::MemberId;

use crate::formation::FormationId;
use crate::group::Group;
use crate::machine::Position;
use crate::types::LogId;

/// How a group fares, as this member knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// This member.
    pub member: MemberId,
    /// Whether this member leads and has applied all that was committed before it did: it may serve.
    pub leading: bool,
    /// Who leads, where known.
    pub leader: Option<MemberId>,
    /// Where the leader is reached; empty where not known.
    pub leader_address: String,
    /// Which forming of the group it belongs to.
    pub formation: Option<FormationId>,
    /// What it waits for before it belongs to a group, for people; `None` once it does.
    pub forming: Option<String>,
    /// Whether the disk is full: nothing is taken until there is room.
    pub full: bool,
    /// The current term.
    pub term: u64,
    /// The last entry that the state machine has.
    pub applied: Option<Position>,
    /// The last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last entry that a snapshot holds.
    pub snapshot: Option<Position>,
    /// Who belongs to the group.
    pub members: Vec<GroupMember>,
    /// Why it stopped, where it did.
    pub stopped: Option<String>,
    /// Work since the start.
    pub counters: GroupCounters,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Which.
    pub id: MemberId,
    /// Where others reach it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Entries that it lacks, as the leader knows it; 0 for the leader itself.
    pub lag: Option<u64>,
    /// When it last answered this member, if it did since this one's start.
    pub heard_ago: Option<Duration>,
    /// Why it last did not answer, if it has not since.
    pub problem: Option<String>,
}

/// Work of a group since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCounters {
    /// Log entries that carried commands.
    pub proposals: u64,
    /// Commands that were carried.
    pub commands: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Bytes of records written to the log.
    pub log_bytes: u64,
}

impl GroupCounters {
    /// Commands for each sync.
    pub fn commands_per_sync(&self) -> f64 {
        per(self.commands, self.syncs)
    }

    /// Bytes for each sync.
    pub fn bytes_per_sync(&self) -> f64 {
        per(self.log_bytes, self.syncs)
    }
}

fn per(what: u64, syncs: u64) -> f64 {
    if syncs == 0 { 0.0 } else { what as f64 / syncs as f64 }
}

impl GroupStatus {
    /// What keeps this member from its work, the worst first, for people; not leading is nothing of that kind.
    pub fn problem(&self) -> Option<String> {
        let stopped =
            self.stopped.as_ref().map(|why| format!("it has stopped, until it is started again: {why}"));
        let full = || self.full.then(|| "its disk is full: make room there; it goes on by itself".to_owned());
        let forming = || self.forming.as_ref().map(|why| format!("it belongs to no group yet: {why}"));
        stopped.or_else(full).or_else(forming)
    }
}

impl Group {
    /// How the group fares.
    pub fn status(&self) -> GroupStatus {
        let inner = &self.inner;
        let position = |id: LogId| Position { index: id.index, term: id.leader_id.term };
        let leader = self.leader();
        let members = self.members();
        let metrics = inner.raft.metrics();
        let now = metrics.borrow();
        let log = &inner.log.shared;
        GroupStatus {
            member: inner.member,
            leading: inner.ready.borrow().is_some(),
            leader: now.current_leader.map(MemberId),
            leader_address: leader.map(|leader| leader.address).unwrap_or_default(),
            formation: inner.receiver.formed.id(),
            forming: inner.news.borrow().clone(),
            full: log.room.is_full(),
            term: now.current_term,
            applied: now.last_applied.map(position),
            last_log_index: now.last_log_index,
            snapshot: now.snapshot.map(position),
            members,
            stopped: now.running_state.as_ref().err().map(ToString::to_string),
            counters: GroupCounters {
                proposals: inner.counters.proposals.load(Ordering::Relaxed),
                commands: inner.counters.commands.load(Ordering::Relaxed),
                syncs: log.counters.syncs.load(Ordering::Relaxed),
                log_bytes: log.counters.bytes.load(Ordering::Relaxed),
            },
        }
    }

    /// Who belongs to the group, as this member knows it.
    fn members(&self) -> Vec<GroupMember> {
        let lags = self.inner.members.lags();
        let now_at = self.inner.members.clock.monotonic();
        let contacts = self.inner.contacts.lock().clone();
        let metrics = self.inner.raft.server_metrics();
        let now = metrics.borrow();
        let voters: Vec<u64> = now.membership_config.voter_ids().collect();
        let member = |(id, node): (&u64, &openraft::BasicNode)| {
            let contact = contacts.get(id);
            GroupMember {
                id: MemberId(*id),
                address: node.addr.clone(),
                voter: voters.contains(id),
                lag: lags.get(id).copied().flatten(),
                heard_ago: contact
                    .and_then(|contact| contact.heard)
                    .map(|heard| now_at.saturating_sub(heard)),
                problem: contact.and_then(|contact| contact.problem.clone()),
            }
        };
        now.membership_config.nodes().map(member).collect()
    }
}
