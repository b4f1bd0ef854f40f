//! What the masters agree on. Pure: no clock, no randomness, no I/O; the same commands give the same state.
//!
//! Sizes, heat and liveness are not here: they come from heartbeats and live in the leader's memory.

mod apply;
mod command;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::model::{SizeClass, VolumeState};
use serde::{Deserialize, Serialize};

pub use command::{Command, DecodeError, NewVolume, Outcome, Refusal};

/// What a volume is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class {
    /// Which contents it takes.
    pub size: SizeClass,
    /// How many servers hold it.
    pub replicas: u8,
    /// How fast its disks are. Stands here only, never in the volume itself.
    pub tier: String,
    /// A set of volumes of its own; empty for the common one.
    pub collection: String,
}

/// What a member of a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All of it.
    Replica,
    /// It is being copied there: counts for neither reads nor redundancy.
    Filling,
    /// It was a replica, and lacks needles or can't be written to: it is completed, or written anew, where it is. It is still
    /// read from, for it may hold what nobody else has; it is no source of others before that has ended.
    Completing,
}

impl Part {
    /// Whether what is there is read from.
    pub fn is_copy(self) -> bool {
        matches!(self, Self::Replica | Self::Completing)
    }
}

/// One server of a volume. The first is the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which server.
    pub node: NodeId,
    /// What it holds.
    pub part: Part,
}

/// A server and where others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which server.
    pub node: NodeId,
    /// Where.
    pub address: String,
}

/// A volume as the map knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// What it is for.
    pub class: Class,
    /// Whether it takes appends.
    pub state: VolumeState,
    /// The epoch that appends must carry.
    pub epoch: Epoch,
    /// Who holds it. Changes only while it is sealed.
    pub members: Vec<Member>,
    /// The map's version when this last changed.
    pub changed: u64,
}

/// A volume server as the registry knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where others reach it.
    pub address: String,
    /// What it shares its fate with.
    pub rack: String,
    /// The same, larger.
    pub zone: String,
    /// How fast its disks are.
    pub tier: String,
}

/// A step of maintenance that must be finished by whoever leads, whatever crashes in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Fence a volume: its survivors durably take the higher epoch, then the map says so.
    Seal {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that fences it.
        epoch: Epoch,
    },
    /// Fill a server of a sealed volume from its replicas: a new one, or a member that is completed where it is.
    Fill {
        /// Which volume.
        volume: VolumeId,
        /// Who is filled.
        target: NodeId,
        /// Who is no member any more once it is.
        replaces: Option<NodeId>,
    },
}

/// What operators may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Servers that hold a new volume.
    pub replicas: u8,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

/// The masters' state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What operators may set.
    pub configuration: Configuration,
    /// Grows with every change of a volume.
    pub version: u64,
    /// The id given last. No id is ever given twice.
    pub last_volume: u32,
    /// The volume map.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// The node registry.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The journal of maintenance, by number.
    pub jobs: BTreeMap<u64, Job>,
    /// The number of the last job.
    pub last_job: u64,
    /// Which volume each version changed: an order over `volumes`.
    #[serde(skip)]
    changes: BTreeMap<u64, VolumeId>,
    /// Volumes that are not sealed: an order over `volumes`. Plans look at no other.
    #[serde(skip)]
    open: BTreeSet<VolumeId>,
}

impl State {
    /// Makes the orders that are not stored.
    pub fn index(&mut self) {
        self.changes = self.volumes.iter().map(|(id, volume)| (volume.changed, *id)).collect();
        let open = self.volumes.iter().filter(|(_, volume)| volume.state != VolumeState::Sealed);
        self.open = open.map(|(id, _)| *id).collect();
    }

    /// Volumes that are being created or take appends.
    pub fn open_volumes(&self) -> impl Iterator<Item = (VolumeId, &Volume)> {
        self.open.iter().filter_map(|id| self.volumes.get(id).map(|volume| (*id, volume)))
    }

    /// The volumes that changed after `version`, in the order of their last changes.
    pub fn changed_after(&self, version: u64) -> impl Iterator<Item = (VolumeId, &Volume)> {
        let later = self.changes.range(version.saturating_add(1)..);
        later.filter_map(|(_, id)| self.volumes.get(id).map(|volume| (*id, volume)))
    }

    /// The epoch to which a volume is being sealed.
    pub fn sealing(&self, wanted: VolumeId) -> Option<Epoch> {
        self.jobs.values().find_map(|job| match job {
            Job::Seal { volume, epoch } => (*volume == wanted).then_some(*epoch),
            Job::Fill { .. } => None,
        })
    }

    /// The servers that are being filled with a volume, each with the one whose place it takes.
    pub fn fills(&self, wanted: VolumeId) -> impl Iterator<Item = (NodeId, Option<NodeId>)> {
        self.jobs.values().filter_map(move |job| match job {
            Job::Fill { volume, target, replaces } if *volume == wanted => Some((*target, *replaces)),
            Job::Fill { .. } | Job::Seal { .. } => None,
        })
    }

    /// A server and where it is.
    pub fn peer(&self, node: NodeId) -> Peer {
        let address = self.nodes.get(&node).map(|info| info.address.clone()).unwrap_or_default();
        Peer { node, address }
    }

    /// The replicas of a volume, the primary first; those that are being completed last.
    pub fn peers(&self, volume: &Volume) -> Vec<Peer> {
        let of = |part| volume.members.iter().filter(move |member| member.part == part);
        of(Part::Replica).chain(of(Part::Completing)).map(|member| self.peer(member.node)).collect()
    }

    /// The addresses of a volume's replicas, in the same order.
    pub fn addresses(&self, volume: &Volume) -> Vec<String> {
        let is_known = |peer: &Peer| self.nodes.contains_key(&peer.node);
        self.peers(volume).into_iter().filter(is_known).map(|peer| peer.address).collect()
    }
}
