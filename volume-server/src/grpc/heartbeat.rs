//! Heartbeat messages.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hay_common::disk::Space;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, Epoch, NodeId, VolumeId};
use hay_common::limits::REPLICAS_MAX;
use hay_common::model::SizeClass;
use hay_proto::convert::{ConvertError, WireId, size_class, volume_state};
use hay_proto::rpc::{DynMaster, in_process, to_failure};
use hay_proto::v1::{self, heartbeat_command::Command as Wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::replicate::standing::Part;
use crate::replicate::{Confirmation, Fill, Member};
use crate::store::VolumeInfo;

/// What a volume server says of itself.
pub(crate) struct Report {
    pub full: bool,
    pub node: NodeId,
    pub cluster: ClusterId,
    pub address: String,
    pub rack: String,
    pub zone: String,
    pub tier: String,
    pub volumes: Vec<VolumeInfo>,
    pub removed: Vec<VolumeId>,
    pub space: Space,
    /// Of the free space, what is left free.
    pub reserve_bytes: u64,
    pub digest: u64,
    pub sequence: u64,
    pub instance: u128,
}

/// What a master says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Create { volume: VolumeId, epoch: Epoch, class: SizeClass, members: Vec<Member> },
    Seal { volume: VolumeId, epoch: Epoch },
    FullReport,
    Acknowledge,
    Confirm(Vec<Confirmation>),
    Fill(Fill),
}

/// Opens a stream to a master.
pub(crate) async fn open(
    master: &DynMaster,
    reports: mpsc::Receiver<Report>,
) -> Result<impl Stream<Item = Result<Command, Failure>> + Unpin + use<>, Failure> {
    let outgoing = in_process(ReceiverStream::new(reports).map(|report| Ok(to_wire(report))));
    let reply = master.heartbeat(Request::new(outgoing)).await.map_err(|status| to_failure(&status))?;
    Ok(reply.into_inner().map(|message| message.map_err(|status| to_failure(&status)).and_then(command)))
}

fn to_wire(report: Report) -> v1::HeartbeatReport {
    v1::HeartbeatReport {
        full: report.full,
        node: report.node.to_wire(),
        cluster: report.cluster.to_wire(),
        address: report.address,
        rack: report.rack,
        zone: report.zone,
        tier: report.tier,
        volumes: report.volumes.into_iter().map(volume_report).collect(),
        removed: report.removed.into_iter().map(|id| id.0).collect(),
        free_bytes: report.space.free,
        total_bytes: report.space.total,
        digest: report.digest,
        sequence: report.sequence,
        instance: Bytes::copy_from_slice(&report.instance.to_be_bytes()),
        free_space_reserve_bytes: Some(report.reserve_bytes),
    }
}

/// One volume in a report.
pub(crate) fn volume_report(info: VolumeInfo) -> v1::VolumeReport {
    v1::VolumeReport {
        id: info.id.0,
        epoch: info.epoch.0,
        class: v1::SizeClass::from(info.class).into(),
        state: v1::VolumeState::from(info.state).into(),
        read_only_reason: info.read_only.unwrap_or_default(),
        size_bytes: info.size_bytes,
        needles: info.needles,
        garbage_bytes: info.garbage_bytes,
        incarnation: Bytes::copy_from_slice(info.incarnation.as_bytes()),
        reads: info.reads,
        filling: info.filling,
        failed_replica: info.failed_replica.map(|node| node.to_wire()).unwrap_or_default(),
        incomplete: info.incomplete,
        fill_problem: info.fill_problem.unwrap_or_default(),
        fill_failures: info.fill_failures,
    }
}

fn command(message: v1::HeartbeatCommand) -> Result<Command, Failure> {
    let command = message.command.ok_or_else(|| {
        Failure::new(ErrorCode::InvalidArgument, "the master's command is of an unknown kind")
    })?;
    Ok(match command {
        Wire::Create(create) => Command::Create {
            volume: VolumeId(create.volume),
            epoch: Epoch(create.epoch),
            class: size_class("create_volume.class", create.class)?,
            members: members(create.members)?,
        },
        Wire::Seal(seal) => Command::Seal { volume: VolumeId(seal.volume), epoch: Epoch(seal.epoch) },
        Wire::FullReport(_) => Command::FullReport,
        Wire::Acknowledge(_) => Command::Acknowledge,
        Wire::Confirm(confirm) => {
            Command::Confirm(confirm.volumes.into_iter().map(confirmation).collect::<Result<_, _>>()?)
        }
        Wire::Fill(fill) => Command::Fill(Fill {
            volume: VolumeId(fill.volume),
            epoch: Epoch(fill.epoch),
            class: size_class("fill_volume.class", fill.class)?,
            sources: members(fill.sources)?,
            members: members(fill.members)?,
        }),
    })
}

fn members(peers: Vec<v1::VolumePeer>) -> Result<Vec<Member>, ConvertError> {
    let member = |peer: v1::VolumePeer| {
        Ok(Member { node: NodeId::from_wire("volume_peer.node", &peer.node)?, address: peer.address })
    };
    peers.into_iter().take(REPLICAS_MAX).map(member).collect()
}

fn confirmation(confirmed: v1::ConfirmedVolume) -> Result<Confirmation, ConvertError> {
    let part = match (confirmed.stranger, confirmed.filling) {
        (true, _) => Part::Stranger,
        (false, true) => Part::Filling,
        (false, false) => Part::Whole,
    };
    Ok(Confirmation {
        volume: VolumeId(confirmed.volume),
        epoch: Epoch(confirmed.epoch),
        state: volume_state("confirmed_volume.state", confirmed.state)?,
        part,
        members: members(confirmed.members)?,
    })
}
