//! What can go wrong, for each operation of a group.

mod between;

use std::io;
use std::path::PathBuf;

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::MemberId;

use crate::machine::StateError;

pub use between::{MembersError, Refusal};

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk said no.
    #[error("{what} {path}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The disk's own words.
        #[source]
        source: io::Error,
    },
    /// The directory belongs to something else.
    #[error("{path} belongs to {found}, not to {wanted}: give this server the right directory", path = path.display())]
    Foreign {
        /// The identity file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A later program wrote it.
    #[error("{path} has format {found}; this program knows formats up to {known}: use the newer program", path = path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// Stored bytes contradict themselves where a crash can't have done it.
    #[error(
        "{path} is damaged: {what}. Nothing was changed. Restore the directory from a backup, or remove this member \
         and let it join anew", path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The state machine could not be opened or brought up to date.
    #[error("the state machine of group {group}")]
    State {
        /// The name of the group.
        group: String,
        /// Why.
        #[source]
        source: StateError,
    },
    /// The configuration can't work.
    #[error("{0}")]
    Config(String),
    /// The consensus itself did not come up.
    #[error("group {group} did not start: {what}")]
    Raft {
        /// The name of the group.
        group: String,
        /// In the library's words.
        what: String,
    },
}

/// Who leads a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Which member.
    pub member: MemberId,
    /// Where it is reached; empty where it never said.
    pub address: String,
}

impl Leader {
    pub(crate) fn of(id: Option<u64>, node: Option<&openraft::BasicNode>) -> Option<Self> {
        let address = node.map(|node| node.addr.clone()).unwrap_or_default();
        id.map(|id| Self { member: MemberId(id), address })
    }
}

/// For messages.
fn who_leads(leader: Option<&Leader>) -> String {
    match leader {
        None => String::new(),
        Some(Leader { member, address }) if address.is_empty() => format!("; member {member} does"),
        Some(Leader { member, address }) => format!("; member {member} at {address} does"),
    }
}

/// Why a command got no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or none. Nothing was done.
    #[error("this member does not lead group {group}{}", who_leads(leader.as_ref()))]
    NotLeader {
        /// The name of the group.
        group: String,
        /// Who leads, where known.
        leader: Option<Leader>,
    },
    /// Too many commands wait. Nothing was done.
    #[error("group {0} has too many commands waiting")]
    Overloaded(String),
    /// The command is larger than a log record may be. Nothing was done.
    #[error("a command of {bytes} bytes; at most {max} fit")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// No majority took it in time, or this member lost the leadership meanwhile. Whether it is done is not known: it
    /// may still be.
    #[error("whether group {0} took the command is not known: no majority answered in time")]
    Unknown(String),
    /// The disk of the log is full. Nothing was done.
    #[error("the disk that holds the log of group {0} is full: make room there; it goes on by itself")]
    Full(String),
    /// The group stopped. Whether the command is done shows after the next start.
    #[error("group {group} has stopped: {why}")]
    Stopped {
        /// The name of the group.
        group: String,
        /// What stopped it.
        why: String,
    },
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        let code = match &error {
            ProposeError::NotLeader { .. } => ErrorCode::NotLeader,
            ProposeError::Overloaded(_) => ErrorCode::Overloaded,
            ProposeError::TooLarge { .. } => ErrorCode::TooLarge,
            ProposeError::Unknown(_) => ErrorCode::DeadlineExceeded,
            ProposeError::Full(_) => ErrorCode::StorageFull,
            ProposeError::Stopped { .. } => ErrorCode::Unavailable,
        };
        Failure::new(code, error.to_string())
    }
}

/// Why a read could not be made linearizable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another member leads, or none.
    #[error("this member does not lead group {group}{}", who_leads(leader.as_ref()))]
    NotLeader {
        /// The name of the group.
        group: String,
        /// Who leads, where known.
        leader: Option<Leader>,
    },
    /// No majority answered in time.
    #[error("group {0} has no majority that answers")]
    NoMajority(String),
    /// Too many reads wait.
    #[error("group {0} has too many reads waiting")]
    Overloaded(String),
    /// The group stopped.
    #[error("group {group} has stopped: {why}")]
    Stopped {
        /// The name of the group.
        group: String,
        /// What stopped it.
        why: String,
    },
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::NotLeader { .. } => ErrorCode::NotLeader,
            ReadError::NoMajority(_) | ReadError::Stopped { .. } => ErrorCode::Unavailable,
            ReadError::Overloaded(_) => ErrorCode::Overloaded,
        };
        Failure::new(code, error.to_string())
    }
}

/// Why a group did not end cleanly. It has ended all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group {group} did not end cleanly: {what}")]
pub struct ShutdownError {
    /// The name of the group.
    pub group: String,
    /// What went wrong.
    pub what: String,
}
