//! One Raft group as its owner uses it.

use bytes::Bytes;
use hay_common::disk::SharedDisk;

use crate::config::GroupConfig;
use crate::error::{ProposeError, ReadError, ShutdownError, StartError};
use crate::machine::StateMachine;
use crate::status::GroupStatus;

/// One Raft group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    name: String,
}

impl Group {
    /// Opens or makes the group.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        config: GroupConfig,
        machine: Box<dyn StateMachine>,
        disk: SharedDisk,
    ) -> Result<Group, StartError> {
        drop((machine, disk));
        Ok(Group { name: config.name })
    }

    /// Has `command` applied on a majority, durably, and returns its reply.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        drop(command);
        Err(ProposeError::Stopped { group: self.name.clone(), why: String::new() })
    }

    /// After it, local state is linearizable.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        Err(ReadError::NoMajority(self.name.clone()))
    }

    /// How the group fares.
    pub fn status(&self) -> GroupStatus {
        GroupStatus {
            member: hay_common::ids::MemberId(0),
            leading: false,
            leader: None,
            term: 0,
            applied: None,
            last_log_index: None,
            snapshot: None,
            members: Vec::new(),
            stopped: None,
            counters: Default::default(),
        }
    }

    /// Finishes what is in flight and ends.
    ///
    /// # Errors
    /// See [`ShutdownError`].
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        Ok(())
    }
}
