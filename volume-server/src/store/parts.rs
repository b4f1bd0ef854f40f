//! Needles that are verified without being in memory as a whole: swept in pieces, and a range of them kept, or their sums,
//! against which the parts are checked when they are read again. So a reader that stalls holds one part, not the needle.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hay_common::disk::read_exact_at;
use hay_common::ids::{Cookie, NeedleKey};
use hay_common::limits::{READ_STREAM_PART_BYTES, READ_SWEEP_BYTES};
use hay_common::work;
use hay_needle::{HEADER_BYTES, Header, NeedleHeader, Slot};
use tokio::sync::Semaphore;

use super::error::ReadError;
use super::volume::Volume;

const _: () = assert!(READ_SWEEP_BYTES.is_multiple_of(READ_STREAM_PART_BYTES));

/// A verified needle whose data are still on disk.
pub struct NeedleParts {
    volume: Arc<Volume>,
    slot: Slot,
    codec: u8,
    /// CRC32C of each part.
    sums: Vec<u32>,
    permits: Arc<Semaphore>,
}

impl NeedleParts {
    /// Verifies the needle at `slot`, in pieces.
    pub(crate) async fn verify(
        volume: Arc<Volume>,
        slot: Slot,
        key: NeedleKey,
        cookie: Cookie,
        permits: Arc<Semaphore>,
    ) -> Result<Self, ReadError> {
        let own = volume.clone();
        let sums = volume.blocking(&permits, move || {
            let mut sums = Vec::with_capacity(slot.length as usize / READ_STREAM_PART_BYTES + 1);
            let header = sweep(&own, slot, key, cookie, |_, piece| {
                sums.extend(piece.chunks(READ_STREAM_PART_BYTES).map(crc32c::crc32c));
            })?;
            Ok((header.codec, sums))
        });
        let (codec, sums) = sums.await?;
        Ok(Self { volume, slot, codec, sums, permits })
    }

    /// As it was given at the append.
    pub fn codec(&self) -> u8 {
        self.codec
    }

    /// Bytes of data.
    pub fn length(&self) -> u32 {
        self.slot.length
    }

    /// The bytes from `offset` to the end of their part, or to `end`.
    ///
    /// # Errors
    /// `Corrupt` where the part is not any more what was verified; I/O.
    pub async fn read(&self, offset: u32, end: u32) -> Result<Bytes, ReadError> {
        let part = offset as usize / READ_STREAM_PART_BYTES;
        let start = part * READ_STREAM_PART_BYTES;
        let len = (self.slot.length as usize - start).min(READ_STREAM_PART_BYTES);
        let (slot, sum) = (self.slot, self.sums.get(part).copied());
        let data = match self.cached(start, len)? {
            Some(data) => data,
            None => {
                let volume = self.volume.clone();
                let read = move || {
                    let mut data = vec![0; len];
                    fill(&volume, slot, &mut data, (HEADER_BYTES + start) as u64)?;
                    Ok(data)
                };
                self.volume.blocking(&self.permits, read).await?
            }
        };
        if sum != Some(crc32c::crc32c(&data)) {
            return Err(self.volume.corrupt(slot, "its data changed while they were read".to_owned()));
        }
        Ok(Bytes::from(data).slice(offset as usize - start..len.min(end as usize - start)))
    }

    /// A part, where it needs no waiting: what was just verified is in memory mostly.
    fn cached(&self, start: usize, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let mut data = vec![0; len];
        let at = self.slot.offset + (HEADER_BYTES + start) as u64;
        let read = self.volume.data.try_read_cached(&mut data, at);
        let read = read.map_err(|source| self.volume.read_failed(self.slot, source))?;
        Ok((read == Some(len)).then_some(data))
    }
}

/// A range of the data of a needle, all of which is verified: codec and bytes. In memory at once: the range and one piece.
pub(super) async fn range(
    volume: &Arc<Volume>,
    slot: Slot,
    (key, cookie): (NeedleKey, Cookie),
    range: Range<usize>,
    permits: &Arc<Semaphore>,
) -> Result<(u8, Bytes), ReadError> {
    let own = volume.clone();
    let sweeping = volume.blocking(permits, move || {
        let mut kept = Vec::with_capacity(range.len());
        let header = sweep(&own, slot, key, cookie, |at, piece| {
            let from = range.start.saturating_sub(at).min(piece.len());
            let to = range.end.saturating_sub(at).min(piece.len());
            kept.extend_from_slice(piece.get(from..to).unwrap_or_default());
        })?;
        Ok((header.codec, Bytes::from(kept)))
    });
    sweeping.await
}

impl Volume {
    /// Runs `work` where it may block. What it needs memory for it makes itself: whoever waits for a thread holds none.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = permits.clone().acquire_owned().await.map_err(|_| ReadError::Closing)?;
        let done = work::blocking(self.shared.disk.as_ref(), move || {
            // Held by the work, not by a caller who may go.
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| ReadError::Closing)?
    }
}

fn fill(volume: &Volume, slot: Slot, buf: &mut [u8], at: u64) -> Result<(), ReadError> {
    read_exact_at(volume.data.as_ref(), buf, slot.offset + at)
        .map_err(|source| volume.read_failed(slot, source))
}

/// Reads and verifies a needle in pieces; `each` gets every piece and where in the data it begins, before the verdict.
fn sweep(
    volume: &Volume,
    slot: Slot,
    key: NeedleKey,
    cookie: Cookie,
    mut each: impl FnMut(usize, &[u8]),
) -> Result<NeedleHeader, ReadError> {
    let corrupt = |reason: &str| volume.corrupt(slot, reason.to_owned());
    let mut head = [0; HEADER_BYTES];
    fill(volume, slot, &mut head, 0)?;
    let (header, checksum) =
        Header::decode(&head, volume.seeds, slot.offset).map_err(|error| corrupt(&error.to_string()))?;
    let needle = match header {
        Header::Needle(n) if n.key == key && n.cookie == cookie && n.length == slot.length => n,
        _ => return Err(corrupt("another record stands there")),
    };
    let mut whole = checksum;
    let mut piece = vec![0; READ_SWEEP_BYTES.min(slot.length as usize)];
    let mut done = 0;
    while done < slot.length as usize {
        let len = piece.len().min(slot.length as usize - done);
        let bytes = piece.get_mut(..len).unwrap_or_default();
        fill(volume, slot, bytes, (HEADER_BYTES + done) as u64)?;
        whole = crc32c::crc32c_append(whole, bytes);
        each(done, bytes);
        done += len;
    }
    let mut stored = [0; 4];
    fill(volume, slot, &mut stored, (HEADER_BYTES + done) as u64)?;
    if u32::from_le_bytes(stored) != whole {
        return Err(corrupt("the data's checksum does not match"));
    }
    Ok(needle)
}
