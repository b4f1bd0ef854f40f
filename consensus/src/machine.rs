//! What a group replicates into: the state machine, as the consensus sees it.

use std::io;
use std::path::Path;

use bytes::Bytes;
use hay_common::disk::is_full;

/// A place in the log. Orders by index within one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the entry, from 0 (the first membership).
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
}

/// Why a state machine could not do what it was told. Each stops the group: state that may have diverged
/// must not go on. Only where a snapshot meets a full disk it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk said no.
    #[error("{what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The disk's own words.
        #[source]
        source: io::Error,
    },
    /// Stored state contradicts itself.
    #[error("{0}")]
    Corrupt(String),
    /// Stored state was written by a later version of this program.
    #[error("{what} has format {found}; this program knows formats up to {known}: use the newer program")]
    NewerVersion {
        /// What was read, with the path.
        what: String,
        /// The format that was found.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The storage engine below the state machine said no.
    #[error("the storage engine failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StateError {
    /// Whether the disk was full. Engines below a state machine pass on nothing but the system's words.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::Engine(error) => error.to_string().contains("No space left on device"),
            Self::Corrupt(_) | Self::NewerVersion { .. } => false,
        }
    }
}

/// Deterministic state behind a replicated log. Owned by one thread of its group; never called concurrently.
pub trait StateMachine: Send + 'static {
    /// The `applied` that came with the last [`apply`](Self::apply) or [`install`](Self::install) which this
    /// machine still has; `None` for a new one. What follows it is applied again.
    ///
    /// # Errors
    /// When it can't be read.
    fn applied(&self) -> Result<Option<Bytes>, StateError>;

    /// Applies the commands of several log entries as ONE atomic write together with `applied` (opaque, returned by
    /// [`applied`](Self::applied) later). One reply for each command, in order. `commands` may be empty: `applied`
    /// is to be kept all the same. Need not be durable before [`snapshot`](Self::snapshot): the log is.
    ///
    /// # Errors
    /// Any error stops the group. What a command may not do is a reply, not an error.
    fn apply(&mut self, commands: Vec<Bytes>, applied: Bytes) -> Result<Vec<Bytes>, StateError>;

    /// Makes all that was applied durable, and puts a self-contained copy into the empty directory `dir` (synced,
    /// the directory too). The log is purged only below this.
    ///
    /// # Errors
    /// Any error stops the group, but for a full disk: then it is asked again later, with an empty directory.
    fn snapshot(&mut self, dir: &Path) -> Result<(), StateError>;

    /// Replaces the state by the copy in `dir`, durably; `applied` as in [`apply`](Self::apply). `dir` must stay as it is.
    ///
    /// # Errors
    /// Any error stops the group, but for a full disk: then it is asked again, and must find what it needs as it was.
    fn install(&mut self, dir: &Path, applied: Bytes) -> Result<(), StateError>;
}
