//! Reads: several small ranges in one answer, or one range in parts.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, NeedleKey, VolumeId};
use hay_common::limits::{
    READ_BATCHES_BYTES_MAX, RPC_BATCH_ITEMS_MAX, RPC_BULK_PART_BYTES, RPC_MESSAGE_BYTES_MAX,
};
use hay_proto::convert::WireId;
use hay_proto::rpc::{BoxStream, to_status};
use hay_proto::v1;
use tokio::sync::OwnedSemaphorePermit;

use super::failure;
use crate::server::VolumeServer;
use crate::store::{Needle, NeedleParts, ReadError, held_bytes};

/// Needles of one batch that are in memory at once.
const READS_AT_ONCE: usize = 8;

// What an answer keeps of a needle is less than twice what it gives of it: one batch never waits for itself.
const _: () = assert!(4 * RPC_MESSAGE_BYTES_MAX <= READ_BATCHES_BYTES_MAX);

struct Wanted {
    volume: VolumeId,
    key: NeedleKey,
    cookie: Cookie,
    offset: u32,
    length: u32,
    checksum: bool,
}

impl Wanted {
    fn new(item: &v1::ReadItem) -> Result<Self, Failure> {
        Ok(Self {
            volume: VolumeId(item.volume),
            key: NeedleKey::from_wire("read_item.key", &item.key)?,
            cookie: Cookie(item.cookie),
            offset: item.offset,
            length: item.length,
            checksum: item.checksum,
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

fn part(data: Bytes, codec: u8, checksum: bool) -> v1::ReadPart {
    match checksum {
        true => v1::ReadPart { crc32c: Some(crc32c::crc32c(&data)), codec: u32::from(codec), data },
        false => v1::ReadPart { data, ..v1::ReadPart::default() },
    }
}

impl VolumeServer {
    /// Bytes of a needle. That there is none only a replica says that is confirmed as whole.
    fn length_of(&self, wanted: &Wanted) -> Result<u32, Failure> {
        let length = self.store.length(wanted.volume, wanted.key, wanted.cookie);
        let length = length.map_err(|error| match error {
            ReadError::Absent(id) if !self.replication.may_say_absent(id) => ReadError::Unconfirmed(id),
            // It is being copied from those that are to be asked.
            ReadError::Lost(id) if self.store.filling_in(id).is_some() => ReadError::Unconfirmed(id),
            error => error,
        });
        length.map_err(failure::read)
    }

    /// Each item succeeds or fails alone.
    pub(super) async fn read_items(&self, items: Vec<v1::ReadItem>) -> Result<Vec<v1::ReadResult>, Failure> {
        if items.len() > RPC_BATCH_ITEMS_MAX {
            let text = format!("a batch has at most {RPC_BATCH_ITEMS_MAX} items");
            return Err(Failure::new(ErrorCode::InvalidArgument, text));
        }
        // A message has room for its ids and texts beside this.
        let mut room = RPC_MESSAGE_BYTES_MAX;
        let planned: Vec<_> = items.iter().map(|item| plan(self, item, &mut room)).collect();
        let held = planned.iter().flatten().map(|planned| planned.held).sum::<usize>();
        // All at once: batches that held some and waited for more could wait for one another. Given back when the
        // answer is handed over: from then on its bytes are its reader's.
        let budget = self.batch_budget.acquire_many(held as u32).await;
        let _budget = budget.map_err(|_| failure::read(ReadError::Closing))?;
        let mut results = Vec::with_capacity(planned.len());
        let mut reads =
            stream::iter(planned).map(|planned| read_planned(self, planned)).buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            results.push(match read {
                Ok((data, codec, checksum)) => {
                    let crc32c = checksum.then(|| crc32c::crc32c(&data));
                    v1::ReadResult { data, codec: u32::from(codec), failure: None, crc32c }
                }
                Err(failure) => v1::ReadResult { failure: Some(failure.into()), ..v1::ReadResult::default() },
            });
        }
        Ok(results)
    }

    /// A range in parts of at most 1 MiB, the whole needle verified before the first.
    pub(super) async fn read_stream(&self, item: &v1::ReadItem) -> Result<BoxStream<v1::ReadPart>, Failure> {
        let wanted = Wanted::new(item)?;
        let Wanted { volume, key, cookie, checksum, .. } = wanted;
        let length = self.length_of(&wanted)?;
        let range = wanted.range(length)?;
        // Readers may stall for minutes. As many as the budget allows hold what they want in memory; the others are
        // slower, and hold a small part.
        let held = held_bytes(length, &range) as u32;
        let source = match self.read_budget.clone().try_acquire_many_owned(held) {
            Ok(permit) => {
                let needle = self.store.read_range(volume, key, cookie, range.clone()).await;
                let Needle { codec, data } = needle.map_err(failure::read)?;
                let data = Bytes::from_owner(Held { data, _permit: permit });
                Source::Held { data, codec, offset: range.start }
            }
            Err(_) => Source::Parts(self.store.read_parts(volume, key, cookie).await.map_err(failure::read)?),
        };
        if range.is_empty() {
            let empty = part(Bytes::new(), source.codec(), checksum);
            return Ok(Box::pin(stream::iter([Ok(empty)])));
        }
        Ok(Box::pin(stream::unfold((source, range), move |(source, range)| async move {
            if range.is_empty() {
                return None;
            }
            match source.part(range.clone()).await {
                Ok(data) => {
                    let rest = range.start + data.len() as u32..range.end;
                    Some((Ok(part(data, source.codec(), checksum)), (source, rest)))
                }
                // An empty rest ends the stream after its error.
                Err(failure) => Some((Err(to_status(failure)), (source, range.end..range.end))),
            }
        })))
    }
}

/// Bytes that give their budget back when the last reader of a slice of them has gone.
struct Held {
    data: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

enum Source {
    /// The needle's data from `offset` on.
    Held {
        data: Bytes,
        codec: u8,
        offset: u32,
    },
    Parts(NeedleParts),
}

impl Source {
    fn codec(&self) -> u8 {
        match self {
            Self::Held { codec, .. } => *codec,
            Self::Parts(parts) => parts.codec(),
        }
    }

    /// The first part of `range`.
    async fn part(&self, range: Range<u32>) -> Result<Bytes, Failure> {
        match self {
            Self::Held { data, offset, .. } => {
                let start = (range.start - offset) as usize;
                Ok(data.slice(start..start + range.len().min(RPC_BULK_PART_BYTES)))
            }
            Self::Parts(parts) => parts.read(range.start, range.end).await.map_err(failure::read),
        }
    }
}

/// One item of a batch, which fits the answer.
struct Planned {
    volume: VolumeId,
    key: NeedleKey,
    cookie: Cookie,
    range: Range<u32>,
    checksum: bool,
    /// Bytes that its answer holds.
    held: usize,
}

/// Looks at the index alone; takes what the item's answer needs from `room`.
fn plan(server: &VolumeServer, item: &v1::ReadItem, room: &mut usize) -> Result<Planned, Failure> {
    let wanted = Wanted::new(item)?;
    let Wanted { volume, key, cookie, checksum, .. } = wanted;
    let length = server.length_of(&wanted)?;
    let range = wanted.range(length)?;
    *room = room.checked_sub(range.len()).ok_or_else(|| {
        let text =
            format!("the answer would be over {RPC_MESSAGE_BYTES_MAX} bytes: ask for less, or by Read");
        Failure::new(ErrorCode::TooLarge, text)
    })?;
    let held = held_bytes(length, &range);
    Ok(Planned { volume, key, cookie, range, checksum, held })
}

async fn read_planned(
    server: &VolumeServer,
    planned: Result<Planned, Failure>,
) -> Result<(Bytes, u8, bool), Failure> {
    let Planned { volume, key, cookie, range, checksum, .. } = planned?;
    let needle = server.store.read_range(volume, key, cookie, range).await.map_err(failure::read)?;
    Ok((needle.data, needle.codec, checksum))
}
