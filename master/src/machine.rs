//! The state behind the consensus: in memory, with snapshots of one checksummed file.
//!
//! ```text
//! magic "hayMastr" 8 | format u32 | CRC32C of all behind it u32 | state (postcard)
//! ```

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hay_common::disk::{OpenMode, SharedDisk, atomic_publish, read_exact_at};
use hay_consensus::{StateError, StateMachine};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::state::{Command, DecodeError, State};

const MAGIC: &[u8; 8] = b"hayMastr";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 16;
const FILE: &str = "state";

/// The state as many may read it. Written by the state machine alone.
#[derive(Clone)]
pub(crate) struct SharedState {
    pub(crate) state: Arc<RwLock<State>>,
    /// Its version, for those who wait for changes.
    pub(crate) version: watch::Receiver<u64>,
}

/// The state machine of the masters' group.
pub(crate) struct Machine {
    state: Arc<RwLock<State>>,
    version: watch::Sender<u64>,
    applied: Option<Bytes>,
    disk: SharedDisk,
}

impl Machine {
    /// An empty one. The consensus brings it up to date from the newest snapshot and the log.
    pub(crate) fn new(disk: SharedDisk) -> (Self, SharedState) {
        let state = Arc::new(RwLock::new(State::default()));
        let (version, changes) = watch::channel(0);
        let shared = SharedState { state: state.clone(), version: changes };
        (Self { state, version, applied: None, disk }, shared)
    }
}

impl StateMachine for Machine {
    fn applied(&self) -> Result<Option<Bytes>, StateError> {
        Ok(self.applied.clone())
    }

    fn apply(&mut self, commands: Vec<Bytes>, applied: Bytes) -> Result<Vec<Bytes>, StateError> {
        let commands: Vec<Command> =
            commands.iter().map(|c| Command::decode(c)).collect::<Result<_, _>>().map_err(unreadable)?;
        let version = {
            let mut state = self.state.write();
            let outcomes: Vec<_> = commands.into_iter().map(|command| state.apply(command)).collect();
            self.applied = Some(applied);
            let replies = outcomes.iter().map(|outcome| outcome.encode()).collect::<Result<Vec<_>, _>>();
            (state.version, replies.map_err(|e| StateError::Engine(Box::new(e)))?)
        };
        let (version, replies) = version;
        self.version.send_if_modified(|known| std::mem::replace(known, version) != version);
        Ok(replies)
    }

    fn snapshot(&mut self, dir: &Path) -> Result<(), StateError> {
        let body = postcard::to_stdvec(&*self.state.read()).map_err(|e| StateError::Engine(Box::new(e)))?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let path = dir.join(FILE);
        atomic_publish(self.disk.as_ref(), &path, &bytes)
            .map_err(|source| StateError::Io { what: format!("can't write {}", path.display()), source })
    }

    fn install(&mut self, dir: &Path, applied: Bytes) -> Result<(), StateError> {
        let path = dir.join(FILE);
        let io = |source| StateError::Io { what: format!("can't read {}", path.display()), source };
        let file = self.disk.open(&path, OpenMode::Read).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).unwrap_or(usize::MAX)];
        read_exact_at(file.as_ref(), &mut bytes, 0).map_err(io)?;
        let mut state = decode(&path, &bytes)?;
        state.index();
        let version = state.version;
        *self.state.write() = state;
        self.applied = Some(applied);
        self.version.send_replace(version);
        Ok(())
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<State, StateError> {
    let corrupt = |what: &str| StateError::Corrupt(format!("{} {what}", path.display()));
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| corrupt("is too short"))?;
    let number =
        |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    if !head.starts_with(MAGIC) {
        return Err(corrupt("does not begin as the masters' state does"));
    }
    if number(8) > FORMAT {
        let what = path.display().to_string();
        return Err(StateError::NewerVersion { what, found: number(8), known: FORMAT });
    }
    if number(12) != crc32c::crc32c(body) {
        return Err(corrupt("does not match its checksum"));
    }
    postcard::from_bytes(body).map_err(|_| corrupt("can't be read"))
}

fn unreadable(error: DecodeError) -> StateError {
    match error {
        DecodeError::NewerVersion(format) => StateError::NewerVersion {
            what: "a command in the masters' log".to_owned(),
            found: format.into(),
            known: 1,
        },
        DecodeError::Malformed => {
            StateError::Corrupt("a command in the masters' log can't be read".to_owned())
        }
    }
}
