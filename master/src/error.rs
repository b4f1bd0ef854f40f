//! What can go wrong in a master.

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, NodeId, VolumeId};
use hay_common::limits::{HEARTBEAT_VOLUMES_MAX, RPC_BATCH_ITEMS_MAX, VOLUMES_AVOIDED_MAX};
use hay_common::model::SizeClass;
use hay_consensus::{ProposeError, ReadError};

use crate::plan::{Irreparable, Shortage};
use crate::state::{DecodeError, Refusal};

/// Why a master did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its group did not start.
    #[error("the masters' group did not start")]
    Group(#[from] hay_consensus::StartError),
    /// A first setting could not be made.
    #[error("the masters' configuration could not be set")]
    Configure(#[from] ChangeError),
}

/// Why a change of the masters' state was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The group refused it or stopped.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The command could not be written down.
    #[error("the command could not be encoded")]
    Encode(#[from] postcard::Error),
    /// The answer can't be read.
    #[error("the answer of the masters' state can't be read")]
    Answer(#[from] DecodeError),
    /// The state did not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a heartbeat stream ends.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// This master does not lead.
    #[error("this master does not lead; the leader takes the heartbeats")]
    NotLeader,
    /// Another cluster's server.
    #[error(
        "the volume server belongs to cluster {0}, this master to another: give it the right address or directory"
    )]
    OtherCluster(ClusterId),
    /// A server that speaks for another.
    #[error("the caller is {peer}, but reports as {node}")]
    OtherNode {
        /// Whose credential it has.
        peer: NodeId,
        /// Whose report it is.
        node: NodeId,
    },
    /// The server changed its name within a stream.
    #[error("a heartbeat stream speaks for one volume server; open another for {0}")]
    SecondNode(NodeId),
    /// Another process with the same id reports at the same time.
    #[error(
        "volume server {node} reports already, from {address}: two processes have one id; is a directory a copy of another's? \
         Stop one of them, and give it a directory of its own"
    )]
    Twin {
        /// Whose id.
        node: NodeId,
        /// Where the one is that was first.
        address: String,
    },
    /// Too much in one message.
    #[error("{0} volumes in one report; at most {HEARTBEAT_VOLUMES_MAX}")]
    TooMany(usize),
    /// Another stream speaks for the server now.
    #[error("another stream speaks for this volume server now")]
    Replaced,
    /// The server could not be entered.
    #[error("the volume server could not be registered")]
    Register(#[from] ChangeError),
}

impl From<HeartbeatError> for Failure {
    fn from(error: HeartbeatError) -> Self {
        let code = match &error {
            HeartbeatError::NotLeader => ErrorCode::NotLeader,
            HeartbeatError::OtherNode { .. } | HeartbeatError::Twin { .. } => ErrorCode::Forbidden,
            HeartbeatError::OtherCluster(_) | HeartbeatError::SecondNode(_) | HeartbeatError::TooMany(_) => {
                ErrorCode::InvalidArgument
            }
            HeartbeatError::Replaced => ErrorCode::Unavailable,
            HeartbeatError::Register(ChangeError::Refused(_)) => ErrorCode::InvalidArgument,
            HeartbeatError::Register(_) => ErrorCode::Unavailable,
        };
        let why = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Failure::new(code, format!("{error}{why}"))
    }
}

/// Why no write lease was granted.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// This master does not lead.
    #[error("this master does not lead; the leader grants write leases")]
    NotLeader,
    /// More than anybody avoids.
    #[error("{0} volumes to avoid; at most {VOLUMES_AVOIDED_MAX}")]
    TooMany(usize),
    /// Nothing can be written to.
    #[error("{}", describe(.0))]
    Short(Shortage),
}

/// In words, what keeps writers from getting volumes.
pub(crate) fn describe(shortage: &Shortage) -> String {
    match shortage {
        Shortage::NoServers => "no volume server has reported yet".to_owned(),
        Shortage::TooFew { tier, there, wanted } => {
            let tier = if tier.is_empty() { String::new() } else { format!(" of tier {tier}") };
            format!(
                "a new volume needs {wanted} volume servers{tier}, and {there} can take one: start more (`hay cluster status` \
                 says why others get none), or give the masters a lower --replicas"
            )
        }
        Shortage::NoRoom { roomy: 0, .. } => {
            "no volume server has room above its free-space reserve: add disks or delete".to_owned()
        }
        Shortage::NoRoom { roomy, wanted } => format!(
            "a new volume needs {wanted} volume servers with room above their free-space reserves, and {roomy} has it: add \
             disks or servers, or delete"
        ),
        Shortage::Failing { size, wait, reason } => format!(
            "no volume for {} contents can be written to: volume servers fail each other; {reason}. The next ones are made in \
             {} s",
            called(*size),
            wait.as_secs() + 1
        ),
        Shortage::NotYet(size) => {
            format!("no volume for {} contents can be written to; others are being made", called(*size))
        }
    }
}

fn called(size: SizeClass) -> &'static str {
    match size {
        SizeClass::Small => "small",
        SizeClass::Large => "large",
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        let code = match &error {
            LeaseError::NotLeader => ErrorCode::NotLeader,
            LeaseError::TooMany(_) => ErrorCode::InvalidArgument,
            LeaseError::Short(Shortage::NoRoom { .. }) => ErrorCode::StorageFull,
            LeaseError::Short(_) => ErrorCode::Unavailable,
        };
        Failure::new(code, error.to_string())
    }
}

/// Why a volume is not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// This master does not lead.
    #[error("this master does not lead; the leader repairs volumes")]
    NotLeader,
    /// It can't be, as things are.
    #[error("volume {0} can't be repaired: {1}")]
    Irreparable(VolumeId, Irreparable),
    /// It could not be begun.
    #[error("the repair could not be begun")]
    Change(#[from] ChangeError),
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        let code = match &error {
            RepairError::NotLeader => ErrorCode::NotLeader,
            RepairError::Irreparable(_, Irreparable::Unknown) => ErrorCode::NotFound,
            RepairError::Irreparable(_, Irreparable::NotSealed | Irreparable::NotOpened) => {
                ErrorCode::PreconditionFailed
            }
            RepairError::Irreparable(..) | RepairError::Change(_) => ErrorCode::Unavailable,
        };
        let why = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Failure::new(code, format!("{error}{why}"))
    }
}

/// Why the map can't be read here.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The group can't say that this is the newest.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has no map.
    #[error("this master knows of no volume yet")]
    Nothing,
    /// Too many at once.
    #[error("{0} volumes asked for; at most {RPC_BATCH_ITEMS_MAX}")]
    TooMany(usize),
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Read(error) => error.into(),
            MapError::Nothing => Failure::new(ErrorCode::Unavailable, error.to_string()),
            MapError::TooMany(_) => Failure::new(ErrorCode::InvalidArgument, error.to_string()),
        }
    }
}
