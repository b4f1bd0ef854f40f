//! One step through the records of a window of a volume file, and the search for the next one after damage.

use crate::codec::all_zero;
use crate::record::data_fits;
use crate::{ALIGN_BYTES, HEADER_BYTES, Header, HeaderError, Seeds};

/// What stands at the front of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A whole record of `len` bytes.
    Record {
        /// Its header; the header's checksum fits.
        header: Header,
        /// Bytes to the next record.
        len: usize,
        /// Whether checksum and padding of the data fit. Where not, key and length are still to be trusted.
        intact: bool,
    },
    /// Zeros where a header would be: the end, if nothing but zeros follows.
    Zeros,
    /// A window of this many bytes is needed to tell.
    More(usize),
    /// No record.
    Damage(HeaderError),
}

/// Looks at the front of `window`, which begins at `offset` of the file.
pub fn step(seeds: Seeds, offset: u64, window: &[u8]) -> Step {
    let Some((head, rest)) = window.split_first_chunk::<HEADER_BYTES>() else {
        return if all_zero(window) { Step::Zeros } else { Step::More(HEADER_BYTES) };
    };
    let (header, checksum) = match Header::decode(head, seeds, offset) {
        Ok(found) => found,
        Err(HeaderError::Zeros) => return Step::Zeros,
        Err(error) => return Step::Damage(error),
    };
    // Bounded by NEEDLE_BYTES_MAX, which the header's decoder has checked.
    let len = header.record_len() as usize;
    let Some(rest) = rest.get(..len - HEADER_BYTES) else { return Step::More(len) };
    let intact = match header {
        Header::Needle(needle) => {
            let padding = rest.get(needle.length as usize + 4..).unwrap_or_default();
            data_fits(rest, needle.length, checksum) == Some(true) && all_zero(padding)
        }
        Header::Tombstone { .. } | Header::Batch(_) => true,
    };
    Step::Record { header, len, intact }
}

/// The distance to the first whole header in `window`, which begins at the aligned `offset`.
pub fn resync(seeds: Seeds, offset: u64, window: &[u8]) -> Option<usize> {
    let found = window
        .windows(HEADER_BYTES)
        .step_by(ALIGN_BYTES)
        .filter_map(|bytes| bytes.first_chunk::<HEADER_BYTES>())
        .zip(0u64..)
        .find(|(head, n)| Header::decode(head, seeds, offset + n * ALIGN_BYTES as u64).is_ok());
    found.map(|(_, n)| n as usize * ALIGN_BYTES)
}
