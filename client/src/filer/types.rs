//! What the filer is asked and answers, in domain types.

use hay_common::ids::{ClusterId, ContentHash, EntryId, ManifestId, TenantId};
use hay_common::model::{Chunk, Copy, EntryInfo, LocatedChunk, Principal};
use hay_common::random::Random;

/// SHA-256 of a caller's bearer token: how the filer knows principals.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// Who is behind a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whoami {
    /// The principal.
    pub principal: Principal,
    /// Its tenant's name.
    pub tenant_name: String,
}

/// `If-Match` and `If-None-Match`, parsed. The default is no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// The entry must exist with one of these.
    pub if_match: Vec<ContentHash>,
    /// The entry must exist, with whatever content.
    pub if_match_any: bool,
    /// The entry must not exist with one of these.
    pub if_none_match: Vec<ContentHash>,
    /// The entry must not exist.
    pub if_none_match_any: bool,
}

/// What a writer says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Lower-case names, sorted, unique.
    pub user_metadata: Vec<(String, String)>,
}

/// Ids for what a command may make. Drawn by the caller: a decision of the filer draws nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewIds {
    /// Of the entry itself.
    pub entry: EntryId,
    /// What the ids of missing parent directories are derived from.
    pub directories: u128,
}

impl NewIds {
    /// New ones.
    pub fn draw(random: &dyn Random) -> Self {
        Self { entry: EntryId::from_random(random.u128()), directories: random.u128() }
    }
}

/// An `Idempotency-Key` and what it was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// As the client gave it.
    pub key: String,
    /// SHA-256 of what makes the request what it is.
    pub fingerprint: [u8; 32],
}

/// A put but for its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutFile {
    /// Inside the tenant's tree, no slash in front.
    pub path: String,
    /// What must hold at the path.
    pub condition: Condition,
    /// What is kept beside the bytes.
    pub attributes: Attributes,
    /// Ids of what may be made.
    pub ids: NewIds,
    /// Acts once for its key.
    pub idempotency: Option<Idempotency>,
}

/// A chunk that a command refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// The chunk.
    pub chunk: Chunk,
    /// The copy that was appended for it in the command's session; `None` where the tenant owns the content already.
    pub new_copy: Option<Copy>,
}

/// A manifest whose references have been added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestRef {
    /// Which.
    pub id: ManifestId,
    /// The hash of its root node.
    pub root_hash: ContentHash,
    /// Its chunks.
    pub chunk_count: u32,
    /// Bytes of the file.
    pub size: u64,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// No byte.
    Empty,
    /// One chunk.
    Chunk(ChunkRef),
    /// Several.
    Manifest(ManifestRef),
}

/// The answer to a begun put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is done: the tenant owns the content, or it was done before under the same `Idempotency-Key`.
    Finished(Put),
    /// The bytes may come.
    Proceed {
        /// Whose tree it is.
        tenant: TenantId,
    },
}

/// A put or a mkdir that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The entry as it stands.
    pub entry: EntryInfo,
    /// Whether nothing was there before.
    pub created: bool,
}

/// Chunks of an unpublished manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddReferences {
    /// Which manifest; made by its first references.
    pub manifest: ManifestId,
    /// The number of the first chunk in the file.
    pub first_number: u32,
    /// Where it begins in the file, in bytes.
    pub first_offset: u64,
    /// At most [`hay_common::limits::REFS_PER_ROW_MAX`], in the order of the file.
    pub chunks: Vec<ChunkRef>,
}

/// Makes a directory and those above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeDirectory {
    /// Ends in a slash.
    pub path: String,
    /// Ids of what may be made.
    pub ids: NewIds,
    /// An existing directory is no error.
    pub exist_ok: bool,
    /// Acts once for its key.
    pub idempotency: Option<Idempotency>,
}

/// Removes a file, or with a slash at the end a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// What.
    pub path: String,
    /// What must hold at the path.
    pub condition: Condition,
    /// Remove what is in the directory first.
    pub recursive: bool,
    /// Acts once for its key.
    pub idempotency: Option<Idempotency>,
}

/// What one delete command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Entries removed.
    pub removed: u32,
    /// Entries are left: repeat it.
    pub more: bool,
}

/// Which entry, and which of its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The path; a directory's may end in a slash.
    pub path: String,
    /// Chunks from the one that holds this byte …
    pub offset: u64,
    /// … this many at most. 0: the entry alone.
    pub chunks: u32,
    /// The last so many bytes, instead of `offset`.
    pub suffix: Option<u64>,
}

/// An entry and chunks of it, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What stands at the path.
    pub entry: EntryInfo,
    /// The chunks that were asked for.
    pub chunks: Vec<LocatedChunk>,
}

/// Which part of which directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Empty for the root, else with a slash at the end.
    pub directory: String,
    /// All below it.
    pub recursive: bool,
    /// Entries of the page.
    pub limit: u32,
    /// The path, relative to the directory, after which to go on.
    pub after: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their paths' bytes.
    pub entries: Vec<EntryInfo>,
    /// Whether there are further ones.
    pub more: bool,
}

/// What one tenant uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Which tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// Bytes of all its files.
    pub logical_bytes: u64,
    /// Its files.
    pub files: u64,
    /// Its directories.
    pub directories: u64,
}

/// How the filer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilerStatus {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The Raft term.
    pub raft_term: u64,
    /// The last applied log index.
    pub raft_applied: u64,
    /// The log time in ms.
    pub log_time_ms: u64,
    /// Usage of each tenant.
    pub tenants: Vec<Usage>,
    /// Contents that tenants own.
    pub contents_owned: u64,
    /// The sum of their reference counts.
    pub references: u64,
    /// Copies.
    pub copies: u64,
    /// Bytes of the copies' needles.
    pub copy_bytes: u64,
    /// Rows of the delete queue.
    pub delete_queue: u64,
    /// Manifests that no file has yet.
    pub manifests_unpublished: u64,
    /// Manifests whose references are being dropped.
    pub manifests_draining: u64,
    /// Ingest sessions alive.
    pub sessions: u64,
    /// `sync` or `async`.
    pub durability: String,
    /// The engine of the path index.
    pub path_index_mode: String,
    /// Why it can't do its work yet.
    pub not_ready: Option<String>,
}
