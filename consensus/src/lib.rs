//! A replicated log of opaque commands in front of a state machine: openraft behind a thin seam.
//!
//! The owner gives a [`StateMachine`] and proposes commands; this crate keeps the log on disk, gathers commands into
//! proposals so that they share a sync, applies them in order on one thread, takes snapshots and purges the log below
//! them. It knows nothing of what the commands mean.

mod apply;
mod barrier;
mod config;
mod due;
mod envelope;
mod error;
mod formation;
mod group;
pub mod grpc;
mod identity;
mod leadership;
mod log;
mod machine;
mod members;
mod network;
mod open;
mod proposer;
mod receive;
mod room;
mod snapshot;
mod start;
mod status;
pub mod switchboard;
mod transfer;
pub mod transport;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use config::GroupConfig;
pub use error::{Leader, MembersError, ProposeError, ReadError, Refusal, ShutdownError, StartError};
pub use formation::FormationId;
pub use group::Group;
pub use grpc::{GrpcTransport, RaftEndpoint};
pub use machine::{Position, StateError, StateMachine};
pub use start::GroupDeps;
pub use status::{GroupCounters, GroupMember, GroupStatus};
