//! What the log must remember beside its entries.

use std::io;
use std::path::{Path, PathBuf};

use hay_common::disk::{Disk, SharedDisk};
use serde::{Deserialize, Serialize};

use crate::envelope::Kind;
use crate::error::StartError;
use crate::types::{LogId, Vote};

const KIND: Kind = Kind { magic: *b"hayRaftS", version: 1 };

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HardState {
    pub(crate) vote: Option<Vote>,
    /// Entries up to here are gone: a durable snapshot holds what they did.
    pub(crate) purged: Option<LogId>,
    /// Entries from here on are being removed; set before the first is touched, cleared after the last.
    pub(crate) truncating_from: Option<u64>,
}

/// The file that holds it. Replaced as a whole: votes, purges and truncations are rare.
pub(crate) struct HardStateFile {
    disk: SharedDisk,
    path: PathBuf,
    state: HardState,
}

impl HardStateFile {
    pub(crate) fn open(disk: SharedDisk, log_dir: &Path) -> Result<Self, StartError> {
        let path = log_dir.join("state");
        let state = KIND.read(disk.as_ref(), &path)?.unwrap_or_default();
        Ok(Self { disk, path, state })
    }

    pub(crate) fn get(&self) -> &HardState {
        &self.state
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Makes a changed state durable.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut HardState)) -> io::Result<()> {
        let mut next = self.state;
        change(&mut next);
        KIND.publish(self.disk.as_ref(), &self.path, &next)?;
        self.state = next;
        Ok(())
    }
}
