//! Calls of the masters, and the conversions of their messages.

use futures::StreamExt;
use futures::stream::BoxStream;
use hay_common::error::Failure;
use hay_common::ids::{ClusterId, Epoch, MemberId, NodeId, VolumeId};
use hay_proto::convert::{ConvertError, WireId, optional, size_class, volume_state};
use hay_proto::rpc::{DynMaster, to_failure};
use hay_proto::v1;
use tonic::Request;

use crate::master::types::{
    ClusterStatus, MasterMember, MastersChange, MastersChanged, NodeStatus, RepairCancelled, RepairPlan,
    RepairStep, VolumeInfo, VolumeMember, VolumePage, WriteLease,
};

pub(crate) async fn lease_write(master: &DynMaster, avoid: Vec<VolumeId>) -> Result<WriteLease, Failure> {
    let request = v1::LeaseWriteRequest { avoid: avoid.into_iter().map(|volume| volume.0).collect() };
    let lease =
        master.lease_write(Request::new(request)).await.map_err(|status| to_failure(&status))?.into_inner();
    let volumes = lease.volumes.into_iter().map(TryInto::try_into).collect::<Result<_, ConvertError>>()?;
    Ok(WriteLease { volumes, token: lease.token, ttl_ms: lease.ttl_ms })
}

pub(crate) async fn volume_map(
    master: &DynMaster,
    volumes: Vec<VolumeId>,
    after: VolumeId,
    limit: u32,
) -> Result<VolumePage, Failure> {
    let volumes = volumes.into_iter().map(|id| id.0).collect();
    ask_map(master, v1::VolumeMapRequest { volumes, after: after.0, limit, as_it_stands: false }).await
}

/// Volumes with ids above `after`: confirmed by a majority of the masters, or as one of them has it.
pub(crate) async fn volume_map_page(
    master: &DynMaster,
    after: VolumeId,
    limit: u32,
    as_it_stands: bool,
) -> Result<VolumePage, Failure> {
    ask_map(master, v1::VolumeMapRequest { volumes: Vec::new(), after: after.0, limit, as_it_stands }).await
}

async fn ask_map(master: &DynMaster, request: v1::VolumeMapRequest) -> Result<VolumePage, Failure> {
    let reply = master.volume_map(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    Ok(page(reply.into_inner())?)
}

/// Changes of the map until the stream ends or fails.
pub(crate) async fn watch(
    master: &DynMaster,
    after_version: u64,
) -> Result<BoxStream<'static, Result<VolumePage, Failure>>, Failure> {
    let request = v1::WatchVolumeMapRequest { after_version };
    let reply = master.watch_volume_map(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let changes = reply.into_inner().map(|change| match change {
        Ok(change) => page(change).map_err(Failure::from),
        Err(status) => Err(to_failure(&status)),
    });
    Ok(changes.boxed())
}

pub(crate) async fn cluster_status(master: &DynMaster) -> Result<ClusterStatus, Failure> {
    let reply = master
        .cluster_status(Request::new(v1::ClusterStatusRequest {}))
        .await
        .map_err(|status| to_failure(&status))?;
    Ok(status(reply.into_inner())?)
}

pub(crate) async fn repair_volume(
    master: &DynMaster,
    volume: VolumeId,
    dry_run: bool,
) -> Result<RepairPlan, Failure> {
    let request = v1::RepairVolumeRequest { volume: volume.0, dry_run };
    let reply = master.repair_volume(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let reply = reply.into_inner();
    let step = |step: v1::RepairStep| -> Result<RepairStep, ConvertError> {
        Ok(RepairStep {
            target: NodeId::from_wire("repair_step.target", &step.target)?,
            address: step.target_address,
            replaces: optional("repair_step.replaces", &step.replaces)?,
            running: step.running,
            in_place: step.in_place,
            problem: step.problem,
        })
    };
    let steps = reply.steps.into_iter().map(step).collect::<Result<_, _>>()?;
    let cancelled = |cancelled: v1::RepairCancelled| -> Result<RepairCancelled, ConvertError> {
        Ok(RepairCancelled {
            target: NodeId::from_wire("repair_cancelled.target", &cancelled.target)?,
            address: cancelled.target_address,
            reason: cancelled.reason,
            stays: cancelled.stays,
        })
    };
    let cancelled = reply.cancelled.into_iter().map(cancelled).collect::<Result<_, _>>()?;
    Ok(RepairPlan { steps, cancelled, whole: reply.whole, wanted: reply.wanted, unsure: reply.unsure })
}

pub(crate) async fn change_masters(
    master: &DynMaster,
    name: &str,
    change: MastersChange,
    dry_run: bool,
) -> Result<MastersChanged, Failure> {
    let change = match change {
        MastersChange::Add => v1::MastersChange::Add,
        MastersChange::Remove => v1::MastersChange::Remove,
    };
    let request = v1::ChangeMastersRequest { master: name.to_owned(), change: change.into(), dry_run };
    let reply = master.change_masters(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let reply = reply.into_inner();
    let master = reply.master.ok_or(ConvertError::Missing { field: "change_masters_reply.master" })?;
    let (voters_before, voters_after) = (reply.voters_before, reply.voters_after);
    Ok(MastersChanged { master: master_member(master), voters_before, voters_after })
}

fn master_member(member: v1::MemberStatus) -> MasterMember {
    MasterMember {
        id: MemberId(member.id),
        address: member.address,
        leader: member.leader,
        voter: member.voter,
        lag: member.lag,
        heard_ms_ago: member.heard_ms_ago,
        problem: (!member.problem.is_empty()).then_some(member.problem),
    }
}

fn page(reply: v1::VolumeMapReply) -> Result<VolumePage, ConvertError> {
    let volumes = reply.volumes.into_iter().map(volume).collect::<Result<_, _>>()?;
    Ok(VolumePage { volumes, more: reply.more, version: reply.version })
}

fn volume(record: v1::VolumeRecord) -> Result<VolumeInfo, ConvertError> {
    Ok(VolumeInfo {
        id: VolumeId(record.id),
        epoch: Epoch(record.epoch),
        class: size_class("volume_record.class", record.class)?,
        state: volume_state("volume_record.state", record.state)?,
        members: record.members.into_iter().map(member).collect::<Result<_, _>>()?,
        size_bytes: record.size_bytes,
        needles: record.needles,
        garbage_bytes: record.garbage_bytes,
        collection: record.collection,
        tier: record.tier,
        read_only_reason: (!record.read_only_reason.is_empty()).then_some(record.read_only_reason),
    })
}

fn member(member: v1::VolumeMember) -> Result<VolumeMember, ConvertError> {
    Ok(VolumeMember {
        node: NodeId::from_wire("volume_member.node", &member.node)?,
        address: member.address,
        filling: member.filling,
        alive: member.alive,
        incomplete: member.incomplete,
        completing: member.completing,
        problem: member.problem,
    })
}

fn status(status: v1::ClusterStatusReply) -> Result<ClusterStatus, ConvertError> {
    Ok(ClusterStatus {
        cluster: ClusterId::from_wire("cluster_status.cluster", &status.cluster)?,
        masters: status.masters.into_iter().map(master_member).collect(),
        nodes: status.nodes.into_iter().map(node).collect::<Result<_, _>>()?,
        volumes_writable: status.volumes_writable,
        volumes_sealed: status.volumes_sealed,
        volumes_creating: status.volumes_creating,
        raft_term: status.raft_term,
        raft_applied: status.raft_applied,
        durability: status.durability,
        not_ready: (!status.ready).then_some(status.not_ready_reason),
        servers_unknown: status.servers_unknown,
        masters_problem: said(status.masters_problem),
        replicas: status.replicas,
        volumes_lacking: status.volumes_lacking,
        lacking: status.lacking.into_iter().map(VolumeId).collect(),
        warnings: status.warnings,
    })
}

fn node(node: v1::NodeStatus) -> Result<NodeStatus, ConvertError> {
    Ok(NodeStatus {
        node: NodeId::from_wire("node_status.node", &node.node)?,
        address: node.address,
        rack: node.rack,
        zone: node.zone,
        tier: node.tier,
        alive: node.alive,
        last_heard_ms_ago: node.last_heard_ms_ago,
        free_bytes: node.free_bytes,
        reserve_bytes: node.free_space_reserve_bytes,
        total_bytes: node.total_bytes,
        volumes: node.volumes,
        no_new_volumes: said(node.no_new_volumes),
    })
}

fn said(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
