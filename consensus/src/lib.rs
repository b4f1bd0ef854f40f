//! A replicated log of opaque commands in front of a state machine: openraft behind a thin seam.
//!
//! The owner gives a [`StateMachine`] and proposes commands; this crate keeps the log on disk, gathers commands into
//! proposals so that they share a sync, applies them in order on one thread, takes snapshots and purges the log below
//! them. It knows nothing of what the commands mean.

mod apply;
mod barrier;
mod config;
mod envelope;
mod error;
mod group;
mod identity;
mod leadership;
mod log;
mod machine;
mod network;
mod open;
mod proposer;
mod snapshot;
mod status;
mod types;

#[cfg(test)]
mod tests;

pub use config::GroupConfig;
pub use error::{ProposeError, ReadError, ShutdownError, StartError};
pub use group::Group;
pub use machine::{Position, StateError, StateMachine};
pub use status::{GroupCounters, GroupMember, GroupStatus};
