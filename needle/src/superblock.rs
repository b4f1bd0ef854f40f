//! The first 4 KiB of a volume file. Written once, when the file is made; what changes later stands in the state file.

use hay_common::ids::{ClusterId, Epoch, Incarnation, VolumeId};
use hay_common::model::SizeClass;

use crate::Seeds;
use crate::codec::{Fields, all_zero, checked, push_crc};

/// Bytes of the superblock; the first record begins here.
pub const SUPERBLOCK_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"HAYVOLUM";
const VERSION: u16 = 1;

/// What a volume file says of itself.
///
/// ```text
/// 0        8         10      11     12       16        32            48      56          4092
/// | magic  | version | class | zero | volume | cluster | incarnation | epoch | zeros ... | CRC32C |
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Whose it is.
    pub cluster: ClusterId,
    /// Which volume.
    pub volume: VolumeId,
    /// Random: this writing of the volume.
    pub incarnation: Incarnation,
    /// The epoch it was made in; a higher one may stand in the state file.
    pub epoch: Epoch,
    /// Which contents it takes.
    pub class: SizeClass,
}

/// Why 4 KiB are no superblock of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Too short, or another kind of file.
    #[error("it is not a Haystore volume")]
    NotAVolume,
    /// Whole, but of a version that this program does not know.
    #[error("its format version is {0}, this program knows version {VERSION} only")]
    Version(u16),
    /// The checksum does not fit.
    #[error("its superblock is damaged")]
    Damaged,
}

impl Superblock {
    /// As it stands on disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(match self.class {
            SizeClass::Small => 1,
            SizeClass::Large => 2,
        });
        out.push(0);
        out.extend_from_slice(&self.volume.0.to_le_bytes());
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.resize(SUPERBLOCK_BYTES - 4, 0);
        push_crc(&mut out);
        out
    }

    /// Reads the first [`SUPERBLOCK_BYTES`] of a file.
    ///
    /// # Errors
    /// Another kind of file, another version, and damage are told apart.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let mut fields = Fields(bytes);
        if fields.array::<8>() != Some(MAGIC) {
            return Err(SuperblockError::NotAVolume);
        }
        let block = bytes.get(..SUPERBLOCK_BYTES).ok_or(SuperblockError::Damaged)?;
        let body = checked(block).ok_or(SuperblockError::Damaged)?;
        Self::fields(Fields(body)).unwrap_or(Err(SuperblockError::Damaged))
    }

    fn fields(mut fields: Fields<'_>) -> Option<Result<Self, SuperblockError>> {
        fields.array::<8>()?;
        let version = fields.u16()?;
        if version != VERSION {
            return Some(Err(SuperblockError::Version(version)));
        }
        let class = match fields.u8()? {
            1 => SizeClass::Small,
            2 => SizeClass::Large,
            _ => return None,
        };
        let zero = fields.u8()?;
        let volume = VolumeId(fields.u32()?);
        let cluster = ClusterId::from_slice(fields.bytes(16)?)?;
        let incarnation = Incarnation::from_slice(fields.bytes(16)?)?;
        let epoch = Epoch(fields.u64()?);
        if zero != 0 || !all_zero(fields.0) {
            return None;
        }
        Some(Ok(Self { cluster, volume, incarnation, epoch, class }))
    }

    /// The seeds of the file's checksums.
    pub fn seeds(&self) -> Seeds {
        Seeds::new(self.volume, self.incarnation)
    }
}
