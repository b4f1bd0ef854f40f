//! Reading a needle: one look into the index, one read of the disk, every checksum, key and cookie compared.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hay_common::disk::read_exact_at;
use hay_common::ids::{Cookie, NeedleKey};
use hay_needle::{DATA_OVERHEAD_BYTES, HEADER_BYTES, Slot, check_needle};
use tokio::sync::Semaphore;

use super::error::ReadError;
use super::parts::NeedleParts;
use super::volume::Volume;

/// A needle's data, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    /// As it was given at the append.
    pub codec: u8,
    /// All of it.
    pub data: Bytes,
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
        self.content.read().index.get(key, cookie).ok_or(ReadError::Absent(self.id))
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
        let mut record = vec![0; slot.length as usize + DATA_OVERHEAD_BYTES];
        if record.len() <= INLINE_BYTES_MAX {
            let cached = self.data.try_read_cached(&mut record, slot.offset);
            let cached = cached.map_err(|source| self.read_failed(slot, source))?;
            if cached == Some(record.len()) {
                self.shared.meters.reads_cached.increment(1);
                return self.check(record, slot, key, cookie);
            }
        }
        let permit = permits.clone().acquire_owned().await.map_err(|_| ReadError::Closing)?;
        let volume = self.clone();
        let blocking = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by a caller who may go.
            let _permit = permit;
            read_exact_at(volume.data.as_ref(), &mut record, slot.offset)
                .map_err(|source| volume.read_failed(slot, source))?;
            volume.check(record, slot, key, cookie)
        });
        blocking.await.map_err(|_| ReadError::Closing)?
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
