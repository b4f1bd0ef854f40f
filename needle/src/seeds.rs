//! Checksums start from where the bytes belong, so that bytes of another place never pass.

use hay_common::ids::{Incarnation, VolumeId};

/// Seeds of one volume file's checksums: CRC32C over (incarnation, volume id, offset).
///
/// The offset shows misdirected writes; the incarnation shows what an older file left on reused blocks, and, being
/// random and known to no client, keeps content from posing as records where recovery looks for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    file: u32,
}

impl Seeds {
    /// Of the file `incarnation` of `volume`.
    pub fn new(volume: VolumeId, incarnation: Incarnation) -> Self {
        let file = crc32c::crc32c(incarnation.as_bytes());
        Self { file: crc32c::crc32c_append(file, &volume.0.to_le_bytes()) }
    }

    /// For a record that begins at `offset`.
    pub fn at(self, offset: u64) -> u32 {
        crc32c::crc32c_append(self.file, &offset.to_le_bytes())
    }
}
