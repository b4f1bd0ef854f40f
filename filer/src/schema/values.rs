//! The values of every row: a version byte, then postcard. Enums grow at their ends only.
//!
//! A value of a newer version is refused, never guessed at. Fields are added by a new version of the row.

use hay_common::ids::{ContentHash, CopyId, EntryId, ManifestId, PrincipalId, TenantId};
use hay_common::limits::SESSION_TTL;
use hay_common::model::{Chunk, Copy, EntryInfo, EntryKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the whole layout; stands in the row [`super::keys::format`].
pub const FORMAT_VERSION: u32 = 1;

/// Nearly all rows and commands take less, encoded.
const ENCODED_BYTES_USUAL: usize = 256;

/// Stored bytes that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeRowError {
    /// Not what was written.
    #[error("a row of {row} is damaged")]
    Damaged {
        /// Which kind of row.
        row: &'static str,
    },
    /// Written by a later version of this program.
    #[error("a row of {row} has version {found}; this program reads up to {known}: use the newer program")]
    NewerVersion {
        /// Which kind of row.
        row: &'static str,
        /// The version that was found.
        found: u8,
        /// The newest that is known.
        known: u8,
    },
}

/// A value with a version byte in front.
pub trait Row: Serialize + DeserializeOwned {
    /// What it is, for errors.
    const NAME: &'static str;
    /// The version that is written.
    const VERSION: u8 = 1;

    /// As it is stored.
    fn encode(&self) -> Vec<u8> {
        // postcard pushes byte by byte: beginning small would grow the buffer five times for most rows.
        let mut bytes = Vec::with_capacity(ENCODED_BYTES_USUAL);
        bytes.push(Self::VERSION);
        // Growing a Vec can't fail, and no row holds a type that postcard refuses.
        postcard::to_extend(self, bytes).unwrap_or_default()
    }

    /// Reads what [`Row::encode`] wrote.
    ///
    /// # Errors
    /// Says whether it is damaged or newer.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeRowError> {
        decode_current(bytes)
    }
}

/// Reads a row of the version that is written.
fn decode_current<R: Row>(bytes: &[u8]) -> Result<R, DecodeRowError> {
    let damaged = DecodeRowError::Damaged { row: R::NAME };
    match bytes.split_first() {
        Some((version, rest)) if *version == R::VERSION => match postcard::take_from_bytes(rest) {
            Ok((row, [])) => Ok(row),
            Ok(_) | Err(_) => Err(damaged),
        },
        Some((version, _)) if *version > R::VERSION => {
            Err(DecodeRowError::NewerVersion { row: R::NAME, found: *version, known: R::VERSION })
        }
        Some(_) | None => Err(damaged),
    }
}

macro_rules! rows {
    ($($row:ty = $name:literal),* $(,)?) => {$(impl Row for $row { const NAME: &'static str = $name; })*};
}

rows! {
    FormatRow = "format",
    LogTimeRow = "log-time",
    Counters = "counters",
    TenantRow = "tenant",
    TenantNameRow = "tenant-name",
    TokenRow = "token",
    UsageRow = "usage",
    EntryRow = "entry",
    OwnRow = "own",
    CopyRow = "copy",
    ManifestRow = "manifest",
    RefsRow = "refs",
    Answer = "answer",
    IdempotencyRow = "idempotency",
    Mark = "mark",
}

/// The row of a key that says everything by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark;

/// The version of the whole layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatRow {
    /// See [`FORMAT_VERSION`].
    pub version: u32,
}

/// The time that the log carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTimeRow {
    /// Milliseconds since 1970. Never goes back.
    pub ms: u64,
}

/// Sums over all tenants, changed in the same write as what they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Rows of own/.
    pub contents_owned: u64,
    /// The sum of the references in own/.
    pub references: u64,
    /// Rows of copy/.
    pub copies: u64,
    /// The sum of their stored bytes.
    pub copy_bytes: u64,
    /// Rows of the delete queue.
    pub delete_queue: u64,
    /// Manifests that no entry has yet.
    pub manifests_unpublished: u64,
    /// Manifests that entries have.
    pub manifests_published: u64,
    /// Manifests whose references are being dropped.
    pub manifests_draining: u64,
    /// Rows of session/.
    pub sessions: u64,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its name.
    pub name: String,
    /// When it was made, in ms.
    pub created_ms: u64,
}

/// The tenant behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantNameRow {
    /// Which.
    pub tenant: TenantId,
}

/// The principal behind a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Which principal.
    pub principal: PrincipalId,
    /// Whose tree its paths name.
    pub tenant: TenantId,
    /// Whether it administers the cluster.
    pub administrator: bool,
    /// What it may do in the tenant's tree.
    pub access: Access,
}

/// What a principal may do in its tenant's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and change.
    Write,
}

/// What a tenant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageRow {
    /// The sum of its files' sizes.
    pub logical_bytes: u64,
    /// Its files.
    pub files: u64,
    /// Its directories, without the root.
    pub directories: u64,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// Never used again.
    pub id: EntryId,
    /// Which version of the file this is, once versions are kept.
    pub version: Option<u128>,
    /// Whether this version says that the file is gone.
    pub delete_marker: bool,
    /// What it holds.
    pub content: Content,
    /// Milliseconds since 1970 on the clock of whoever proposed the change.
    pub modified_ms: u64,
    /// What else is known of it.
    pub attributes: Vec<Attribute>,
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// It is a directory.
    Directory,
    /// A file without bytes.
    Empty,
    /// A file of one chunk, which the entry counts on itself.
    Chunk(Chunk),
    /// A file of several chunks, which the manifest counts on.
    Manifest {
        /// Which manifest.
        id: ManifestId,
        /// The hash of its root.
        root: ContentHash,
        /// Chunks.
        chunk_count: u32,
        /// Bytes.
        size: u64,
    },
}

/// One attribute of an entry. Each kind stands at most once, save those with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attribute {
    /// The media type, as the writer gave it.
    ContentType(String),
    /// Pairs of the writer's, in the order of names.
    UserMetadata(Vec<(String, String)>),
    /// The ETag that another protocol gave.
    EntityTag {
        /// Which protocol.
        protocol: String,
        /// Its ETag.
        value: String,
    },
    /// A checksum of the whole file.
    Checksum {
        /// As in `sha256`, `crc32c`.
        algorithm: String,
        /// Its bytes.
        digest: Vec<u8>,
    },
}

/// SHA-256 of nothing.
pub const EMPTY_HASH: ContentHash = ContentHash([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

impl Content {
    /// The file's `content_hash`; `None` for a directory.
    pub fn hash(&self) -> Option<ContentHash> {
        match self {
            Self::Directory => None,
            Self::Empty => Some(EMPTY_HASH),
            Self::Chunk(chunk) => Some(chunk.hash),
            Self::Manifest { root, .. } => Some(*root),
        }
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        match self {
            Self::Directory | Self::Empty => 0,
            Self::Chunk(chunk) => u64::from(chunk.size),
            Self::Manifest { size, .. } => *size,
        }
    }

    /// Chunks of the file.
    pub fn chunk_count(&self) -> u32 {
        match self {
            Self::Directory | Self::Empty => 0,
            Self::Chunk(_) => 1,
            Self::Manifest { chunk_count, .. } => *chunk_count,
        }
    }

    /// The manifest, where there is one.
    pub fn manifest(&self) -> Option<ManifestId> {
        match self {
            Self::Manifest { id, .. } => Some(*id),
            Self::Directory | Self::Empty | Self::Chunk(_) => None,
        }
    }
}

impl EntryRow {
    /// A directory made at `modified_ms`.
    pub fn directory(id: EntryId, modified_ms: u64) -> Self {
        Self {
            id,
            version: None,
            delete_marker: false,
            content: Content::Directory,
            modified_ms,
            attributes: Vec::new(),
        }
    }

    /// What a caller may know of it.
    pub fn into_info(self, path: String) -> EntryInfo {
        let (mut content_type, mut user_metadata) = (None, Vec::new());
        for attribute in self.attributes {
            match attribute {
                Attribute::ContentType(value) => content_type = Some(value),
                Attribute::UserMetadata(pairs) => user_metadata = pairs,
                Attribute::EntityTag { .. } | Attribute::Checksum { .. } => {}
            }
        }
        EntryInfo {
            id: self.id,
            path,
            kind: if self.content == Content::Directory { EntryKind::Directory } else { EntryKind::File },
            size: self.content.size(),
            content_hash: self.content.hash(),
            modified_ms: self.modified_ms,
            content_type,
            user_metadata,
            manifest: self.content.manifest(),
            chunk_count: self.content.chunk_count(),
        }
    }
}

/// What a tenant has of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRow {
    /// Entries and chunks of manifests that count on it. Never 0.
    pub references: u64,
    /// Bytes of the content.
    pub size: u32,
    /// The copy that is read.
    pub copy: CopyId,
}

/// A copy of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRow {
    /// Where it is, how it is coded, whether it may be relied on.
    pub copy: Copy,
    /// The key id of an encrypted copy.
    pub key: Option<u128>,
}

/// Where a manifest stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestState {
    /// Chunks arrive.
    Unpublished {
        /// Given up then, in log time, unless another batch comes.
        expires_ms: u64,
        /// Chunks that have come.
        chunks: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// Entries have it.
    Published {
        /// How many. Never 0.
        entries: u64,
        /// The hash of its root.
        root: ContentHash,
        /// Chunks.
        chunk_count: u32,
        /// Bytes.
        size: u64,
    },
    /// Its references are being dropped, from the first on.
    Draining,
}

/// A list of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRow {
    /// Where it stands.
    pub state: ManifestState,
}

/// Some chunks of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefsRow {
    /// Where the first of them begins in the file, in bytes.
    pub offset: u64,
    /// In the order of the file.
    pub chunks: Vec<Chunk>,
}

impl RefsRow {
    /// Where the last of them ends in the file.
    pub fn end_offset(&self) -> u64 {
        self.offset + self.chunks.iter().map(|c| u64::from(c.size)).sum::<u64>()
    }
}

/// An ingest session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// In log time: it is over when that is reached.
    pub expires_ms: u64,
    /// The highest sequence that was applied.
    pub highest: u64,
    /// In log time: when the last command took effect in it, or when it was opened.
    pub used_ms: u64,
}

impl Row for SessionRow {
    const NAME: &'static str = "session";
    const VERSION: u8 = 2;

    fn decode(bytes: &[u8]) -> Result<Self, DecodeRowError> {
        match bytes.split_first() {
            // Version 1 did not know when it was used: certainly not before it was opened.
            Some((1, rest)) => match postcard::take_from_bytes(rest) {
                Ok(((expires_ms, highest), [])) => {
                    let used_ms = u64::saturating_sub(expires_ms, SESSION_TTL.as_millis() as u64);
                    Ok(Self { expires_ms, highest, used_ms })
                }
                Ok(_) | Err(_) => Err(DecodeRowError::Damaged { row: Self::NAME }),
            },
            _ => decode_current(bytes),
        }
    }
}

/// What is kept of the answer to a command that took effect. The rest stands in the command, when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A file was put.
    Put {
        /// The entry.
        id: EntryId,
        /// Whether nothing was there before.
        created: bool,
        /// What it holds.
        content: Content,
        /// When.
        modified_ms: u64,
    },
    /// References were added.
    Added,
    /// A manifest was given up.
    Abandoned,
    /// A directory is there.
    Directory {
        /// The entry.
        id: EntryId,
        /// Whether this command made it.
        created: bool,
        /// When it was made.
        modified_ms: u64,
    },
    /// Entries were removed.
    Deleted {
        /// How many.
        removed: u32,
        /// Whether some are left.
        more: bool,
    },
    /// A damaged copy was noted, or was not the tenant's any more.
    Reported,
}

/// What was answered under an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// SHA-256 of what makes the request what it is.
    pub fingerprint: [u8; 32],
    /// Forgotten then, in log time.
    pub expires_ms: u64,
    /// What was answered.
    pub answer: Answer,
}
