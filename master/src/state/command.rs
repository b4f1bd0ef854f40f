//! What changes the state, as it stands in the log: a version byte, then postcard.

use bytes::Bytes;
use hay_common::ids::{Epoch, NodeId, VolumeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Class, Configuration, Node};

/// The format of commands and outcomes in the log.
const FORMAT: u8 = 1;

/// A volume that shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVolume {
    /// What it is for.
    pub class: Class,
    /// Who shall hold it, the primary first.
    pub nodes: Vec<NodeId>,
}

/// A change. Whoever proposes one decided on a state that may be older: each checks again as it applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Sets what operators may set.
    Configure(Configuration),
    /// Enters a volume server, or what is new of it.
    Register {
        /// Which server.
        node: NodeId,
        /// What it says of itself.
        info: Node,
    },
    /// Gives ids to new volumes.
    Create(Vec<NewVolume>),
    /// All members have created the volume: it takes appends.
    Opened {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that they have.
        epoch: Epoch,
    },
    /// Begins to fence a volume.
    Seal {
        /// Which volume.
        volume: VolumeId,
        /// The epoch to be fenced; another one means that it was done already.
        epoch: Epoch,
        /// The least epoch that fences it: above every one that a member has reported.
        fence: Epoch,
    },
    /// A member has durably taken the fencing epoch, and all others have too or are gone.
    Sealed {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that fences it.
        epoch: Epoch,
    },
    /// Begins to fill a further server of a sealed volume. The volume's epoch grows, so that what reports of it come from
    /// before are told apart. (A target that is a member already ceases to be a replica: no plan says so any more, see
    /// [`Command::Complete`].)
    Repair {
        /// Which volume.
        volume: VolumeId,
        /// Its epoch; another one means that its members have changed since this was planned.
        epoch: Epoch,
        /// Who is filled.
        target: NodeId,
        /// Whose place it takes once it is filled.
        replaces: Option<NodeId>,
    },
    /// The target holds what its sources hold, on disk, and one of them knew of every needle.
    Filled {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the target has reported.
        epoch: Epoch,
        /// Who was filled.
        target: NodeId,
    },
    /// Gives a fill up. Its target is no member any more, unless it was one before and was being completed: that is a
    /// replica again, with what it holds.
    CancelFill {
        /// Which volume.
        volume: VolumeId,
        /// Who was to be filled.
        target: NodeId,
    },
    /// Begins to complete a member of a sealed volume where it is, or to write it anew there. It stays one that is read from.
    /// The epoch grows as by [`Command::Repair`].
    Complete {
        /// Which volume.
        volume: VolumeId,
        /// Its epoch; another one means that its members have changed since this was planned.
        epoch: Epoch,
        /// Which member.
        target: NodeId,
    },
    /// The target holds what its sources could give, and may lack needles all the same. It is a replica; whose place it was to
    /// take stays a member, for it may have them.
    FilledInPart {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the target has reported.
        epoch: Epoch,
        /// Who was filled.
        target: NodeId,
    },
    /// Gives up a volume that was never opened. Nothing was ever written to it: no writer knew of it.
    Abandon {
        /// Which volume.
        volume: VolumeId,
        /// Its epoch.
        epoch: Epoch,
    },
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no such volume.
    #[error("no such volume")]
    UnknownVolume,
    /// There is no such node.
    #[error("no such volume server")]
    UnknownNode,
    /// It has been done, or the volume has gone on to another epoch or state.
    #[error("the volume has gone on to another epoch or state")]
    Passed,
    /// A limit is reached.
    #[error("a limit of the cluster is reached")]
    Limit,
    /// A value that can't be.
    #[error("a value that can't be")]
    Invalid,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// What it says.
    Done,
    /// These volumes are in the map now.
    Created(Vec<VolumeId>),
    /// Nothing.
    Refused(Refusal),
}

/// Bytes of the log that are no command of a known format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a later program.
    #[error("format {0} is newer than this program")]
    NewerVersion(u8),
    /// Anything else.
    #[error("the bytes can't be read")]
    Malformed,
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, postcard::Error> {
    postcard::to_extend(value, vec![FORMAT]).map(Bytes::from)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(DecodeError::Malformed),
        },
        Some((format, _)) if *format > FORMAT => Err(DecodeError::NewerVersion(*format)),
        _ => Err(DecodeError::Malformed),
    }
}

impl Command {
    /// As it stands in the log.
    pub fn encode(&self) -> Result<Bytes, postcard::Error> {
        encode(self)
    }

    /// The command in a log entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}

impl Outcome {
    /// As it is answered.
    pub fn encode(&self) -> Result<Bytes, postcard::Error> {
        encode(self)
    }

    /// The outcome in an answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}
