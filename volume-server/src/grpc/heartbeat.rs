//! Heartbeat messages.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hay_common::disk::Space;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, Epoch, NodeId, VolumeId};
use hay_common::model::SizeClass;
use hay_proto::convert::{WireId, size_class};
use hay_proto::rpc::{DynMaster, in_process, to_failure};
use hay_proto::v1::{self, heartbeat_command::Command as Wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

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
    pub digest: u64,
    pub sequence: u64,
}

/// What a master says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Create { volume: VolumeId, epoch: Epoch, class: SizeClass },
    Seal { volume: VolumeId, epoch: Epoch },
    FullReport,
    Acknowledge,
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
        },
        Wire::Seal(seal) => Command::Seal { volume: VolumeId(seal.volume), epoch: Epoch(seal.epoch) },
        Wire::FullReport(_) => Command::FullReport,
        Wire::Acknowledge(_) => Command::Acknowledge,
    })
}
