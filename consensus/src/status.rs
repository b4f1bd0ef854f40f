//! How a group fares.

use hay_common::ids::MemberId;

use crate::machine::Position;

/// How a group fares, as this member knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// This member.
    pub member: MemberId,
    /// Whether this member leads and has applied all that was committed before it did: it may serve.
    pub leading: bool,
    /// Who leads, where known.
    pub leader: Option<MemberId>,
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
