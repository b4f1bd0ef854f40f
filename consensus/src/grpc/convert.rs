//! Messages of the seam as they stand on the wire.

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, MemberId};
use hay_proto::rpc::{to_failure, to_status};
use hay_proto::v1;
use hay_proto::v1::raft_snapshot_part::Part;
use tonic::Status;

use crate::formation::FormationId;
use crate::transport::{Envelope, FilePart, SnapshotAck, SnapshotEnd, SnapshotPart, TransportError};

pub(super) fn envelope_out(envelope: Envelope) -> v1::RaftEnvelope {
    let formation = envelope.formation.map(|id| id.0.to_be_bytes().to_vec()).unwrap_or_default();
    v1::RaftEnvelope {
        cluster: envelope.cluster.as_bytes().to_vec().into(),
        group: envelope.group,
        formation: formation.into(),
        from: envelope.from.0,
        to: envelope.to.map_or(0, |to| to.0),
        body: envelope.body,
    }
}

pub(super) fn envelope_in(envelope: v1::RaftEnvelope) -> Result<Envelope, Status> {
    let formation = match envelope.formation.as_ref() {
        [] => None,
        bytes => {
            Some(FormationId(u128::from_be_bytes(bytes.try_into().map_err(|_| malformed("a formation"))?)))
        }
    };
    Ok(Envelope {
        cluster: ClusterId::from_slice(&envelope.cluster).ok_or_else(|| malformed("a cluster"))?,
        group: envelope.group,
        formation,
        from: MemberId(envelope.from),
        to: (envelope.to != 0).then_some(MemberId(envelope.to)),
        body: envelope.body,
    })
}

pub(super) fn part_out(part: SnapshotPart) -> v1::RaftSnapshotPart {
    let part = match part {
        SnapshotPart::Begin(envelope) => Part::Begin(envelope_out(envelope)),
        SnapshotPart::File(FilePart { name, offset, data, crc, last }) => {
            Part::File(v1::RaftFilePart { name, offset, data, crc, last })
        }
        SnapshotPart::End(SnapshotEnd { files, bytes, crc }) => {
            Part::End(v1::RaftSnapshotEnd { files, bytes, crc })
        }
    };
    v1::RaftSnapshotPart { part: Some(part) }
}

pub(super) fn part_in(part: v1::RaftSnapshotPart) -> Result<SnapshotPart, Status> {
    Ok(match part.part.ok_or_else(|| malformed("a part"))? {
        Part::Begin(envelope) => SnapshotPart::Begin(envelope_in(envelope)?),
        Part::File(v1::RaftFilePart { name, offset, data, crc, last }) => {
            SnapshotPart::File(FilePart { name, offset, data, crc, last })
        }
        Part::End(v1::RaftSnapshotEnd { files, bytes, crc }) => {
            SnapshotPart::End(SnapshotEnd { files, bytes, crc })
        }
    })
}

pub(super) fn ack_out(ack: SnapshotAck) -> v1::RaftSnapshotAck {
    match ack {
        SnapshotAck::Progress(bytes) => v1::RaftSnapshotAck { bytes, ..v1::RaftSnapshotAck::default() },
        SnapshotAck::Done(body) => v1::RaftSnapshotAck { done: true, body, bytes: 0 },
    }
}

pub(super) fn ack_in(ack: v1::RaftSnapshotAck) -> SnapshotAck {
    if ack.done { SnapshotAck::Done(ack.body) } else { SnapshotAck::Progress(ack.bytes) }
}

pub(super) fn error_out(error: TransportError) -> Status {
    to_status(match error {
        TransportError::Unreachable(why) => Failure::new(ErrorCode::Unavailable, why),
        TransportError::TimedOut => Failure::new(ErrorCode::DeadlineExceeded, error.to_string()),
        TransportError::Refused(failure) => failure,
    })
}

pub(super) fn error_in(status: &Status) -> TransportError {
    to_failure(status).into()
}

fn malformed(what: &str) -> Status {
    to_status(Failure::new(
        ErrorCode::InvalidArgument,
        format!("a message of a group has {what} that can't be read"),
    ))
}
