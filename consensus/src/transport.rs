//! How messages travel between members: the seam between the consensus and what carries it. Between processes that is
//! gRPC ([`crate::grpc`]); tests and simulations put a [`crate::switchboard`] there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, MemberId};

use crate::formation::FormationId;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Log entries and heartbeats of a leader.
    Append,
    /// A candidate asks for a vote.
    Vote,
    /// Who is there.
    Describe,
    /// A promise to belong to the group that is about to be formed.
    Promise,
    /// A new member asks to be taken in.
    Join,
}

/// Who speaks to whom, and what. Anybody else refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Of which of its groups.
    pub group: String,
    /// Of which formation of that group; `None` from a member that belongs to none yet.
    pub formation: Option<FormationId>,
    /// Who speaks.
    pub from: MemberId,
    /// Who is meant; `None`: whoever is there.
    pub to: Option<MemberId>,
    /// Opaque to what carries it.
    pub body: Bytes,
}

/// A part of a snapshot on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPart {
    /// The first: whose it is, and what it holds.
    Begin(Envelope),
    /// A piece of a file. Pieces of one file follow each other.
    File(FilePart),
    /// The last. A stream that ends without was cut.
    End(SnapshotEnd),
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// Relative, `/` between parts of the path.
    pub name: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// At most 1 MiB.
    pub data: Bytes,
    /// CRC32C of `data`.
    pub crc: u32,
    /// The file's last piece.
    pub last: bool,
}

/// What must have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// CRC32C over each file's name, length and CRC32C.
    pub crc: u32,
}

/// What a receiver says while a snapshot arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotAck {
    /// So many bytes are written; it goes on.
    Progress(u64),
    /// Installed, or known to be out of date: the answer.
    Done(Bytes),
}

/// Why a message got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, or one that broke. Whether the message arrived is not known.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came in time. Whether the message arrived is not known.
    #[error("no answer in time")]
    TimedOut,
    /// It arrived and was not taken.
    #[error("{0}")]
    Refused(Failure),
}

impl From<Failure> for TransportError {
    fn from(failure: Failure) -> Self {
        match failure.code {
            ErrorCode::DeadlineExceeded => Self::TimedOut,
            ErrorCode::Unavailable => Self::Unreachable(failure.message),
            _ => Self::Refused(failure),
        }
    }
}

/// The parts of a snapshot, as its sender reads them. An error cuts the transfer.
pub type Parts = BoxStream<'static, io::Result<SnapshotPart>>;
/// The parts of a snapshot, as they arrive.
pub type ArrivingParts = BoxStream<'static, Result<SnapshotPart, TransportError>>;
/// What a receiver says.
pub type Acks = BoxStream<'static, Result<SnapshotAck, TransportError>>;

/// Carries messages to members at addresses. Cheap to call; keeps its connections itself.
pub trait Transport: Send + Sync + 'static {
    /// Carries one message, and its answer back.
    fn call(
        &self,
        address: &str,
        kind: CallKind,
        envelope: Envelope,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;

    /// Carries a snapshot.
    fn snapshot(&self, address: &str, parts: Parts) -> BoxFuture<'static, Result<Acks, TransportError>>;
}

/// A transport that many hold.
pub type SharedTransport = Arc<dyn Transport>;
