//! Calls of the volume service.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, Epoch, Incarnation, NeedleKey, NodeId, VolumeId};
use hay_common::limits::RPC_BULK_PART_BYTES;
use hay_common::model::{Codec, LeasedVolume};
use hay_proto::convert::{ConvertError, WireId, size_class, volume_state};
use hay_proto::rpc::{BoxStream, DynVolume, in_process, to_failure};
use hay_proto::v1::{self, append_part::Part};
use tonic::Request;

use super::only;
use crate::volume::{NeedleRange, Parts, VolumeReport, VolumeServerStatus};

/// What is stored.
pub(crate) struct Needle {
    pub key: NeedleKey,
    pub cookie: Cookie,
    pub codec: Codec,
    pub data: Bytes,
}

pub(crate) async fn append_unary(
    server: &DynVolume,
    target: &LeasedVolume,
    lease: &Bytes,
    needle: Needle,
) -> Result<(), Failure> {
    let item = v1::AppendItem {
        volume: target.volume.0,
        epoch: target.epoch.0,
        key: needle.key.to_wire(),
        cookie: needle.cookie.0,
        codec: u32::from(needle.codec.0),
        data: needle.data,
    };
    let request = v1::AppendBatchRequest { lease: lease.clone(), items: vec![item] };
    let reply = server.append_batch(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let result = only(reply.into_inner().results, "append_batch")?;
    result.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

pub(crate) async fn append_stream(
    server: &DynVolume,
    target: &LeasedVolume,
    lease: &Bytes,
    needle: Needle,
) -> Result<(), Failure> {
    let parts = in_process(stream::iter(parts(target, lease, needle)).map(Ok));
    server.append(Request::new(parts)).await.map_err(|status| to_failure(&status))?;
    Ok(())
}

/// Head, data in parts of 1 MiB, end. Without the end the server stores nothing.
fn parts(
    target: &LeasedVolume,
    lease: &Bytes,
    needle: Needle,
) -> impl Iterator<Item = v1::AppendPart> + use<> {
    let Needle { key, cookie, codec, mut data } = needle;
    // A needle has at most 8 MiB.
    let length = data.len() as u32;
    let head = Part::Head(v1::AppendHead {
        lease: lease.clone(),
        volume: target.volume.0,
        epoch: target.epoch.0,
        key: key.to_wire(),
        cookie: cookie.0,
        codec: u32::from(codec.0),
        length,
    });
    let end = Part::End(v1::AppendEnd { length, crc32c: crc32c::crc32c(&data) });
    let body = std::iter::from_fn(move || {
        (!data.is_empty()).then(|| Part::Data(data.split_to(data.len().min(RPC_BULK_PART_BYTES))))
    });
    std::iter::once(head).chain(body).chain([end]).map(|part| v1::AppendPart { part: Some(part) })
}

fn item(range: NeedleRange) -> v1::ReadItem {
    v1::ReadItem {
        volume: range.volume.0,
        key: range.key.to_wire(),
        cookie: range.cookie.0,
        offset: range.offset,
        length: range.length,
        checksum: false,
    }
}

pub(crate) async fn read_batch(server: &DynVolume, range: NeedleRange) -> Result<Bytes, Failure> {
    let request = v1::ReadBatchRequest { items: vec![item(range)] };
    let reply = server.read_batch(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let result = only(reply.into_inner().results, "read_batch")?;
    match result.failure {
        Some(failure) => Err(failure.into()),
        None if result.data.len() != range.length as usize => Err(short(range, result.data.len() as u64)),
        None => Ok(result.data),
    }
}

pub(crate) async fn read_stream(server: &DynVolume, range: NeedleRange) -> Result<Parts, Failure> {
    let reply = server.read(Request::new(item(range))).await.map_err(|status| to_failure(&status))?;
    let mut parts = reply.into_inner();
    // The first part comes once the needle is verified: what fails before it can still be had from elsewhere.
    let first = match parts.next().await {
        Some(Ok(first)) => first.data,
        Some(Err(status)) => return Err(to_failure(&status)),
        None => return Err(short(range, 0)),
    };
    Ok(Box::pin(measured(first, parts, range)))
}

/// The parts, with an error at the end where they are not together as long as was asked: a stream that was cut can
/// look like one that ended.
fn measured(
    first: Bytes,
    parts: BoxStream<v1::ReadPart>,
    range: NeedleRange,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    let rest = parts.map(|part| part.map(|part| part.data).map_err(|status| to_failure(&status)));
    let whole = stream::iter([Ok(first)]).chain(rest);
    stream::unfold(Some((whole, 0u64)), move |state| async move {
        let (mut whole, seen) = state?;
        let wanted = u64::from(range.length);
        match whole.next().await {
            Some(Ok(data)) => {
                let seen = seen + data.len() as u64;
                if seen > wanted {
                    Some((Err(short(range, seen)), None))
                } else {
                    Some((Ok(data), Some((whole, seen))))
                }
            }
            Some(Err(failure)) => Some((Err(failure), None)),
            None if seen != wanted => Some((Err(short(range, seen)), None)),
            None => None,
        }
    })
}

fn short(range: NeedleRange, got: u64) -> Failure {
    let NeedleRange { volume, key, length, .. } = range;
    let text = format!("a read of {length} bytes of needle {key} in volume {volume} gave {got}");
    Failure::new(ErrorCode::Unavailable, text)
}

pub(crate) async fn status(server: &DynVolume) -> Result<VolumeServerStatus, Failure> {
    let reply = server
        .volume_status(Request::new(v1::VolumeStatusRequest {}))
        .await
        .map_err(|status| to_failure(&status))?;
    Ok(server_status(reply.into_inner())?)
}

fn server_status(status: v1::VolumeStatusReply) -> Result<VolumeServerStatus, ConvertError> {
    Ok(VolumeServerStatus {
        node: NodeId::from_wire("volume_status.node", &status.node)?,
        volumes: status.volumes.into_iter().map(report).collect::<Result<_, _>>()?,
        free_bytes: status.free_bytes,
        total_bytes: status.total_bytes,
        durability: status.durability,
        not_ready: (!status.ready).then_some(status.not_ready_reason),
    })
}

fn report(report: v1::VolumeReport) -> Result<VolumeReport, ConvertError> {
    Ok(VolumeReport {
        id: VolumeId(report.id),
        epoch: Epoch(report.epoch),
        class: size_class("volume_report.class", report.class)?,
        state: volume_state("volume_report.state", report.state)?,
        read_only_reason: (!report.read_only_reason.is_empty()).then_some(report.read_only_reason),
        size_bytes: report.size_bytes,
        needles: report.needles,
        garbage_bytes: report.garbage_bytes,
        incarnation: Incarnation::from_wire("volume_report.incarnation", &report.incarnation)?,
    })
}
