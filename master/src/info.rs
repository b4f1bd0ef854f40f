//! What a master tells others, in domain types.

use std::time::Duration;

use bytes::Bytes;
use hay_common::ids::{ClusterId, Epoch, NodeId, VolumeId};
use hay_common::model::{Durability, LeasedVolume, SizeClass, VolumeState};
use hay_consensus::GroupStatus;

use crate::plan::Survey;
use crate::state::Node;

/// A granted write lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteLease {
    /// What may be written to.
    pub volumes: Vec<LeasedVolume>,
    /// Signed over volumes, epochs and expiry.
    pub token: Bytes,
    /// After this it should be renewed.
    pub ttl: Duration,
}

/// A member of a volume as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Which server.
    pub node: NodeId,
    /// Where it is.
    pub address: String,
    /// Whether it is still being filled.
    pub filling: bool,
    /// Whether it has been heard of lately.
    pub alive: bool,
    /// Whether it says that it may lack needles.
    pub incomplete: bool,
    /// Whether it was one before, and is being completed or written anew. It is read from meanwhile.
    pub completing: bool,
    /// What is wrong with it, for people.
    pub problem: Option<String>,
}

/// A volume as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Which.
    pub id: VolumeId,
    /// The epoch that appends must carry.
    pub epoch: Epoch,
    /// Which contents it takes.
    pub size: SizeClass,
    /// Whether it takes appends.
    pub state: VolumeState,
    /// Who holds it, the primary first.
    pub members: Vec<MemberInfo>,
    /// As reported last; 0 where unknown.
    pub size_bytes: u64,
    /// As reported last.
    pub needles: u64,
    /// As reported last.
    pub garbage_bytes: u64,
    /// The set of volumes that it belongs to.
    pub collection: String,
    /// How fast its disks are.
    pub tier: String,
    /// Why it takes no appends although it is not sealed.
    pub read_only_reason: String,
}

/// Part of the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapPage {
    /// The volumes.
    pub volumes: Vec<VolumeInfo>,
    /// The map's version that the page tells of.
    pub version: u64,
    /// Whether volumes follow.
    pub more: bool,
}

/// A volume server as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Which server.
    pub id: NodeId,
    /// What it says of itself.
    pub info: Node,
    /// Whether it has been heard of lately.
    pub alive: bool,
    /// How long ago it was heard of; `None` when not since this master leads.
    pub heard_ago: Option<Duration>,
    /// Free on its disk, its reserve included.
    pub free_bytes: u64,
    /// What it leaves free.
    pub reserve_bytes: u64,
    /// The whole.
    pub total_bytes: u64,
    /// How many volumes it has reported.
    pub volumes: usize,
    /// Why it gets no new ones, for people.
    pub no_new_volumes: Option<String>,
}

/// The cluster as this master knows it.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The masters' group.
    pub group: GroupStatus,
    /// The volume servers.
    pub nodes: Vec<NodeInfo>,
    /// Volumes by state: being created, writable, sealed.
    pub volumes: (u32, u32, u32),
    /// What acknowledged means.
    pub durability: Durability,
    /// Why it is not ready, where it isn't.
    pub not_ready: Option<String>,
    /// Whether this master does not lead: it hears of no volume server.
    pub servers_unknown: bool,
    /// On how many servers a new volume is kept.
    pub replicas: u8,
    /// Volumes that are not as they should be.
    pub survey: Survey,
    /// What an operator should look at, for people.
    pub warnings: Vec<String>,
}
