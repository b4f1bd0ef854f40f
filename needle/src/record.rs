//! Records: what stands in a volume file after its superblock, each at a multiple of 8 bytes.
//!
//! Every record begins with 32 bytes whose last four are the header's checksum, CRC32C seeded by
//! [`Seeds`](crate::Seeds) over the 28 before it. The kind stands in the flags.
//!
//! ```text
//! needle, kind 1 (tombstone, kind 2: the header alone, length 0)
//! 0       2       4        8     24       28         32
//! | magic | flags | cookie | key | length | checksum | data ... | data CRC (4) | zeros to a multiple of 8 |
//!
//! batch, kind 3: in front of the records of one group-committed write
//! 0       2       4         8        16      20      28
//! | magic | flags | records | synced | bytes | zeros | checksum |
//!
//! flags: bits 0-3 kind, bits 4-11 codec (needles), bits 12-15 zero
//! ```
//!
//! The data's CRC32C goes on from the header's checksum, so it covers volume, offset, key, cookie and length too.
//! A needle costs 36 bytes and 3.5 of padding on average. Kind 4 is kept for age markers.

use hay_common::ids::{Cookie, NeedleKey};
use hay_common::limits::NEEDLE_BYTES_MAX;

use crate::codec::{Fields, all_zero};
use crate::{ALIGN_BYTES, SUPERBLOCK_BYTES, Seeds};

/// Bytes of every header.
pub const HEADER_BYTES: usize = 32;
/// Bytes that a needle's record has beyond its data, padding apart.
pub const DATA_OVERHEAD_BYTES: usize = HEADER_BYTES + 4;
/// The largest codec number that a record can hold.
pub const CODEC_MAX: u16 = u8::MAX as u16;

/// 'H', and the version of the record format.
const MAGIC: u8 = b'H';
const VERSION: u8 = 1;

const KIND_NEEDLE: u16 = 1;
const KIND_TOMBSTONE: u16 = 2;
const KIND_BATCH: u16 = 3;

const _: () =
    assert!(HEADER_BYTES.is_multiple_of(ALIGN_BYTES) && SUPERBLOCK_BYTES.is_multiple_of(ALIGN_BYTES));
// At most 40 bytes a needle on average: 36 and a padding of 0 to 7.
const _: () = assert!(2 * DATA_OVERHEAD_BYTES + ALIGN_BYTES - 1 <= 2 * 40);

/// Bytes of the whole record of a needle of `length` bytes of data.
pub fn padded_len(length: u32) -> u64 {
    (u64::from(length) + DATA_OVERHEAD_BYTES as u64).next_multiple_of(ALIGN_BYTES as u64)
}

/// The header of a needle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedleHeader {
    /// First half of its identity.
    pub key: NeedleKey,
    /// Second half.
    pub cookie: Cookie,
    /// How the data relate to the content; opaque here. At most [`CODEC_MAX`].
    pub codec: u8,
    /// Bytes of data.
    pub length: u32,
}

/// The record in front of one group-committed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// All bytes of the file below this were on disk before the batch was written: damage there is no torn write.
    pub synced: u64,
    /// Records that follow and belong to it.
    pub records: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// The first 32 bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Data follow.
    Needle(NeedleHeader),
    /// The needle of that identity is deleted.
    Tombstone {
        /// First half of the identity.
        key: NeedleKey,
        /// Second half.
        cookie: Cookie,
    },
    /// A batch begins.
    Batch(Batch),
}

/// Why 32 bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Nothing was written there.
    #[error("nothing but zeros")]
    Zeros,
    /// Other bytes than a record begins with.
    #[error("no record begins there")]
    Magic,
    /// The checksum does not fit.
    #[error("the header's checksum does not match")]
    Checksum,
    /// Whole, but a version or kind that this program does not know.
    #[error("record version {version}, flags {flags:#06x} are unknown to this program")]
    Unknown {
        /// Version byte.
        version: u8,
        /// Flags.
        flags: u16,
    },
    /// Whole, but with values that no writer gives.
    #[error("the header's fields contradict one another")]
    Fields,
}

impl Header {
    /// Bytes of the whole record.
    pub fn record_len(&self) -> u64 {
        match self {
            Self::Needle(needle) => padded_len(needle.length),
            Self::Tombstone { .. } | Self::Batch(_) => HEADER_BYTES as u64,
        }
    }

    /// As it stands at `offset`.
    pub fn encode(&self, seeds: Seeds, offset: u64) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&[MAGIC, VERSION]);
        match self {
            Self::Needle(needle) => {
                let flags = KIND_NEEDLE | u16::from(needle.codec) << 4;
                out.extend_from_slice(&flags.to_le_bytes());
                identity(&mut out, needle.key, needle.cookie, needle.length);
            }
            Self::Tombstone { key, cookie } => {
                out.extend_from_slice(&KIND_TOMBSTONE.to_le_bytes());
                identity(&mut out, *key, *cookie, 0);
            }
            Self::Batch(batch) => {
                out.extend_from_slice(&KIND_BATCH.to_le_bytes());
                out.extend_from_slice(&batch.records.to_le_bytes());
                out.extend_from_slice(&batch.synced.to_le_bytes());
                out.extend_from_slice(&batch.bytes.to_le_bytes());
                out.extend_from_slice(&[0; 8]);
            }
        }
        let checksum = crc32c::crc32c_append(seeds.at(offset), &out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.first_chunk().copied().unwrap_or([0; HEADER_BYTES])
    }

    /// Reads the header at `offset`; also gives its checksum, from which the data's goes on.
    ///
    /// # Errors
    /// Never-written space, foreign bytes, damage and unknown versions are told apart.
    pub fn decode(bytes: &[u8; HEADER_BYTES], seeds: Seeds, offset: u64) -> Result<(Self, u32), HeaderError> {
        let mut fields = Fields(bytes);
        match fields.u8() {
            Some(MAGIC) => {}
            _ if all_zero(bytes) => return Err(HeaderError::Zeros),
            _ => return Err(HeaderError::Magic),
        }
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(HeaderError::Fields)?;
        let checksum = u32::from_le_bytes(*checksum);
        if crc32c::crc32c_append(seeds.at(offset), body) != checksum {
            return Err(HeaderError::Checksum);
        }
        let header = Self::fields(fields, offset).unwrap_or(Err(HeaderError::Fields))?;
        Ok((header, checksum))
    }

    fn fields(mut fields: Fields<'_>, offset: u64) -> Option<Result<Self, HeaderError>> {
        let version = fields.u8()?;
        let flags = fields.u16()?;
        let unknown = Some(Err(HeaderError::Unknown { version, flags }));
        if version != VERSION {
            return unknown;
        }
        let codec = u8::try_from(flags >> 4).ok();
        match (flags & 0xf, codec) {
            (KIND_NEEDLE, Some(codec)) => {
                let (cookie, key, length) =
                    (Cookie(fields.u32()?), NeedleKey(fields.u128_be()?), fields.u32()?);
                let fits = length as usize <= NEEDLE_BYTES_MAX;
                Some(
                    fits.then_some(Self::Needle(NeedleHeader { key, cookie, codec, length }))
                        .ok_or(HeaderError::Fields),
                )
            }
            (KIND_TOMBSTONE, Some(0)) => {
                let (cookie, key, length) =
                    (Cookie(fields.u32()?), NeedleKey(fields.u128_be()?), fields.u32()?);
                Some((length == 0).then_some(Self::Tombstone { key, cookie }).ok_or(HeaderError::Fields))
            }
            (KIND_BATCH, Some(0)) => {
                let batch = Batch { records: fields.u32()?, synced: fields.u64()?, bytes: fields.u32()? };
                let fits =
                    fields.u64()? == 0 && batch.synced <= offset && batch.synced >= SUPERBLOCK_BYTES as u64;
                Some(fits.then_some(Self::Batch(batch)).ok_or(HeaderError::Fields))
            }
            _ => unknown,
        }
    }
}

fn identity(out: &mut Vec<u8>, key: NeedleKey, cookie: Cookie, length: u32) {
    out.extend_from_slice(&cookie.0.to_le_bytes());
    out.extend_from_slice(&key.0.to_be_bytes());
    out.extend_from_slice(&length.to_le_bytes());
}

/// What follows a needle's data: their checksum and the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    bytes: [u8; 4 + ALIGN_BYTES - 1],
    len: usize,
}

impl Trailer {
    /// For the data in `parts` after the encoded `header`.
    pub fn over<'a>(header: &[u8; HEADER_BYTES], length: u32, parts: impl Iterator<Item = &'a [u8]>) -> Self {
        Self::with(length, parts.fold(stored_checksum(header), crc32c::crc32c_append))
    }

    /// For data whose plain CRC32C is known: combined with the header's checksum, so that whoever holds the data may
    /// sum them before the offset is. Costs as much as summing some 64 KiB.
    pub fn combined(header: &[u8; HEADER_BYTES], length: u32, data_crc: u32) -> Self {
        Self::with(length, crc32c::crc32c_combine(stored_checksum(header), data_crc, length as usize))
    }

    fn with(length: u32, crc: u32) -> Self {
        let mut bytes = [0; 4 + ALIGN_BYTES - 1];
        for (to, from) in bytes.iter_mut().zip(crc.to_le_bytes()) {
            *to = from;
        }
        Self { bytes, len: (padded_len(length) - HEADER_BYTES as u64 - u64::from(length)) as usize }
    }

    /// As it stands on disk, 4 to 11 bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

fn stored_checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    header.last_chunk::<4>().map_or(0, |c| u32::from_le_bytes(*c))
}

/// Why the bytes read for a needle are not that needle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NeedleError {
    /// The header can't be used.
    #[error("{0}")]
    Header(HeaderError),
    /// A whole record, but of something else.
    #[error("another record stands there")]
    Other,
    /// Shorter than the header says.
    #[error("the record is cut short")]
    Short,
    /// The data's checksum does not fit.
    #[error("the data's checksum does not match")]
    Data,
}

/// Checks a needle's record, read from `offset` (padding may be left out): every checksum, and that it is the one asked
/// for. Its data are `record[HEADER_BYTES..HEADER_BYTES + length]`.
///
/// # Errors
/// Damage, and a record of another identity, are told apart.
pub fn check_needle(
    record: &[u8],
    seeds: Seeds,
    offset: u64,
    key: NeedleKey,
    cookie: Cookie,
) -> Result<NeedleHeader, NeedleError> {
    let (head, rest) = record.split_first_chunk::<HEADER_BYTES>().ok_or(NeedleError::Short)?;
    let (header, checksum) = Header::decode(head, seeds, offset).map_err(NeedleError::Header)?;
    let Header::Needle(needle) = header else { return Err(NeedleError::Other) };
    if needle.key != key || needle.cookie != cookie {
        return Err(NeedleError::Other);
    }
    match data_fits(rest, needle.length, checksum) {
        Some(true) => Ok(needle),
        Some(false) => Err(NeedleError::Data),
        None => Err(NeedleError::Short),
    }
}

/// Whether `rest` (what follows the header) begins with data and their checksum; `None` where it is too short.
pub(crate) fn data_fits(rest: &[u8], length: u32, checksum: u32) -> Option<bool> {
    let (data, rest) = rest.split_at_checked(length as usize)?;
    let crc = rest.first_chunk::<4>()?;
    Some(crc32c::crc32c_append(checksum, data) == u32::from_le_bytes(*crc))
}
