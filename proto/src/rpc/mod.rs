//! What every inner call crosses, whichever of the two bindings carries it.
//!
//! A direct call runs on the caller's task: dropping the caller drops the handler at its next await. So no handler
//! may hold a half-done commit in its own future: what must happen as a whole belongs to an owner task of the service,
//! and the handler only awaits its answer.

mod bindings;
mod cluster_key;
#[cfg(test)]
mod conformance;
mod context;
pub mod credential;
mod gate;
mod guard;
mod in_process;
mod layer;
pub mod lease;
mod meters;
pub mod permissions;
mod sign;
mod status;
pub mod transport;
mod verified;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use hay_common::ids::NodeId;

use tonic::Status;

use crate::v1::filer_server::Filer;
use crate::v1::master_server::Master;
use crate::v1::raft_server::Raft;
use crate::v1::volume_server::Volume;
use crate::v1::{HeartbeatCommand, RaftSnapshotAck, ReadPart, VolumeMapReply};

pub use bindings::{
    RemoteFiler, RemoteMaster, RemoteRaft, RemoteVolume, Rpc, direct_filer, direct_master, direct_raft,
    direct_volume, remote_filer, remote_master, remote_raft, remote_volume, serve_filer, serve_master,
    serve_raft, serve_volume,
};
pub use context::{RequestContext, RequestId, request_id, with_request_id};
pub use gate::Gate;
pub use guard::Guard;
pub use in_process::in_process;
pub use layer::{Layer, Layered, MESSAGE_BYTES_MAX, Payload, Watch};
pub use sign::{Credentials, Sign, set_timeout};
pub use status::{CODE_KEY, LEADER_KEY, leader_of, to_failure, to_status, with_leader};

/// A stream of messages as handlers return it.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A volume server, by either binding.
pub type DynVolume = Arc<dyn Volume<ReadStream = BoxStream<ReadPart>>>;
/// The filer, by either binding.
pub type DynFiler = Arc<dyn Filer>;
/// The masters, by either binding.
pub type DynMaster = Arc<
    dyn Master<
            HeartbeatStream = BoxStream<HeartbeatCommand>,
            WatchVolumeMapStream = BoxStream<VolumeMapReply>,
        >,
>;

/// The replicated groups of a process, by either binding.
pub type DynRaft = Arc<dyn Raft<InstallSnapshotStream = BoxStream<RaftSnapshotAck>>>;

/// What a part of the cluster may do depends on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Holds the volume map.
    Master,
    /// Holds needles.
    VolumeServer,
    /// Holds metadata.
    Filer,
    /// Speaks HTTP, and acts for principals.
    Gateway,
    /// An operator's tool.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::VolumeServer => "volume server",
            Self::Filer => "filer",
            Self::Gateway => "gateway",
            Self::Admin => "administrator's tool",
        })
    }
}

/// Who calls. A request extension: it is put there by the client layer within a process or by the server layer after it has verified
/// a credential, and cannot cross the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// In which role.
    pub role: Role,
    /// Which server.
    pub node: NodeId,
}
