//! A large needle in parts, for readers that may stall: verified as a whole first, then read again part by part, each
//! against the sum it had then. So a stalled reader holds one part, not the needle.

use std::sync::Arc;

use bytes::Bytes;
use hay_common::disk::read_exact_at;
use hay_common::ids::{Cookie, NeedleKey};
use hay_common::limits::RPC_BULK_PART_BYTES;
use hay_needle::{HEADER_BYTES, Header, Slot};
use tokio::sync::Semaphore;

use super::error::ReadError;
use super::volume::Volume;

/// A verified needle whose data are still on disk.
pub struct NeedleParts {
    volume: Arc<Volume>,
    slot: Slot,
    /// CRC32C of each part.
    sums: Vec<u32>,
    permits: Arc<Semaphore>,
}

impl NeedleParts {
    /// Verifies the needle at `slot`. Bytes in memory at once: one part.
    pub(crate) async fn verify(
        volume: Arc<Volume>,
        slot: Slot,
        key: NeedleKey,
        cookie: Cookie,
        permits: Arc<Semaphore>,
    ) -> Result<Self, ReadError> {
        let own = volume.clone();
        let sums = blocking(&permits, move || sums(&own, slot, key, cookie)).await?;
        Ok(Self { volume, slot, sums, permits })
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
        let part = offset as usize / RPC_BULK_PART_BYTES;
        let start = part * RPC_BULK_PART_BYTES;
        let len = (self.slot.length as usize - start).min(RPC_BULK_PART_BYTES);
        let (volume, slot) = (self.volume.clone(), self.slot);
        let sum = self.sums.get(part).copied();
        let data = blocking(&self.permits, move || {
            let mut data = vec![0; len];
            fill(&volume, slot, &mut data, (HEADER_BYTES + start) as u64)?;
            match sum == Some(crc32c::crc32c(&data)) {
                true => Ok(Bytes::from(data)),
                false => Err(volume.corrupt(slot, "its data changed while they were read".to_owned())),
            }
        });
        let data = data.await?;
        Ok(data.slice(offset as usize - start..len.min(end as usize - start)))
    }
}

async fn blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let permit = permits.clone().acquire_owned().await.map_err(|_| ReadError::Closing)?;
    let done = tokio::task::spawn_blocking(move || {
        // Held by the thread, not by a caller who may go.
        let _permit = permit;
        work()
    });
    done.await.map_err(|_| ReadError::Closing)?
}

fn fill(volume: &Volume, slot: Slot, buf: &mut [u8], at: u64) -> Result<(), ReadError> {
    read_exact_at(volume.data.as_ref(), buf, slot.offset + at)
        .map_err(|source| volume.read_failed(slot, source))
}

fn sums(volume: &Volume, slot: Slot, key: NeedleKey, cookie: Cookie) -> Result<Vec<u32>, ReadError> {
    let corrupt = |reason: &str| volume.corrupt(slot, reason.to_owned());
    let mut head = [0; HEADER_BYTES];
    fill(volume, slot, &mut head, 0)?;
    let (header, checksum) =
        Header::decode(&head, volume.seeds, slot.offset).map_err(|error| corrupt(&error.to_string()))?;
    match header {
        Header::Needle(n) if n.key == key && n.cookie == cookie && n.length == slot.length => {}
        _ => return Err(corrupt("another record stands there")),
    }
    let mut whole = checksum;
    let mut sums = Vec::with_capacity(slot.length as usize / RPC_BULK_PART_BYTES + 1);
    let mut part = vec![0; RPC_BULK_PART_BYTES.min(slot.length as usize)];
    let mut done = 0;
    while done < slot.length as usize {
        let len = part.len().min(slot.length as usize - done);
        let bytes = part.get_mut(..len).unwrap_or_default();
        fill(volume, slot, bytes, (HEADER_BYTES + done) as u64)?;
        whole = crc32c::crc32c_append(whole, bytes);
        sums.push(crc32c::crc32c(bytes));
        done += len;
    }
    let mut stored = [0; 4];
    fill(volume, slot, &mut stored, (HEADER_BYTES + done) as u64)?;
    if u32::from_le_bytes(stored) != whole {
        return Err(corrupt("the data's checksum does not match"));
    }
    Ok(sums)
}
