//! What a group must be told.

use std::path::PathBuf;
use std::time::Duration;

use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits;
use hay_common::model::Durability;

/// What a group must be told. [`GroupConfig::sole`] fills in the usual.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group's own directory. Made where missing; nothing else may live in it.
    pub dir: PathBuf,
    /// Which cluster the group belongs to: a directory of another one is refused.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// Where other members will reach this one. Recorded when the group is made.
    pub address: String,
    /// Which group, in messages, metrics and the directory's identity: `master`, `filer`.
    pub name: String,
    /// What acknowledged means.
    pub durability: Durability,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Entries between two snapshots.
    pub snapshot_every_entries: u64,
    /// Bytes of log between two snapshots, whichever comes first.
    pub snapshot_every_bytes: u64,
    /// How often a leader shows itself.
    pub heartbeat: Duration,
    /// This member waits at least so long for a leader. Members of a group need ranges of their own: openraft draws
    /// once per process, and equal draws tie for ever.
    pub election_min: Duration,
    /// … and less than this.
    pub election_max: Duration,
}

impl GroupConfig {
    /// The only member of group `name` in `dir`, durably.
    pub fn sole(name: &str, dir: impl Into<PathBuf>, cluster: ClusterId) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            member: MemberId(1),
            address: String::new(),
            name: name.to_owned(),
            durability: Durability::Sync,
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            snapshot_every_entries: limits::SNAPSHOT_EVERY_ENTRIES,
            snapshot_every_bytes: limits::SNAPSHOT_EVERY_LOG_BYTES,
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(650),
            election_max: Duration::from_millis(1_000),
        }
    }
}
