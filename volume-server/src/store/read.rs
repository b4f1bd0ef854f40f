//! Reading a needle: one look into the index, one read of the disk, every checksum, key and cookie compared.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hay_common::disk::read_exact_at;
use hay_common::ids::{Cookie, NeedleKey};
use hay_needle::{DATA_OVERHEAD_BYTES, HEADER_BYTES, Slot, check_needle};
use tokio::sync::Semaphore;

use super::error::ReadError;
use super::parts::{self, NeedleParts};
use super::volume::Volume;

/// A needle's data, or a range of them, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    /// As it was given at the append.
    pub codec: u8,
    /// What was asked for.
    pub data: Bytes,
}

/// Whether an answer of that range keeps the whole needle in memory: a copy would save less than half.
fn keeps_whole(length: u32, range: &Range<u32>) -> bool {
    range.len() >= length as usize / 2
}

/// Bytes that the answer to a read of `range` of a needle of `length` bytes holds.
pub fn held_bytes(length: u32, range: &Range<u32>) -> usize {
    if keeps_whole(length, range) { length as usize + DATA_OVERHEAD_BYTES } else { range.len() }
}

/// Needles above this are read on a thread that may block even if they are cached: copying and summing them would hold
/// up an async thread for longer than the hop costs.
const INLINE_BYTES_MAX: usize = 256 << 10;

impl Volume {
    /// Reads and verifies a needle. `permits` bounds the blocking reads.
    pub(crate) async fn read(
        self: &Arc<Self>,
        key: NeedleKey,
        cookie: Cookie,
        permits: &Arc<Semaphore>,
    ) -> Result<Needle, ReadError> {
        let slot = self.locate(key, cookie)?;
        self.counted(self.fetch(slot, key, cookie, permits), |needle| needle.data.len()).await
    }

    /// Reads a range of a needle and verifies all of it. What of the range lies beyond the needle is left out.
    pub(crate) async fn read_range(
        self: &Arc<Self>,
        key: NeedleKey,
        cookie: Cookie,
        range: Range<u32>,
        permits: &Arc<Semaphore>,
    ) -> Result<Needle, ReadError> {
        let slot = self.locate(key, cookie)?;
        let end = range.end.min(slot.length);
        let range = range.start.min(end)..end;
        let wanted = range.start as usize..range.end as usize;
        let read = async {
            let whole = keeps_whole(slot.length, &range);
            if !whole && slot.length as usize > INLINE_BYTES_MAX {
                let (codec, data) = parts::range(self, slot, (key, cookie), wanted, permits).await?;
                return Ok(Needle { codec, data });
            }
            let Needle { codec, data } = self.fetch(slot, key, cookie, permits).await?;
            // A small slice of a larger needle must not keep the needle in memory.
            let data = match data.get(wanted.clone()) {
                Some(few) if !whole => Bytes::copy_from_slice(few),
                _ => data.slice(wanted),
            };
            Ok(Needle { codec, data })
        };
        self.counted(read, |needle| needle.data.len()).await
    }

    /// Verifies a needle that will be read in parts.
    pub(crate) async fn parts(
        self: &Arc<Self>,
        key: NeedleKey,
        cookie: Cookie,
        permits: &Arc<Semaphore>,
    ) -> Result<NeedleParts, ReadError> {
        let slot = self.locate(key, cookie)?;
        let verified = NeedleParts::verify(self.clone(), slot, key, cookie, permits.clone());
        self.counted(verified, |parts| parts.length() as usize).await
    }

    pub(crate) fn locate(&self, key: NeedleKey, cookie: Cookie) -> Result<Slot, ReadError> {
        let found = self.content.read().index.get(key, cookie);
        found.ok_or_else(|| match self.state.load().incomplete {
            true => ReadError::Lost(self.id),
            false => ReadError::Absent(self.id),
        })
    }

    async fn counted<T>(
        &self,
        read: impl Future<Output = Result<T, ReadError>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Result<T, ReadError> {
        let clock = &self.shared.clock;
        let meters = &self.shared.meters;
        let before = clock.monotonic();
        let done = read.await;
        match &done {
            Ok(done) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                meters.reads.increment(1);
                meters.read_bytes.increment(bytes(done) as u64);
            }
            Err(ReadError::Corrupt { offset, reason, .. }) => {
                meters.corrupt.increment(1);
                tracing::error!(volume = %self.id, offset, reason, "a needle is damaged");
            }
            Err(error) => tracing::warn!(volume = %self.id, %error, "a read failed"),
        }
        meters.read_seconds.record(clock.monotonic().saturating_sub(before));
        done
    }

    async fn fetch(
        self: &Arc<Self>,
        slot: Slot,
        key: NeedleKey,
        cookie: Cookie,
        permits: &Arc<Semaphore>,
    ) -> Result<Needle, ReadError> {
        let len = slot.length as usize + DATA_OVERHEAD_BYTES;
        if len <= INLINE_BYTES_MAX {
            let mut record = vec![0; len];
            let cached = self.data.try_read_cached(&mut record, slot.offset);
            let cached = cached.map_err(|source| self.read_failed(slot, source))?;
            if cached == Some(len) {
                self.shared.meters.reads_cached.increment(1);
                return self.check(record, slot, key, cookie);
            }
        }
        let volume = self.clone();
        self.blocking(permits, move || {
            let mut record = vec![0; len];
            read_exact_at(volume.data.as_ref(), &mut record, slot.offset)
                .map_err(|source| volume.read_failed(slot, source))?;
            volume.check(record, slot, key, cookie)
        })
        .await
    }

    pub(super) fn read_failed(&self, slot: Slot, source: io::Error) -> ReadError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt(slot, "the file ends inside the record".to_owned()),
            _ => ReadError::Io { volume: self.id, offset: slot.offset, source },
        }
    }

    pub(super) fn corrupt(&self, slot: Slot, reason: String) -> ReadError {
        ReadError::Corrupt { volume: self.id, offset: slot.offset, reason }
    }

    fn check(
        &self,
        record: Vec<u8>,
        slot: Slot,
        key: NeedleKey,
        cookie: Cookie,
    ) -> Result<Needle, ReadError> {
        // The index holds whole keys, so another record there is damage too, and not absence.
        let header = check_needle(&record, self.seeds, slot.offset, key, cookie)
            .map_err(|error| self.corrupt(slot, error.to_string()))?;
        if header.length != slot.length {
            return Err(self.corrupt(slot, "its length is not that of the index".to_owned()));
        }
        let data = Bytes::from(record).slice(HEADER_BYTES..HEADER_BYTES + header.length as usize);
        Ok(Needle { codec: header.codec, data })
    }
}
