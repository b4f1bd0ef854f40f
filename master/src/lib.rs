//! Masters: the volume map, write leases and the node registry, agreed on by Raft.
//!
//! [`state`] and [`plan`] are pure. [`live`] is what the leader knows from heartbeats and forgets with its leadership.
//! The core ties them to the consensus; one task decides and acts. A master dials nobody: commands go down the
//! heartbeat streams.

mod config;
mod core;
mod duties;
mod error;
mod grpc;
mod heartbeat;
mod info;
pub mod live;
mod machine;
mod members;
pub mod plan;
pub mod state;
mod status;
mod suspicion;
mod terms;

#[cfg(test)]
mod tests;

pub use config::{MasterConfig, MasterDeps, MasterNetwork};
pub use core::{Master, MasterCore};
pub use error::{ChangeError, HeartbeatError, LeaseError, MapError, RepairError, StartError};
pub use info::{ClusterStatus, MapPage, MemberInfo, NodeInfo, VolumeInfo, WriteLease};
pub use members::{ChangeMastersError, MastersChange, MastersChanged};
