//! What a server that fills a volume asks of its sources.

use bytes::Bytes;
use futures::StreamExt;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, NeedleKey, VolumeId};
use hay_common::limits::LIST_NEEDLES_PAGE_MAX;
use hay_proto::convert::WireId;
use hay_proto::rpc::{DynVolume, to_failure};
use hay_proto::v1;
use tonic::Request;

/// (key, cookie, bytes of data)
pub(crate) type Name = (NeedleKey, Cookie, u32);

/// One page of a source's names.
pub(crate) struct Page {
    pub names: Vec<Name>,
    pub more: bool,
    pub incomplete: bool,
}

/// A needle that arrived as its source sent it.
pub(crate) struct Copied {
    pub name: Name,
    pub codec: u32,
    pub parts: Vec<Bytes>,
    pub crc: u32,
}

pub(crate) async fn list(source: &DynVolume, volume: VolumeId, after: Option<Name>) -> Result<Page, Failure> {
    let after =
        after.map(|(key, cookie, length)| v1::ListedNeedle { key: key.to_wire(), cookie: cookie.0, length });
    let limit = LIST_NEEDLES_PAGE_MAX as u32;
    let request = v1::ListNeedlesRequest { volume: volume.0, after, limit };
    let reply = source.list_needles(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let reply = reply.into_inner();
    let name = |needle: v1::ListedNeedle| -> Result<Name, Failure> {
        let key = NeedleKey::from_wire("listed_needle.key", &needle.key)?;
        Ok((key, Cookie(needle.cookie), needle.length))
    };
    let names = reply.needles.into_iter().map(name).collect::<Result<_, _>>()?;
    Ok(Page { names, more: reply.more, incomplete: reply.incomplete })
}

fn item(volume: VolumeId, (key, cookie, _): Name) -> v1::ReadItem {
    v1::ReadItem {
        volume: volume.0,
        key: key.to_wire(),
        cookie: cookie.0,
        offset: 0,
        length: 0,
        checksum: true,
    }
}

/// Small needles, in one call; each comes or fails alone.
pub(crate) async fn read_small(
    source: &DynVolume,
    volume: VolumeId,
    names: &[Name],
) -> Result<Vec<Result<Copied, Failure>>, Failure> {
    let items = names.iter().map(|name| item(volume, *name)).collect();
    let reply = source.read_batch(Request::new(v1::ReadBatchRequest { items })).await;
    let results = reply.map_err(|status| to_failure(&status))?.into_inner().results;
    if results.len() != names.len() {
        return Err(Failure::new(ErrorCode::Unavailable, "a source answered with another number of needles"));
    }
    let checked = names.iter().zip(results).map(|(name, result)| match result.failure {
        Some(failure) => Err(failure.into()),
        None => {
            check(&result.data, result.crc32c)?;
            whole(*name, result.codec, vec![result.data])
        }
    });
    Ok(checked.collect())
}

/// A large needle, as a stream.
pub(crate) async fn read_large(source: &DynVolume, volume: VolumeId, name: Name) -> Result<Copied, Failure> {
    let reply = source.read(Request::new(item(volume, name))).await.map_err(|status| to_failure(&status))?;
    let (mut stream, mut parts, mut codec) = (reply.into_inner(), Vec::new(), 0);
    while let Some(part) = stream.next().await {
        let part = part.map_err(|status| to_failure(&status))?;
        check(&part.data, part.crc32c)?;
        codec = part.codec;
        parts.push(part.data);
    }
    whole(name, codec, parts)
}

fn check(data: &Bytes, sum: Option<u32>) -> Result<(), Failure> {
    match sum == Some(crc32c::crc32c(data)) {
        true => Ok(()),
        false => Err(Failure::new(ErrorCode::DigestMismatch, "a needle arrived other than it was sent")),
    }
}

fn whole(name: Name, codec: u32, parts: Vec<Bytes>) -> Result<Copied, Failure> {
    if parts.iter().map(Bytes::len).sum::<usize>() != name.2 as usize {
        return Err(Failure::new(ErrorCode::Unavailable, "a needle arrived with another length than listed"));
    }
    let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    Ok(Copied { name, codec, parts, crc })
}
