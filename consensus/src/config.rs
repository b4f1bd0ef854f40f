//! What a group must be told.

use std::path::PathBuf;
use std::time::Duration;

use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits;
use hay_common::model::Durability;

/// Election ranges that differ.
const ELECTION_SLOTS: usize = 8;

/// What a group must be told. [`GroupConfig::sole`] fills in the usual.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group's own directory. Made where missing; nothing else may live in it.
    pub dir: PathBuf,
    /// Which cluster the group belongs to: a directory of another one is refused.
    pub cluster: ClusterId,
    /// This member; `None`: the one that the directory belongs to, or for a new directory one that is drawn at random.
    pub member: Option<MemberId>,
    /// Where other members reach this one, `HOST:PORT`.
    pub address: String,
    /// The static list: the addresses of all members that the group is formed with, this one's too. Empty: this member
    /// forms it alone.
    pub peers: Vec<String>,
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
    /// A member at `address` of a group `name` that is formed with `peers`, durably. Its election range is its own: the
    /// place of its address in the list decides it.
    pub fn member_of(
        name: &str,
        dir: impl Into<PathBuf>,
        cluster: ClusterId,
        address: &str,
        peers: &[String],
    ) -> Self {
        let mut sorted: Vec<&String> = peers.iter().collect();
        sorted.sort();
        sorted.dedup();
        let slot = sorted.iter().position(|peer| *peer == address).unwrap_or(sorted.len());
        let sole = Self::sole(name, dir, cluster);
        Self { member: None, address: address.to_owned(), peers: peers.to_vec(), ..sole }.with_slot(slot)
    }

    /// With the election range of place `slot`: it ends before the next one's begins, by more than a tick.
    pub fn with_slot(self, slot: usize) -> Self {
        // At a heartbeat of 200 ms: 600–700, 850–950, 1100–1200, … ms. Beyond a handful of places they begin again.
        let step = u32::try_from(slot % ELECTION_SLOTS).unwrap_or(0);
        let election_min = self.heartbeat * 3 + self.heartbeat * 5 * step / 4;
        Self { election_min, election_max: election_min + self.heartbeat / 2, ..self }
    }

    /// The only member of group `name` in `dir`, durably.
    pub fn sole(name: &str, dir: impl Into<PathBuf>, cluster: ClusterId) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            member: Some(MemberId(1)),
            address: String::new(),
            peers: Vec::new(),
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
