//! Small checksummed files: identity, hard state, snapshot description.
//!
//! ```text
//! magic 8 | version u32 | length u32 | CRC32C of all but itself u32 | body (postcard)
//! ```
//! Numbers are little endian.

use std::io;
use std::path::Path;

use hay_common::disk::{Disk, OpenMode, atomic_publish, read_exact_at};
use hay_common::limits::MIB;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StartError;

const HEAD_BYTES: usize = 20;

/// What kind of file it is, and the newest format that this program knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
}

impl Kind {
    /// The bytes of a whole file.
    pub(crate) fn encode<T: Serialize>(self, body: &T) -> io::Result<Vec<u8>> {
        let body = postcard::to_stdvec(body).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// The body of a whole file; `path` is for messages.
    pub(crate) fn decode<T: DeserializeOwned>(self, path: &Path, bytes: &[u8]) -> Result<T, StartError> {
        let corrupt = |what: &str| StartError::Corrupt { path: path.to_owned(), what: what.to_owned() };
        let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| corrupt("it is too short"))?;
        let (covered, crc) = head.split_at(HEAD_BYTES - 4);
        if !covered.starts_with(&self.magic) {
            return Err(corrupt("it does not begin as such a file does"));
        }
        if crc32c::crc32c_append(crc32c::crc32c(covered), body).to_le_bytes() != crc {
            return Err(corrupt("its checksum does not match"));
        }
        let version = covered.get(8..12).and_then(|v| v.try_into().ok()).map_or(0, u32::from_le_bytes);
        if version != self.version {
            return Err(StartError::NewerVersion {
                path: path.to_owned(),
                found: version,
                known: self.version,
            });
        }
        postcard::from_bytes(body).map_err(|_| corrupt("its content can't be read"))
    }

    /// The body of the file at `path`, or `None` where nothing is.
    pub(crate) fn read<T: DeserializeOwned>(
        self,
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<Option<T>, StartError> {
        let io = |source| StartError::Io { what: "can't read", path: path.to_owned(), source };
        let Some(len) = disk.file_len(path).map_err(io)? else { return Ok(None) };
        if len > MIB as u64 {
            return Err(StartError::Corrupt { path: path.to_owned(), what: format!("it has {len} bytes") });
        }
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(MIB)];
        read_exact_at(file.as_ref(), &mut bytes, 0).map_err(io)?;
        self.decode(path, &bytes).map(Some)
    }

    /// Replaces the file at `path`, atomically and durably.
    pub(crate) fn publish<T: Serialize>(self, disk: &dyn Disk, path: &Path, body: &T) -> io::Result<()> {
        atomic_publish(disk, path, &self.encode(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: *b"hayTests", version: 3 };

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = KIND.encode(&(7u64, "some text".to_owned())).unwrap();
        let path = Path::new("x");
        assert_eq!(KIND.decode::<(u64, String)>(path, &bytes).unwrap(), (7, "some text".to_owned()));
        for cut in 0..bytes.len() {
            assert!(KIND.decode::<(u64, String)>(path, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(KIND.decode::<(u64, String)>(path, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let newer = Kind { version: 4, ..KIND }.encode(&1u64).unwrap();
        let error = KIND.decode::<u64>(Path::new("x"), &newer).unwrap_err();
        assert!(matches!(error, StartError::NewerVersion { found: 4, known: 3, .. }), "{error}");
    }
}
