//! What changes about a volume while its data file only grows: a small file beside it, replaced atomically.

use hay_common::ids::{Epoch, Incarnation, VolumeId};

use crate::codec::{Fields, checked, push_crc};

const MAGIC: [u8; 8] = *b"HAYSTATE";
const VERSION: u16 = 1;
/// A reason is cut to this many bytes.
const REASON_BYTES_MAX: usize = 1024;

/// The state file of a volume.
///
/// ```text
/// 0       8         10    11    12       16            32      40       48
/// | magic | version | set | zero | volume | incarnation | epoch | sealed | reason (UTF-8) ... | CRC32C |
/// set: bit 0 sealed, bit 1 there is a reason, bit 2 incomplete; sealed: 0, or the synced length it was sealed at
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Which volume.
    pub volume: VolumeId,
    /// Which writing of it.
    pub incarnation: Incarnation,
    /// The highest epoch seen: lower ones are refused.
    pub epoch: Epoch,
    /// Where it takes no more appends: the length it was sealed at, all of it on disk.
    pub sealed: Option<u64>,
    /// Why it is read-only on this server until it is rebuilt, where it is.
    pub read_only: Option<String>,
    /// Records of it can't be read, or were cut off as a torn write: a needle that it does not know may have been one of
    /// them, and must not be called absent. Never taken back.
    pub incomplete: bool,
}

/// Why a state file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another kind of file.
    #[error("it is not a state file of a volume")]
    NotAState,
    /// A version that this program does not know.
    #[error("its format version is {0}, this program knows version {VERSION} only")]
    Version(u16),
    /// The checksum, or a field, does not fit.
    #[error("it is damaged")]
    Damaged,
}

impl State {
    /// As it stands on disk. A reason beyond 1 KiB is cut.
    pub fn encode(&self) -> Vec<u8> {
        let reason = self.read_only.as_deref().unwrap_or_default();
        let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
        let mut out = Vec::with_capacity(64 + cut);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(
            u8::from(self.sealed.is_some())
                | u8::from(self.read_only.is_some()) << 1
                | u8::from(self.incomplete) << 2,
        );
        out.push(0);
        out.extend_from_slice(&self.volume.0.to_le_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.sealed.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(reason.get(..cut).unwrap_or_default().as_bytes());
        push_crc(&mut out);
        out
    }

    /// Reads a whole state file.
    ///
    /// # Errors
    /// Another kind of file, another version, and damage are told apart.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.first_chunk() != Some(&MAGIC) {
            return Err(StateError::NotAState);
        }
        let body = checked(bytes).ok_or(StateError::Damaged)?;
        Self::fields(Fields(body)).unwrap_or(Err(StateError::Damaged))
    }

    fn fields(mut fields: Fields<'_>) -> Option<Result<Self, StateError>> {
        fields.array::<8>()?;
        let version = fields.u16()?;
        if version != VERSION {
            return Some(Err(StateError::Version(version)));
        }
        let (set, zero) = (fields.u8()?, fields.u8()?);
        let volume = VolumeId(fields.u32()?);
        let incarnation = Incarnation::from_slice(fields.bytes(16)?)?;
        let epoch = Epoch(fields.u64()?);
        let length = fields.u64()?;
        let reason = std::str::from_utf8(fields.0).ok()?;
        let (is_sealed, has_reason) = (set & 1 != 0, set & 2 != 0);
        let fits = set < 8
            && zero == 0
            && (is_sealed || length == 0)
            && (has_reason || reason.is_empty())
            && reason.len() <= REASON_BYTES_MAX;
        fits.then(|| {
            Ok(Self {
                volume,
                incarnation,
                epoch,
                sealed: is_sealed.then_some(length),
                read_only: has_reason.then(|| reason.to_owned()),
                incomplete: set & 4 != 0,
            })
        })
    }
}
