//! Whole groups over a small real state machine.

mod cluster;
mod crash;
pub(crate) mod disk;
mod group;
mod suite;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hay_common::disk::RealDisk;
use hay_common::ids::ClusterId;
use parking_lot::Mutex;

use crate::{Group, GroupConfig, StartError, StateError, StateMachine};

pub(crate) const CLUSTER: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;

/// What a [`Journal`] holds, also seen by the test.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) commands: Vec<Bytes>,
    pub(crate) applied: Option<Bytes>,
    /// Calls of `apply`, and the most commands one of them brought.
    pub(crate) calls: usize,
    pub(crate) most: usize,
}

/// Remembers all commands in order, in memory; answers each with its number. Snapshots are one file.
#[derive(Default, Clone)]
pub(crate) struct Journal(pub(crate) Arc<Mutex<Contents>>);

impl Journal {
    pub(crate) fn commands(&self) -> Vec<Bytes> {
        self.0.lock().commands.clone()
    }
}

impl StateMachine for Journal {
    fn applied(&self) -> Result<Option<Bytes>, StateError> {
        Ok(self.0.lock().applied.clone())
    }

    fn apply(&mut self, commands: Vec<Bytes>, applied: Bytes) -> Result<Vec<Bytes>, StateError> {
        let mut contents = self.0.lock();
        contents.calls += 1;
        contents.most = contents.most.max(commands.len());
        contents.applied = Some(applied);
        let mut replies = Vec::new();
        for command in commands {
            if command == "poison" {
                return Err(StateError::Corrupt("it was told to fail".to_owned()));
            }
            contents.commands.push(command);
            replies.push(Bytes::from((contents.commands.len() as u64 - 1).to_le_bytes().to_vec()));
        }
        Ok(replies)
    }

    fn snapshot(&mut self, dir: &Path) -> Result<(), StateError> {
        let lines: Vec<Vec<u8>> = self.0.lock().commands.iter().map(|c| c.to_vec()).collect();
        let io = |source| StateError::Io { what: "writing".to_owned(), source };
        fs::write(dir.join("commands"), postcard::to_stdvec(&lines).unwrap()).map_err(io)?;
        fs::File::open(dir.join("commands")).and_then(|f| f.sync_all()).map_err(io)
    }

    fn install(&mut self, dir: &Path, applied: Bytes) -> Result<(), StateError> {
        let bytes = fs::read(dir.join("commands"))
            .map_err(|source| StateError::Io { what: "reading".to_owned(), source })?;
        let lines: Vec<Vec<u8>> = postcard::from_bytes(&bytes).unwrap();
        let mut contents = self.0.lock();
        contents.commands = lines.into_iter().map(Bytes::from).collect();
        contents.applied = Some(applied);
        Ok(())
    }
}

/// A group with small segments in `dir`.
pub(crate) fn config(dir: &Path) -> GroupConfig {
    GroupConfig { segment_bytes: 16 << 10, ..GroupConfig::sole("test", dir, ClusterId::from_random(CLUSTER)) }
}

pub(crate) async fn start(config: GroupConfig) -> Result<(Group, Journal), StartError> {
    let journal = Journal::default();
    let group = Group::start(config, Box::new(journal.clone()), RealDisk::shared()).await?;
    Ok((group, journal))
}

/// Command number `n`, of a length that varies.
pub(crate) fn command(n: u64) -> Bytes {
    let mut bytes = format!("command {n} ").into_bytes();
    bytes.resize(bytes.len() + (n as usize * 37) % 300, b'.');
    bytes.into()
}

/// A copy of a directory as a crash would leave it: file by file, while others may write.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_dir(&entry.path(), &target),
            _ => {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}
