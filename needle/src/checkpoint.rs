//! The index of a volume as of one length of its file, so that opening replays only what came after.

use hay_common::ids::{Cookie, Incarnation, NeedleKey, VolumeId};

use crate::codec::{Fields, checked, push_crc};
use crate::{ALIGN_BYTES, Index, SUPERBLOCK_BYTES, Slot};

const MAGIC: [u8; 8] = *b"HAYCHKPT";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 48;
const ENTRY_BYTES: usize = 28;

/// What a checkpoint is of.
///
/// ```text
/// 0       8         10     12       16            32        40      48
/// | magic | version | zero | volume | incarnation | covered | count | entries ... | CRC32C of all before |
/// entry:  | key (16, big endian) | cookie (4) | offset / 8 (4) | length (4) |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which volume.
    pub volume: VolumeId,
    /// Which writing of it: the checkpoint of another file is useless, not wrong.
    pub incarnation: Incarnation,
    /// All records below this length of the file are in it, and were on disk before it was published.
    pub covered: u64,
}

/// Why a checkpoint can't be used. The data file stands for itself: it is replayed from its start then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Another kind of file.
    #[error("it is not a checkpoint")]
    NotACheckpoint,
    /// A version that this program does not know.
    #[error("its format version is {0}, this program knows version {VERSION} only")]
    Version(u16),
    /// The checksum, or a field, does not fit.
    #[error("it is damaged")]
    Damaged,
    /// Of another volume, or another writing of it.
    #[error("it belongs to another writing of the volume")]
    Foreign,
}

impl Checkpoint {
    /// As it stands on disk, with the needles of `index`.
    pub fn encode(&self, index: &Index) -> Vec<u8> {
        let mut encoder = self.encoder(index.len());
        encoder.add(index.iter());
        encoder.finish()
    }

    /// Takes the needles little by little; about `entries` are expected.
    pub fn encoder(&self, entries: usize) -> Encoder {
        let mut out = Vec::with_capacity(HEAD_BYTES + entries * ENTRY_BYTES + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.volume.0.to_le_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.covered.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        Encoder { out, covered: self.covered, count: 0 }
    }

    /// Bytes of a checkpoint of so many needles.
    pub fn len_of(entries: usize) -> u64 {
        (HEAD_BYTES + entries * ENTRY_BYTES + 4) as u64
    }

    /// Reads a checkpoint that must be of `volume` and `incarnation`.
    ///
    /// # Errors
    /// Another kind of file, another version, damage and another file's checkpoint are told apart.
    pub fn decode(
        bytes: &[u8],
        volume: VolumeId,
        incarnation: Incarnation,
    ) -> Result<(Self, Index), CheckpointError> {
        if bytes.first_chunk() != Some(&MAGIC) {
            return Err(CheckpointError::NotACheckpoint);
        }
        let body = checked(bytes).ok_or(CheckpointError::Damaged)?;
        let mut fields = Fields(body);
        let (head, count) = Self::head(&mut fields).unwrap_or(Err(CheckpointError::Damaged))?;
        if head.volume != volume || head.incarnation != incarnation {
            return Err(CheckpointError::Foreign);
        }
        // The checksum has vouched for it; a length that contradicts the count is a fault of the writer's all the same.
        if Some(fields.0.len()) != usize::try_from(count).ok().and_then(|n| n.checked_mul(ENTRY_BYTES)) {
            return Err(CheckpointError::Damaged);
        }
        let index = Self::entries(fields, head.covered).ok_or(CheckpointError::Damaged)?;
        Ok((head, index))
    }

    fn head(fields: &mut Fields<'_>) -> Option<Result<(Self, u64), CheckpointError>> {
        fields.array::<8>()?;
        let version = fields.u16()?;
        if version != VERSION {
            return Some(Err(CheckpointError::Version(version)));
        }
        let zero = fields.u16()?;
        let volume = VolumeId(fields.u32()?);
        let incarnation = Incarnation::from_slice(fields.bytes(16)?)?;
        let covered = fields.u64()?;
        let count = fields.u64()?;
        let fits =
            zero == 0 && covered >= SUPERBLOCK_BYTES as u64 && covered.is_multiple_of(ALIGN_BYTES as u64);
        fits.then_some(Ok((Self { volume, incarnation, covered }, count)))
    }

    fn entries(mut fields: Fields<'_>, covered: u64) -> Option<Index> {
        let mut index = Index::new();
        index.reserve(fields.0.len() / ENTRY_BYTES);
        while !fields.0.is_empty() {
            let (key, cookie) = (NeedleKey(fields.u128_be()?), Cookie(fields.u32()?));
            let (unit, length) = (fields.u32()?, fields.u32()?);
            let slot = Slot { offset: u64::from(unit) * ALIGN_BYTES as u64, length };
            let end = slot.offset + crate::padded_len(length);
            if end > covered || slot.offset < SUPERBLOCK_BYTES as u64 || !index.insert(key, cookie, slot) {
                return None;
            }
        }
        Some(index)
    }
}

/// A checkpoint being put together.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    covered: u64,
    count: u64,
}

impl Encoder {
    /// Takes needles in. Those beyond what the checkpoint covers are left out: they were appended since it began.
    pub fn add(&mut self, needles: impl Iterator<Item = (NeedleKey, Cookie, Slot)>) {
        for (key, cookie, slot) in needles.filter(|(_, _, slot)| slot.offset < self.covered) {
            self.out.extend_from_slice(&key.0.to_be_bytes());
            self.out.extend_from_slice(&cookie.0.to_le_bytes());
            self.out.extend_from_slice(&((slot.offset / ALIGN_BYTES as u64) as u32).to_le_bytes());
            self.out.extend_from_slice(&slot.length.to_le_bytes());
            self.count += 1;
        }
    }

    /// As it stands on disk.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.out.get_mut(HEAD_BYTES - 8..HEAD_BYTES) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        push_crc(&mut self.out);
        self.out
    }
}
