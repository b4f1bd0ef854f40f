//! What changes about a volume while its data file only grows: a small file beside it, replaced atomically.

use hay_common::ids::{Epoch, Incarnation, NodeId, VolumeId};

use crate::codec::{Fields, checked, push_crc};

const MAGIC: [u8; 8] = *b"HAYSTATE";
const VERSION: u16 = 2;
/// Without members: of a volume that only one server has.
const VERSION_SOLE: u16 = 1;
/// Servers of one volume.
const MEMBERS_MAX: usize = 16;
/// A reason is cut to this many bytes.
const REASON_BYTES_MAX: usize = 1024;

/// The state file of a volume.
///
/// ```text
/// 0       8         10    11      12       16            32      40       48          48 + 16 n
/// | magic | version | set | count | volume | incarnation | epoch | sealed | members ... | reason (UTF-8) ... | CRC32C |
/// set: bit 0 sealed, bit 1 there is a reason, bit 2 incomplete, bit 3 filling; count: n members, 16 bytes each;
/// sealed: 0, or the synced length it was sealed at. Version 1 is the same
/// with n = 0 and bit 3 clear; it is still written where it suffices.
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
    /// It is being copied here: what it does not hold may be at its sources.
    pub filling: bool,
    /// The servers that hold the volume, the primary first. Empty, or this server alone: nobody else must have an append.
    pub members: Vec<NodeId>,
}

/// Why a state file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another kind of file.
    #[error("it is not a state file of a volume")]
    NotAState,
    /// A version that this program does not know.
    #[error("its format version is {0}, this program knows versions up to {VERSION}")]
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
        let mut out = Vec::with_capacity(64 + 16 * self.members.len() + cut);
        out.extend_from_slice(&MAGIC);
        let is_sole = self.members.is_empty() && !self.filling;
        out.extend_from_slice(&if is_sole { VERSION_SOLE } else { VERSION }.to_le_bytes());
        out.push(
            u8::from(self.sealed.is_some())
                | u8::from(self.read_only.is_some()) << 1
                | u8::from(self.incomplete) << 2
                | u8::from(self.filling) << 3,
        );
        let members = self.members.get(..MEMBERS_MAX).unwrap_or(&self.members);
        out.push(members.len() as u8);
        out.extend_from_slice(&self.volume.0.to_le_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.sealed.unwrap_or(0).to_le_bytes());
        members.iter().for_each(|node| out.extend_from_slice(node.as_bytes()));
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
        if version != VERSION && version != VERSION_SOLE {
            return Some(Err(StateError::Version(version)));
        }
        let (set, count) = (fields.u8()?, usize::from(fields.u8()?));
        let volume = VolumeId(fields.u32()?);
        let incarnation = Incarnation::from_slice(fields.bytes(16)?)?;
        let epoch = Epoch(fields.u64()?);
        let length = fields.u64()?;
        let members: Option<Vec<NodeId>> =
            (0..count).map(|_| NodeId::from_slice(fields.bytes(16)?)).collect();
        let members = members?;
        let reason = std::str::from_utf8(fields.0).ok()?;
        let (is_sealed, has_reason) = (set & 1 != 0, set & 2 != 0);
        let is_sole = version == VERSION_SOLE;
        let fits = set < if is_sole { 8 } else { 16 }
            && count <= if is_sole { 0 } else { MEMBERS_MAX }
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
                filling: set & 8 != 0,
                members,
            })
        })
    }
}
