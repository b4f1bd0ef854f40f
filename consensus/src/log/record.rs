//! One record of a segment: a log entry with what is needed to judge it after a crash.
//!
//! ```text
//!  0 magic "HyRl"      4 | 4 format u16 | 6 zero u16
//!  8 generation      u64   of the segment: what an earlier use of the file left never counts
//! 16 index           u64 | 24 term u64 | 32 leader u64
//! 40 synced          u64   bytes of this segment that were durable before the write that brought this record
//! 48 committed       u64   1 + the index known committed then; 0: none
//! 56 length          u32   of the data | 60 CRC32C of the data u32
//! 64 CRC32C of the 64 bytes before u32 | 68 zero u32
//! 72 data, then zeros up to a multiple of 8
//! ```
//! Numbers are little endian.

use hay_common::limits::LOG_RECORD_BYTES_MAX;

/// Bytes before the data.
pub(crate) const HEADER_BYTES: usize = 72;
/// Records begin at multiples of this.
pub(crate) const ALIGN: usize = 8;
const MAGIC: [u8; 4] = *b"HyRl";
const FORMAT: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) generation: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) synced: u64,
    pub(crate) committed: Option<u64>,
    pub(crate) length: u32,
    pub(crate) data_crc: u32,
}

/// What stands at a place where a header might be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A header of this format.
    Header(Header),
    /// A whole header of a format that this program does not know.
    Newer(u16),
    /// Anything else.
    Nothing,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            if let Some(to) = bytes.get_mut(at..at + part.len()) {
                to.copy_from_slice(part);
            }
            at += part.len();
        };
        put(&MAGIC);
        put(&FORMAT.to_le_bytes());
        put(&[0; 2]);
        let committed = self.committed.map_or(0, |index| index.saturating_add(1));
        for number in [self.generation, self.index, self.term, self.leader, self.synced, committed] {
            put(&number.to_le_bytes());
        }
        put(&self.length.to_le_bytes());
        put(&self.data_crc.to_le_bytes());
        let crc = bytes.first_chunk::<64>().map_or(0, |covered| crc32c::crc32c(covered));
        if let Some(to) = bytes.get_mut(64..68) {
            to.copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Looks at the beginning of `bytes`.
    pub(crate) fn find(bytes: &[u8]) -> Found {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Found::Nothing };
        if !bytes.starts_with(&MAGIC) {
            return Found::Nothing;
        }
        let u64_at =
            |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let u32_at =
            |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let covered = bytes.first_chunk::<64>().map_or(0, |covered| crc32c::crc32c(covered));
        if covered != u32_at(64) || u32_at(68) != 0 {
            return Found::Nothing;
        }
        let format = (u32_at(4) & 0xffff) as u16;
        if format != FORMAT {
            return Found::Newer(format);
        }
        let header = Header {
            generation: u64_at(8),
            index: u64_at(16),
            term: u64_at(24),
            leader: u64_at(32),
            synced: u64_at(40),
            committed: u64_at(48).checked_sub(1),
            length: u32_at(56),
            data_crc: u32_at(60),
        };
        if header.length as usize > LOG_RECORD_BYTES_MAX || u32_at(4) >> 16 != 0 {
            return Found::Nothing;
        }
        Found::Header(header)
    }

    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(self.length as usize)
    }

    /// Whether `data` is what was written.
    pub(crate) fn fits(&self, data: &[u8]) -> bool {
        data.len() == self.length as usize && crc32c::crc32c(data) == self.data_crc
    }
}

/// Bytes of a record with `length` bytes of data.
pub(crate) fn record_bytes(length: usize) -> u64 {
    (HEADER_BYTES + length).next_multiple_of(ALIGN) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            generation: 3,
            index: 70_000,
            term: 9,
            leader: 2,
            synced: 4096,
            committed: Some(69_999),
            length: 5,
            data_crc: crc32c::crc32c(b"hello"),
        }
    }

    #[test]
    fn golden_bytes() {
        let text: String = header().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            "4879526c0100000003000000000000007011010000000000090000000000000002000000000000000010000000000000\
             701101000000000005000000\
             4cbb719acd028fea00000000"
        );
        assert_eq!(Header::find(&header().encode()), Found::Header(header()));
    }

    #[test]
    fn every_flipped_bit_hides_the_header() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Header::find(&bad), Found::Header(header()), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(Header::find(&bytes[..cut]), Found::Nothing);
        }
    }

    #[test]
    fn a_header_of_a_later_format_is_told_apart() {
        let mut bytes = header().encode();
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[..64]);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::find(&bytes), Found::Newer(2));
    }

    #[test]
    fn records_end_at_multiples_of_eight() {
        assert_eq!(record_bytes(0), 72);
        assert_eq!(record_bytes(1), 80);
        assert_eq!(record_bytes(8), 80);
    }
}
