//! The manifest encoding: what the ETag of a file of more than one chunk is the hash of.
//!
//! A manifest is a tree of nodes with a fan-out of [`MANIFEST_FANOUT`]. Leaves (level 0) list chunks, a node of
//! level n lists nodes of level n − 1. All nodes but the last of a level are full, and no node is there that has
//! only one child but would not be needed, so a list of chunks has exactly one tree, whoever builds it and in
//! whatever pieces it arrived. 1,024 × 1,024 chunks of 8 MiB are 8 TiB in two levels.
//!
//! ```text
//!  0        4         5       6        8                16
//!  ┌────────┬─────────┬───────┬────────┬────────────────┬───────────────────────────┐
//!  │ "HYMF" │ version │ level │ count  │ total size     │ count × { hash 32, size 8 }│
//!  └────────┴─────────┴───────┴────────┴────────────────┴───────────────────────────┘
//!    4 bytes    1         1      2 LE       8 LE
//! ```
//!
//! The offset of a child is the sum of the sizes before it. A node's hash is the SHA-256 of its bytes.

use sha2::{Digest, Sha256};

use crate::ids::ContentHash;
use crate::limits::MANIFEST_FANOUT;
use crate::model::Chunk;

const MAGIC: [u8; 4] = *b"HYMF";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
const CHILD_BYTES: usize = 40;

/// Bytes that are no node of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeNodeError {
    /// Not a manifest node at all.
    #[error("not a manifest node")]
    NotANode,
    /// Written by a newer Haystore.
    #[error("manifest node of version {0}; this build reads version {VERSION}")]
    NewerVersion(u8),
    /// The lengths or sums do not fit.
    #[error("manifest node is damaged: {0}")]
    Damaged(&'static str),
}

/// A child of a node: a chunk below a leaf, a node below others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Its hash.
    pub hash: ContentHash,
    /// Bytes of the file that it covers.
    pub size: u64,
}

/// One node of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 0 for a leaf.
    pub level: u8,
    /// Between 1 and [`MANIFEST_FANOUT`].
    pub children: Vec<Child>,
}

impl Node {
    /// The bytes that are hashed and stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.children.len() * CHILD_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.level]);
        // The fan-out is below 2^16.
        out.extend_from_slice(&(self.children.len() as u16).to_le_bytes());
        let total: u64 = self.children.iter().map(|c| c.size).sum();
        out.extend_from_slice(&total.to_le_bytes());
        for child in &self.children {
            out.extend_from_slice(&child.hash.0);
            out.extend_from_slice(&child.size.to_le_bytes());
        }
        out
    }

    /// Reads what [`Node::encode`] wrote.
    ///
    /// # Errors
    /// Says whether it is no node, a newer one, or a damaged one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeNodeError> {
        let (header, mut rest) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(DecodeNodeError::NotANode)?;
        let [m0, m1, m2, m3, version, level, c0, c1, total @ ..] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(DecodeNodeError::NotANode);
        }
        if version != VERSION {
            return Err(DecodeNodeError::NewerVersion(version));
        }
        let count = usize::from(u16::from_le_bytes([c0, c1]));
        if count == 0 || count > MANIFEST_FANOUT || rest.len() != count * CHILD_BYTES {
            return Err(DecodeNodeError::Damaged("its length does not fit its count"));
        }
        let mut children = Vec::with_capacity(count);
        while let Some((hash, after)) = rest.split_first_chunk::<32>() {
            let (size, after) =
                after.split_first_chunk::<8>().ok_or(DecodeNodeError::Damaged("cut short"))?;
            children.push(Child { hash: ContentHash(*hash), size: u64::from_le_bytes(*size) });
            rest = after;
        }
        let sum = children.iter().try_fold(0u64, |sum, c| sum.checked_add(c.size));
        if sum != Some(u64::from_le_bytes(total)) {
            return Err(DecodeNodeError::Damaged("its total is not the sum of its children"));
        }
        Ok(Self { level, children })
    }

    /// The name of the node.
    pub fn hash(&self) -> ContentHash {
        ContentHash(Sha256::digest(self.encode()).into())
    }
}

/// Builds the root of a manifest from chunks in their order, with one unfinished node a level in memory.
#[derive(Debug, Clone, Default)]
pub struct RootBuilder {
    levels: Vec<Vec<Child>>,
    chunks: u64,
    bytes: u64,
}

impl RootBuilder {
    /// No chunks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next chunk of the file.
    pub fn push(&mut self, chunk: Chunk) {
        self.chunks += 1;
        self.bytes += u64::from(chunk.size);
        self.push_at(0, Child { hash: chunk.hash, size: u64::from(chunk.size) });
    }

    /// Chunks so far.
    pub fn chunk_count(&self) -> u64 {
        self.chunks
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.bytes
    }

    fn push_at(&mut self, level: usize, child: Child) {
        let mut level = level;
        let mut child = child;
        loop {
            if self.levels.len() <= level {
                self.levels.push(Vec::new());
            }
            let Some(open) = self.levels.get_mut(level) else { return };
            // A full node is closed only when another child shows that it is not the root.
            if open.len() < MANIFEST_FANOUT {
                open.push(child);
                return;
            }
            let full = std::mem::replace(open, vec![child]);
            child = close(level, full);
            level += 1;
        }
    }

    /// The hash of the root, or `None` where there was no chunk.
    pub fn finish(mut self) -> Option<ContentHash> {
        let mut level = 0;
        loop {
            let children = std::mem::take(self.levels.get_mut(level)?);
            if self.levels.len() == level + 1 {
                return Some(Node { level: u8::try_from(level).ok()?, children }.hash());
            }
            let child = close(level, children);
            level += 1;
            self.push_at(level, child);
        }
    }
}

fn close(level: usize, children: Vec<Child>) -> Child {
    let size = children.iter().map(|c| c.size).sum();
    // Two levels reach 8 TiB; the level never comes near 256.
    let node = Node { level: level as u8, children };
    Child { hash: node.hash(), size }
}

/// The `content_hash` of a file: its bytes' hash where it is one chunk or empty, else its manifest's root.
pub fn content_hash(chunks: &[Chunk]) -> ContentHash {
    match chunks {
        [] => ContentHash(Sha256::digest([]).into()),
        [one] => one.hash,
        many => {
            let mut builder = RootBuilder::new();
            many.iter().for_each(|c| builder.push(*c));
            // Two chunks or more always have a root.
            builder.finish().unwrap_or(ContentHash([0; 32]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(n: u64) -> Chunk {
        Chunk { hash: ContentHash(Sha256::digest(n.to_le_bytes()).into()), size: 8 << 20 }
    }

    /// The same tree by the slow, obvious way.
    fn reference_root(chunks: &[Chunk]) -> ContentHash {
        let mut level = 0;
        let mut row: Vec<Child> =
            chunks.iter().map(|c| Child { hash: c.hash, size: u64::from(c.size) }).collect();
        loop {
            let nodes: Vec<Node> =
                row.chunks(MANIFEST_FANOUT).map(|c| Node { level, children: c.to_vec() }).collect();
            if let [root] = nodes.as_slice() {
                return root.hash();
            }
            row = nodes
                .iter()
                .map(|n| Child { hash: n.hash(), size: n.children.iter().map(|c| c.size).sum() })
                .collect();
            level += 1;
        }
    }

    #[test]
    fn golden_bytes_of_a_leaf() {
        let node = Node {
            level: 0,
            children: vec![
                Child { hash: ContentHash([0x11; 32]), size: 8 << 20 },
                Child { hash: ContentHash([0x22; 32]), size: 5 },
            ],
        };
        let expected = format!(
            "48594d46{}{}{}{}{}{}{}{}",
            "01",
            "00",
            "0200",
            "0500800000000000",
            "11".repeat(32),
            "0000800000000000",
            "22".repeat(32),
            "0500000000000000"
        );
        assert_eq!(hex::encode(node.encode()), expected);
        assert_eq!(
            node.hash().to_string(),
            "365e9c70007a6d80ec55d54246ee55ba97aecfbff07cdf106b5fc4554cec58ad"
        );
        assert_eq!(Node::decode(&node.encode()).unwrap(), node);
    }

    #[test]
    fn golden_root_of_three_levels() {
        // 1,024 × 1,024 + 1 chunks: the first list that needs a third level.
        let mut builder = RootBuilder::new();
        for _ in 0..(1 << 20) + 1 {
            builder.push(Chunk { hash: ContentHash([7; 32]), size: 1 });
        }
        assert_eq!(builder.size(), (1 << 20) + 1);
        assert_eq!(
            builder.finish().unwrap().to_string(),
            "0686633dc5bf4a935fca63257c4da1c0174b740774bd529eb8a9ef9453a28a6b"
        );
    }

    #[test]
    fn the_builder_agrees_with_the_obvious_tree() {
        for count in [2, 3, 1023, 1024, 1025, 2048, 2049, 5000] {
            let chunks: Vec<Chunk> = (0..count).map(chunk).collect();
            assert_eq!(content_hash(&chunks), reference_root(&chunks), "{count} chunks");
        }
    }

    #[test]
    fn truncated_and_foreign_nodes_are_refused() {
        let bytes = Node { level: 0, children: vec![Child { hash: ContentHash([1; 32]), size: 9 }] }.encode();
        for cut in 0..bytes.len() {
            assert!(Node::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes.clone();
        newer[4] = 2;
        assert_eq!(Node::decode(&newer), Err(DecodeNodeError::NewerVersion(2)));
        let mut sum = bytes;
        sum[8] ^= 1;
        assert!(matches!(Node::decode(&sum), Err(DecodeNodeError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn any_node_reads_back(level in 0u8..3, sizes in prop::collection::vec(0u64..1 << 40, 1..50)) {
            let children = sizes.iter().map(|s| Child { hash: chunk(*s).hash, size: *s }).collect();
            let node = Node { level, children };
            prop_assert_eq!(Node::decode(&node.encode()).unwrap(), node);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Node::decode(&bytes);
        }
    }
}
