//! What a master is started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hay_common::clock::SharedClock;
use hay_common::disk::SharedDisk;
use hay_common::model::Durability;
use hay_common::random::SharedRandom;
use hay_consensus::transport::SharedTransport;
use hay_proto::rpc::credential::ClusterKey;

use crate::plan::Policy;

/// What a master must be told.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Its own directory.
    pub dir: PathBuf,
    /// Where other masters will reach it.
    pub address: String,
    /// What acknowledged means.
    pub durability: Durability,
    /// Servers that hold a new volume; `None` leaves what is set.
    pub replicas: Option<u8>,
    /// The numbers that plans go by.
    pub policy: Policy,
    /// Entries between two snapshots.
    pub snapshot_every_entries: u64,
    /// The least and the greatest time that it waits for a leader; `None`: by its place among the addresses.
    pub election: Option<(Duration, Duration)>,
}

impl MasterConfig {
    /// The only master, in `dir`.
    pub fn sole(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            address: String::new(),
            durability: Durability::Sync,
            replicas: None,
            policy: Policy::default(),
            snapshot_every_entries: hay_common::limits::SNAPSHOT_EVERY_ENTRIES,
            election: None,
        }
    }
}

/// What a master needs from outside.
pub struct MasterDeps {
    /// Where its directory is.
    pub disk: SharedDisk,
    /// Time.
    pub clock: SharedClock,
    /// Names the cluster, and signs write leases.
    pub key: Arc<ClusterKey>,
}

/// How a master reaches the others.
pub struct MasterNetwork {
    /// The static list: the addresses of all masters that the group is formed with, this one's too.
    pub peers: Vec<String>,
    /// Draws ids, and pauses.
    pub random: SharedRandom,
    /// Carries messages to the others.
    pub transport: SharedTransport,
}
