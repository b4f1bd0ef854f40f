//! What the masters answer, in domain types.

use std::sync::Arc;

use bytes::Bytes;
use hay_common::ids::{ClusterId, Epoch, MemberId, NodeId, VolumeId};
use hay_common::model::{LeasedVolume, SizeClass, VolumeState};

use crate::places::Places;

/// A volume to append to, and the token that allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writable {
    /// The volume.
    pub volume: Arc<LeasedVolume>,
    /// The write lease's token, to be sent with the append.
    pub token: Bytes,
}

/// A write lease as it was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteLease {
    /// Volumes of both classes.
    pub volumes: Vec<LeasedVolume>,
    /// Signed over volumes and epochs.
    pub token: Bytes,
    /// How long until another should be had, in ms.
    pub ttl_ms: u64,
}

/// One replica of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMember {
    /// The server.
    pub node: NodeId,
    /// Where it answers.
    pub address: String,
    /// It is being filled: counts for nothing yet.
    pub filling: bool,
    /// It was heard of lately.
    pub alive: bool,
    /// It may lack needles.
    pub incomplete: bool,
    /// It is being completed, or written anew, where it is, and still read from.
    pub completing: bool,
    /// What is wrong with its copy, for people; empty where nothing is.
    pub problem: String,
}

/// One volume in the masters' map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Which.
    pub id: VolumeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it is for.
    pub class: SizeClass,
    /// Whether it takes appends.
    pub state: VolumeState,
    /// Its replicas, the primary first.
    pub members: Vec<VolumeMember>,
    /// Bytes in use, as last reported.
    pub size_bytes: u64,
    /// Needles, as last reported.
    pub needles: u64,
    /// Bytes that nothing refers to, as last reported.
    pub garbage_bytes: u64,
    /// Its collection.
    pub collection: String,
    /// Its tier.
    pub tier: String,
    /// Why a server holds it read-only.
    pub read_only_reason: Option<String>,
}

impl VolumeInfo {
    /// Where it can be read.
    pub fn places(&self) -> Places {
        let whole = self.members.iter().filter(|member| !member.filling);
        let (living, dead): (Vec<_>, Vec<_>) = whole.partition(|member| member.alive);
        let addresses =
            |members: Vec<&VolumeMember>| members.into_iter().map(|member| member.address.clone()).collect();
        Places::new(addresses(living), addresses(dead))
    }
}

/// A server that is, or would be, filled with a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairStep {
    /// Which.
    pub target: NodeId,
    /// Where it answers.
    pub address: String,
    /// The member whose place it takes.
    pub replaces: Option<NodeId>,
    /// It was under way already.
    pub running: bool,
    /// It has a copy, or should have: that is completed, or written anew.
    pub in_place: bool,
    /// What has kept it from its end so far; empty where nothing has.
    pub problem: String,
}

/// A fill that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairCancelled {
    /// Whose.
    pub target: NodeId,
    /// Where it answers.
    pub address: String,
    /// Why, for people.
    pub reason: String,
    /// Its copy stays one of the volume's.
    pub stays: bool,
}

/// What a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan {
    /// Who is filled; none where nothing is lacking.
    pub steps: Vec<RepairStep>,
    /// What is given up first.
    pub cancelled: Vec<RepairCancelled>,
    /// Whole copies now.
    pub whole: u32,
    /// How many there should be.
    pub wanted: u32,
    /// Every copy that is there may lack needles: they complete each other, and what all have lost nobody knows.
    pub unsure: bool,
}

/// Some volumes of the map, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePage {
    /// The volumes.
    pub volumes: Vec<VolumeInfo>,
    /// Whether there are further ones.
    pub more: bool,
    /// The map's version.
    pub version: u64,
}

/// One member of the masters' group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterMember {
    /// Which.
    pub id: MemberId,
    /// Where it answers.
    pub address: String,
    /// It leads.
    pub leader: bool,
    /// It votes.
    pub voter: bool,
    /// Entries of the log that it lacks, where the leader knows.
    pub lag: Option<u64>,
    /// How long ago it answered the leader, in milliseconds.
    pub heard_ms_ago: Option<u64>,
    /// Why it did not, if it has not since.
    pub problem: Option<String>,
}

/// What to do with a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MastersChange {
    /// One that follows gets a vote.
    Add,
    /// It belongs to the group no more.
    Remove,
}

/// What was done to the masters, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MastersChanged {
    /// Whom it was about, as it was before.
    pub master: MasterMember,
    /// Masters with a vote before.
    pub voters_before: u32,
    /// … and after.
    pub voters_after: u32,
}

/// One volume server as the masters see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The server.
    pub node: NodeId,
    /// Where it answers.
    pub address: String,
    /// Its rack.
    pub rack: String,
    /// Its zone.
    pub zone: String,
    /// Its tier.
    pub tier: String,
    /// It was heard of lately.
    pub alive: bool,
    /// When, in ms before now.
    pub last_heard_ms_ago: u64,
    /// Bytes free, its reserve included.
    pub free_bytes: u64,
    /// Bytes that it leaves free.
    pub reserve_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Its volumes.
    pub volumes: u32,
    /// Why it gets no new ones.
    pub no_new_volumes: Option<String>,
}

/// How the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The masters.
    pub masters: Vec<MasterMember>,
    /// The volume servers.
    pub nodes: Vec<NodeStatus>,
    /// Volumes that take appends.
    pub volumes_writable: u32,
    /// Volumes that take none.
    pub volumes_sealed: u32,
    /// Volumes that are not there yet.
    pub volumes_creating: u32,
    /// The Raft term.
    pub raft_term: u64,
    /// The last applied log index.
    pub raft_applied: u64,
    /// `sync` or `async`.
    pub durability: String,
    /// Why no lease can be granted.
    pub not_ready: Option<String>,
    /// The master that answered does not lead: what it says of volume servers is nothing but their names.
    pub servers_unknown: bool,
    /// What keeps that master from its work.
    pub masters_problem: Option<String>,
    /// Servers that hold a new volume.
    pub replicas: u32,
    /// Sealed volumes that lack copies.
    pub volumes_lacking: u32,
    /// The first of them.
    pub lacking: Vec<VolumeId>,
    /// What an operator should look at, for people.
    pub warnings: Vec<String>,
}
