//! The nouns that several services speak of. Wire types are converted to these at the edge of each service.

use serde::{Deserialize, Serialize};

use crate::ids::{ContentHash, Cookie, CopyId, EntryId, Epoch, ManifestId, PrincipalId, TenantId, VolumeId};

/// What acknowledged means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// `fdatasync` before every acknowledgement. The default.
    #[default]
    Sync,
    /// Written, not synced: a power loss may take the last seconds. Named in the status.
    Async,
}

/// How the bytes of a needle relate to the content. The store keeps it opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec(pub u16);

impl Codec {
    /// The needle holds the content's own bytes.
    pub const PLAIN: Codec = Codec(0);
}

/// Where the bytes of a copy are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// In a volume, under (needle key, cookie).
    Volume {
        /// Which volume.
        volume: VolumeId,
        /// The cookie of the needle.
        cookie: Cookie,
    },
    /// In the metadata log, until the packer has moved it. In the schema from the first day; written by none yet.
    Staged {
        /// The Raft group whose log holds it.
        group: u32,
        /// The log index.
        index: u64,
        /// The position in that entry.
        position: u32,
    },
}

/// The life of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyState {
    /// May be relied on.
    Live,
    /// About to be removed: nothing may rely on it.
    Condemned,
    /// Found damaged when it was read. It may be the only one, so it stays for whoever repairs it, but nothing may
    /// newly rely on it: the next put of the content brings another.
    Damaged,
}

/// One needle as the metadata knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Its own name.
    pub id: CopyId,
    /// Where it is.
    pub location: Location,
    /// How it is coded.
    pub codec: Codec,
    /// Bytes of data in the needle, after the codec.
    pub stored_bytes: u32,
    /// Whether it may be relied on.
    pub state: CopyState,
}

/// One chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// SHA-256 of its bytes.
    pub hash: ContentHash,
    /// Its bytes, at most [`crate::limits::CHUNK_BYTES_MAX`].
    pub size: u32,
}

/// A chunk and a copy that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatedChunk {
    /// Which number it has in the file, from 0.
    pub number: u32,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// The chunk.
    pub chunk: Chunk,
    /// A live copy.
    pub copy: Copy,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Bytes.
    File,
    /// Other entries.
    Directory,
}

/// What a caller may know of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    /// 128 bits, never used again.
    pub id: EntryId,
    /// The path inside the tenant's tree: no slash in front; a directory's ends in one.
    pub path: String,
    /// File or directory.
    pub kind: EntryKind,
    /// Bytes of the file; 0 for a directory.
    pub size: u64,
    /// The hash of its bytes or of its manifest's root; `None` for a directory.
    pub content_hash: Option<ContentHash>,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// As the writer gave it.
    pub content_type: Option<String>,
    /// As the writer gave it: lower-case names, in the order of names.
    pub user_metadata: Vec<(String, String)>,
    /// The chunk list of a file of more than one chunk.
    pub manifest: Option<ManifestId>,
    /// How many chunks the file has.
    pub chunk_count: u32,
}

/// Who acts, as the filer found it behind a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Which principal.
    pub id: PrincipalId,
    /// Whose tree its paths name.
    pub tenant: TenantId,
    /// Whether it administers the cluster.
    pub administrator: bool,
}

/// What a volume is for. Contents of the two sizes never share a volume (TRAPS: growing files sync slower).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeClass {
    /// Contents up to [`crate::limits::SMALL_CONTENT_BYTES_MAX`], into space zeroed ahead.
    Small,
    /// Large chunks; the file grows.
    Large,
}

/// Whether a volume takes appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Decided by the masters, not yet there on its servers.
    Creating,
    /// Takes appends of its epoch.
    Writable,
    /// Takes none.
    Sealed,
}

/// One volume of a write lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedVolume {
    /// Which volume.
    pub volume: VolumeId,
    /// The epoch that appends must carry.
    pub epoch: Epoch,
    /// Which contents it takes.
    pub class: SizeClass,
    /// Addresses, the primary first.
    pub replicas: Vec<String>,
}

/// Order-free digest of a volume server's volumes: by it a master sees whether it knows what the server has.
pub fn volumes_digest(volumes: impl IntoIterator<Item = (VolumeId, Epoch, VolumeState)>) -> u64 {
    volumes.into_iter().fold(0, |sum, (volume, epoch, state)| {
        let state = match state {
            VolumeState::Creating => 1,
            VolumeState::Writable => 2,
            VolumeState::Sealed => 3,
        };
        // A sum of well-mixed numbers: order-free, and no volume hides another as in an exclusive or.
        let mixed = mix(mix(mix(u64::from(volume.0)) ^ epoch.0) ^ state);
        sum.wrapping_add(mixed)
    })
}

/// The finaliser of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_order_free_and_sees_every_field() {
        let volumes =
            [(1, 1, VolumeState::Writable), (2, 1, VolumeState::Sealed), (3, 9, VolumeState::Writable)]
                .map(|(id, epoch, state)| (VolumeId(id), Epoch(epoch), state));
        let digest = volumes_digest(volumes);
        assert_eq!(digest, volumes_digest(volumes.into_iter().rev()));
        for n in 0..3 {
            let mut other = volumes;
            other[n].1.0 += 1;
            assert_ne!(digest, volumes_digest(other));
            let mut other = volumes;
            other[n].2 = VolumeState::Creating;
            assert_ne!(digest, volumes_digest(other));
            let mut other = volumes;
            other[n].0.0 += 7;
            assert_ne!(digest, volumes_digest(other));
        }
    }
}
