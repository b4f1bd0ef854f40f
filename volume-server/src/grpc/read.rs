//! Reads: several small ranges in one answer, or one range in parts.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, NeedleKey, VolumeId};
use hay_common::limits::{RPC_BATCH_ITEMS_MAX, RPC_BULK_PART_BYTES, RPC_MESSAGE_BYTES_MAX};
use hay_proto::convert::WireId;
use hay_proto::rpc::{BoxStream, to_status};
use hay_proto::v1;
use tokio::sync::OwnedSemaphorePermit;

use super::failure;
use crate::server::VolumeServer;
use crate::store::{NeedleParts, Store};

/// Needles of one batch that are in memory at once.
const READS_AT_ONCE: usize = 8;
/// What an answer has beside its data, at most.
const ENVELOPE_BYTES: usize = 64 << 10;

struct Wanted {
    volume: VolumeId,
    key: NeedleKey,
    cookie: Cookie,
    offset: u32,
    length: u32,
}

impl Wanted {
    fn new(item: &v1::ReadItem) -> Result<Self, Failure> {
        Ok(Self {
            volume: VolumeId(item.volume),
            key: NeedleKey::from_wire("read_item.key", &item.key)?,
            cookie: Cookie(item.cookie),
            offset: item.offset,
            length: item.length,
        })
    }

    /// The range in a needle of `stored` bytes. Whoever reads knows how long the needle is: a range beyond it is an
    /// error, and never a shorter answer.
    fn range(&self, stored: u32) -> Result<Range<u32>, Failure> {
        let end = match self.length {
            0 => Some(stored),
            length => self.offset.checked_add(length),
        };
        match end {
            Some(end) if end <= stored && self.offset <= end => Ok(self.offset..end),
            _ => {
                let Self { offset, length, .. } = self;
                let text = format!("{length} bytes from {offset} do not lie in a needle of {stored}");
                Err(Failure::new(ErrorCode::RangeNotSatisfiable, text))
            }
        }
    }
}

impl VolumeServer {
    /// Each item succeeds or fails alone.
    pub(super) async fn read_items(&self, items: Vec<v1::ReadItem>) -> Result<Vec<v1::ReadResult>, Failure> {
        if items.len() > RPC_BATCH_ITEMS_MAX {
            let text = format!("a batch has at most {RPC_BATCH_ITEMS_MAX} items");
            return Err(Failure::new(ErrorCode::InvalidArgument, text));
        }
        let mut room = RPC_MESSAGE_BYTES_MAX - ENVELOPE_BYTES;
        let mut results = Vec::with_capacity(items.len());
        let mut reads = stream::iter(items).map(|item| read_item(&self.store, item)).buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let read = read.and_then(|(data, codec)| {
                room = room.checked_sub(data.len()).ok_or_else(|| {
                    let text = format!(
                        "the answer would be over {RPC_MESSAGE_BYTES_MAX} bytes: ask for less, or by Read"
                    );
                    Failure::new(ErrorCode::TooLarge, text)
                })?;
                Ok((data, codec))
            });
            results.push(match read {
                Ok((data, codec)) => v1::ReadResult { data, codec: u32::from(codec), failure: None },
                Err(failure) => v1::ReadResult { failure: Some(failure.into()), ..v1::ReadResult::default() },
            });
        }
        Ok(results)
    }

    /// A range in parts of at most 1 MiB, the whole needle verified before the first.
    pub(super) async fn read_stream(&self, item: &v1::ReadItem) -> Result<BoxStream<v1::ReadPart>, Failure> {
        let wanted = Wanted::new(item)?;
        let Wanted { volume, key, cookie, .. } = wanted;
        let length = self.store.length(volume, key, cookie).map_err(failure::read)?;
        let range = wanted.range(length)?;
        // Readers may stall for minutes. As many as the budget allows hold their needle in memory; the others are
        // slower, and hold a part.
        let source = match self.read_budget.clone().try_acquire_many_owned(length) {
            Ok(permit) => {
                let needle = self.store.read(volume, key, cookie).await.map_err(failure::read)?;
                Source::Whole(needle.data, permit)
            }
            Err(_) => Source::Parts(self.store.read_parts(volume, key, cookie).await.map_err(failure::read)?),
        };
        if range.is_empty() {
            let empty = v1::ReadPart { data: Bytes::new() };
            return Ok(Box::pin(stream::iter([Ok(empty)])));
        }
        Ok(Box::pin(stream::unfold((source, range), |(source, range)| async move {
            if range.is_empty() {
                return None;
            }
            match source.part(range.clone()).await {
                Ok(data) => {
                    let rest = range.start + data.len() as u32..range.end;
                    Some((Ok(v1::ReadPart { data }), (source, rest)))
                }
                // An empty rest ends the stream after its error.
                Err(failure) => Some((Err(to_status(failure)), (source, range.end..range.end))),
            }
        })))
    }
}

enum Source {
    Whole(Bytes, #[expect(dead_code, reason = "held as long as the bytes are")] OwnedSemaphorePermit),
    Parts(NeedleParts),
}

impl Source {
    /// The first part of `range`.
    async fn part(&self, range: Range<u32>) -> Result<Bytes, Failure> {
        match self {
            Self::Whole(data, _) => {
                let end = range.end.min(range.start.saturating_add(RPC_BULK_PART_BYTES as u32));
                Ok(data.slice(range.start as usize..end as usize))
            }
            Self::Parts(parts) => parts.read(range.start, range.end).await.map_err(failure::read),
        }
    }
}

async fn read_item(store: &Store, item: v1::ReadItem) -> Result<(Bytes, u8), Failure> {
    let wanted = Wanted::new(&item)?;
    let needle = store.read(wanted.volume, wanted.key, wanted.cookie).await.map_err(failure::read)?;
    let range = wanted.range(needle.data.len() as u32)?;
    let part = range.start as usize..range.end as usize;
    // A small slice of a large needle must not keep the needle in memory.
    let data = match needle.data.get(part.clone()) {
        Some(few) if few.len() < needle.data.len() / 2 => Bytes::copy_from_slice(few),
        _ => needle.data.slice(part),
    };
    Ok((data, needle.codec))
}
