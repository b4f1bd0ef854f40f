//! What is written to the log: commands, and the replies that applying them gives.
//!
//! A command carries the time and the ids that it needs: applying it asks nobody. Stored as a version byte and
//! postcard, so enums grow at their ends only.

use std::fmt;

use bytes::Bytes;
use hay_common::error::Failure;
use hay_common::ids::{ContentHash, CopyId, EntryId, ManifestId, PrincipalId, SessionId, TenantId};
use hay_common::model::{Chunk, Copy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::schema::values::{Answer, DecodeRowError, Row};

/// SHA-256 of a bearer token.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A command and the moment when it was proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The proposer's wall clock, in ms since 1970.
    pub wall_ms: u64,
    /// What is to be done.
    pub op: Op,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one; a box would cost each of them")]
pub enum Op {
    /// Something that a gateway sends on behalf of a principal; applied once.
    Client(ClientCommand),
    /// Opens ingest sessions under these ids.
    OpenSessions {
        /// Random ids.
        sessions: Vec<SessionId>,
    },
    /// Moves the log time on.
    Tick,
    /// Drops some references of manifests that nothing counts on any more.
    Drain,
    /// Forgets some sessions, answers and unpublished manifests whose time is over.
    Expire,
    /// Makes a tenant and its administrator, where they are not there yet.
    Bootstrap(Bootstrap),
}

/// A command of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCommand {
    /// Who.
    pub token: TokenHash,
    /// In which session of the gateway.
    pub session: SessionId,
    /// From 1; each takes effect at most once in its session.
    pub sequence: u64,
    /// What.
    pub action: Action,
}

/// What a principal may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Makes a file appear, or replaces it.
    PutFile(PutFile),
    /// Adds chunks to an unpublished manifest.
    AddReferences(AddReferences),
    /// Gives an unpublished manifest up.
    AbandonManifest {
        /// Which.
        manifest: ManifestId,
    },
    /// Makes a directory and those above it.
    MakeDirectory(MakeDirectory),
    /// Removes a file or a directory.
    Delete(Delete),
    /// Says that a copy which the tenant uses was found damaged, or missing.
    ReportDamaged {
        /// Of which content.
        hash: ContentHash,
        /// Which copy.
        copy: CopyId,
    },
}

/// `If-Match` and `If-None-Match`. Empty: no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Condition {
    /// The entry must have one of these.
    pub if_match: Vec<ContentHash>,
    /// The entry must exist.
    pub if_match_any: bool,
    /// The entry must not have one of these.
    pub if_none_match: Vec<ContentHash>,
    /// The entry must not exist.
    pub if_none_match_any: bool,
}

/// What a client asked to have done only once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The client's `Idempotency-Key`.
    pub key: String,
    /// SHA-256 of what makes the request what it is.
    pub fingerprint: [u8; 32],
}

/// A chunk that a command counts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The chunk.
    pub chunk: Chunk,
    /// A copy that was appended for it. Without one the tenant must own the content already.
    pub new_copy: Option<Copy>,
}

/// What a file is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewContent {
    /// Nothing.
    Empty,
    /// One chunk.
    Chunk(ChunkRef),
    /// The chunks of a manifest that is complete.
    Manifest {
        /// Which.
        id: ManifestId,
        /// The hash of its root.
        root: ContentHash,
        /// Chunks.
        chunk_count: u32,
        /// Bytes.
        size: u64,
    },
}

/// Makes a file appear, or replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutFile {
    /// Where.
    pub path: String,
    /// If.
    pub condition: Condition,
    /// The media type.
    pub content_type: Option<String>,
    /// Lower-case names, sorted, unique.
    pub user_metadata: Vec<(String, String)>,
    /// The id of the entry, if it is new.
    pub entry_id: EntryId,
    /// Parents that are made get this plus 0, 1 … from the innermost outwards. Random.
    pub directory_seed: u128,
    /// What it holds.
    pub content: NewContent,
    /// Once only.
    pub idempotency: Option<Idempotency>,
}

/// Adds chunks to an unpublished manifest, and makes it where it is not there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddReferences {
    /// Which.
    pub manifest: ManifestId,
    /// The number of the first chunk.
    pub first_number: u32,
    /// Where it begins in the file, in bytes.
    pub first_offset: u64,
    /// In the order of the file.
    pub chunks: Vec<ChunkRef>,
}

/// Makes a directory and those above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Where.
    pub path: String,
    /// Its id, if it is new.
    pub entry_id: EntryId,
    /// As in [`PutFile::directory_seed`].
    pub directory_seed: u128,
    /// Whether one that is there is no error.
    pub exist_ok: bool,
    /// Once only.
    pub idempotency: Option<Idempotency>,
}

/// Removes a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Where.
    pub path: String,
    /// If.
    pub condition: Condition,
    /// With all that is below.
    pub recursive: bool,
    /// Once only.
    pub idempotency: Option<Idempotency>,
}

/// Makes a tenant and its administrator. What is there already stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The tenant's name.
    pub tenant_name: String,
    /// Its id, if it is new.
    pub tenant: TenantId,
    /// The id of its root, if it is new.
    pub root: EntryId,
    /// The administrator's id, if the token is new.
    pub principal: PrincipalId,
    /// The administrator's token.
    pub token: TokenHash,
}

/// What applying a proposal gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To a client's command.
    Client(Result<Answer, Failure>),
    /// To [`Op::OpenSessions`]: when they are over, and the log time now, in ms.
    Sessions(Result<SessionsOpened, Failure>),
    /// To [`Op::Tick`].
    Ticked {
        /// The log time now, in ms.
        log_ms: u64,
        /// By how much the proposer's clock is still ahead, in ms: more than 0 where the jump was cut.
        behind_ms: u64,
    },
    /// To [`Op::Drain`] and [`Op::Expire`].
    Swept {
        /// References dropped, or rows forgotten.
        done: u64,
        /// Whether some are left.
        more: bool,
    },
    /// To [`Op::Bootstrap`].
    Bootstrapped(Result<Bootstrapped, Failure>),
}

/// Sessions that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsOpened {
    /// In log time, ms.
    pub expires_ms: u64,
    /// The log time now, ms.
    pub log_ms: u64,
}

/// Who is there after a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrapped {
    /// The tenant.
    pub tenant: TenantId,
    /// The principal behind the token.
    pub principal: PrincipalId,
    /// Whether the tenant was made by this command.
    pub created: bool,
}

impl Row for Proposal {
    const NAME: &'static str = "log command";
}

impl Row for Reply {
    const NAME: &'static str = "log reply";
}

/// As it stands in the log.
pub fn encode<T: Row + DeserializeOwned>(what: &T) -> Bytes {
    Bytes::from(what.encode())
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Says whether it is damaged or newer.
pub fn decode<T: Row>(bytes: &[u8]) -> Result<T, DecodeRowError> {
    T::decode(bytes)
}

impl Action {
    /// Whether it may make the store grow.
    pub fn grows(&self) -> bool {
        match self {
            Self::PutFile(_) | Self::AddReferences(_) | Self::MakeDirectory(_) => true,
            Self::AbandonManifest { .. } | Self::Delete(_) | Self::ReportDamaged { .. } => false,
        }
    }

    /// Whether it changes the tenant's tree. A report does not: who may only read may make one too.
    pub fn changes_tree(&self) -> bool {
        !matches!(self, Self::ReportDamaged { .. })
    }

    /// What asks for it to be done once only.
    pub fn idempotency(&self) -> Option<&Idempotency> {
        match self {
            Self::PutFile(put) => put.idempotency.as_ref(),
            Self::MakeDirectory(make) => make.idempotency.as_ref(),
            Self::Delete(delete) => delete.idempotency.as_ref(),
            Self::AddReferences(_) | Self::AbandonManifest { .. } | Self::ReportDamaged { .. } => None,
        }
    }

    /// Whether `answer` is one that this action gives.
    pub fn could_answer(&self, answer: &Answer) -> bool {
        matches!(
            (self, answer),
            (Self::PutFile(_), Answer::Put { .. })
                | (Self::AddReferences(_), Answer::Added)
                | (Self::AbandonManifest { .. }, Answer::Abandoned)
                | (Self::MakeDirectory(_), Answer::Directory { .. })
                | (Self::Delete(_), Answer::Deleted { .. })
                | (Self::ReportDamaged { .. }, Answer::Reported)
        )
    }
}
