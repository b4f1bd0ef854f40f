//! Bytes that can be made again from a seed, so that what was stored need not be kept to be compared.

use bytes::Bytes;
use futures::Stream;
use hay_common::ids::ContentHash;
use hay_common::limits::CHUNK_BYTES_MAX;
use hay_common::manifest::content_hash;
use hay_common::model::Chunk;
use hay_common::random::SystemRandom;
use sha2::{Digest, Sha256};

/// The seed of this run: `HAY_SEED`, or a fresh one. Printed, and so shown when the test fails.
pub fn seed() -> u64 {
    let seed = match std::env::var("HAY_SEED") {
        Ok(text) => text.parse().expect("HAY_SEED is a number"),
        Err(_) => SystemRandom::shared().expect("the kernel gives randomness").u64(),
    };
    println!("seed: repeat with HAY_SEED={seed}");
    seed
}

/// The bytes of a file: a seed and a length. No two seeds share a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    pub seed: u64,
    pub len: u64,
}

impl Pattern {
    pub fn new(seed: u64, len: u64) -> Self {
        Self { seed, len }
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        pattern_bytes(self.seed, 0, self.len as usize)
    }

    /// Whether `part` is what stands at `offset`.
    pub fn matches_at(&self, offset: u64, part: &[u8]) -> bool {
        offset + part.len() as u64 <= self.len && pattern_bytes(self.seed, offset, part.len()) == part
    }

    /// Whether `bytes` are the whole of it.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.len && self.matches_at(0, bytes)
    }
}

/// SplitMix64: every word can be made without those before it.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

/// `len` bytes of the pattern from `offset`.
pub fn pattern_bytes(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    // The raw seed is spread first: neighbouring seeds must not give shifted copies of each other.
    let seed = u64::from_le_bytes(word(seed, u64::MAX / 3));
    let skip = (offset % 8) as usize;
    let words = (skip + len).div_ceil(8) as u64;
    let mut out = Vec::with_capacity(words as usize * 8);
    (0..words).for_each(|n| out.extend_from_slice(&word(seed, offset / 8 + n)));
    out.drain(..skip);
    out.truncate(len);
    out
}

/// The pattern as a body of parts of 256 KiB.
pub fn pattern_stream(pattern: Pattern) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    const PART: u64 = 256 << 10;
    futures::stream::iter((0..pattern.len.div_ceil(PART)).map(move |n| {
        let from = n * PART;
        let len = PART.min(pattern.len - from) as usize;
        Ok(Bytes::from(pattern_bytes(pattern.seed, from, len)))
    }))
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The ETag that a file of these bytes must have: its hash, or the root of its manifest, quoted.
pub fn etag_of(bytes: &[u8]) -> String {
    let chunks: Vec<Chunk> = bytes
        .chunks(CHUNK_BYTES_MAX)
        .map(|c| Chunk { hash: ContentHash(Sha256::digest(c).into()), size: c.len() as u32 })
        .collect();
    format!("\"{}\"", hex::encode(content_hash(&chunks).0))
}

mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_from_wherever_it_is_read() {
        let whole = pattern_bytes(7, 0, 1000);
        for (offset, len) in [(0, 0), (0, 1), (1, 7), (8, 8), (3, 500), (999, 1)] {
            assert_eq!(pattern_bytes(7, offset as u64, len), whole[offset..offset + len]);
        }
        assert_ne!(pattern_bytes(8, 0, 64), whole[..64]);
        assert!(!Pattern::new(7, 1000).is(&whole[..999]));
        assert!(Pattern::new(7, 1000).is(&whole));
    }
}
