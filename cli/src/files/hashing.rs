//! The content hash of bytes as they pass, as the server computes it: chunks of 8 MiB, one chunk's own hash or the
//! root of the manifest.

use hay_common::ids::ContentHash;
use hay_common::limits::CHUNK_BYTES_MAX;
use hay_common::manifest::RootBuilder;
use hay_common::model::Chunk;
use sha2::{Digest, Sha256};

/// Hashes a file piece by piece.
#[derive(Default)]
pub struct ContentHasher {
    chunk: Sha256,
    chunk_bytes: usize,
    // The first chunk waits until a second one shows that there is a manifest.
    first: Option<Chunk>,
    manifest: RootBuilder,
}

impl ContentHasher {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the file.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full chunk is closed only when another byte follows: an exact multiple has no empty chunk behind.
            if self.chunk_bytes == CHUNK_BYTES_MAX {
                self.close();
            }
            let room = CHUNK_BYTES_MAX - self.chunk_bytes;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.update(now);
            self.chunk_bytes += now.len();
            bytes = later;
        }
    }

    fn close(&mut self) {
        let hash = ContentHash(std::mem::take(&mut self.chunk).finalize().into());
        // At most CHUNK_BYTES_MAX, far below 2^32.
        let chunk = Chunk { hash, size: self.chunk_bytes as u32 };
        self.chunk_bytes = 0;
        self.first.get_or_insert(chunk);
        self.manifest.push(chunk);
    }

    /// The content hash of all that was pushed.
    pub fn finish(mut self) -> ContentHash {
        if self.chunk_bytes > 0 || self.first.is_none() {
            self.close();
        }
        let first = self.first.map(|chunk| chunk.hash);
        let root = if self.manifest.chunk_count() > 1 { self.manifest.finish() } else { first };
        // There is a first chunk by now, so there is always one of the two.
        root.or(first).unwrap_or(ContentHash([0; 32]))
    }
}

/// The content hash of bytes in memory.
pub fn content_hash(bytes: &[u8]) -> ContentHash {
    let mut hasher = ContentHasher::new();
    hasher.push(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::manifest;

    fn reference(bytes: &[u8]) -> ContentHash {
        let chunks: Vec<Chunk> = bytes
            .chunks(CHUNK_BYTES_MAX)
            .map(|c| Chunk { hash: ContentHash(Sha256::digest(c).into()), size: c.len() as u32 })
            .collect();
        manifest::content_hash(&chunks)
    }

    #[test]
    fn it_agrees_with_the_manifest_at_every_edge_of_a_chunk() {
        let bytes: Vec<u8> = (0..2 * CHUNK_BYTES_MAX + 2).map(|i| (i * 7 + i / 251) as u8).collect();
        for len in [
            0,
            1,
            CHUNK_BYTES_MAX - 1,
            CHUNK_BYTES_MAX,
            CHUNK_BYTES_MAX + 1,
            2 * CHUNK_BYTES_MAX,
            2 * CHUNK_BYTES_MAX + 2,
        ] {
            let bytes = &bytes[..len];
            assert_eq!(content_hash(bytes), reference(bytes), "{len} bytes");
            let mut pieces = ContentHasher::new();
            bytes.chunks(1_000_003).for_each(|piece| pieces.push(piece));
            assert_eq!(pieces.finish(), reference(bytes), "{len} bytes in pieces");
        }
    }

    #[test]
    fn one_flipped_bit_shows() {
        let mut bytes = vec![5; CHUNK_BYTES_MAX + 10];
        let before = content_hash(&bytes);
        bytes[CHUNK_BYTES_MAX + 3] ^= 1;
        assert_ne!(content_hash(&bytes), before);
    }
}
