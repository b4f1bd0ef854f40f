//! Opening a member's directory: identity, snapshots, log and state must fit together before anything runs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hay_common::disk::{DirLock, SharedDisk};
use hay_common::ids::MemberId;
use hay_common::model::Durability;
use tokio::sync::oneshot;

use crate::apply::{Applied, Applier, catch_up};
use crate::config::GroupConfig;
use crate::error::StartError;
use crate::formation::Formed;
use crate::identity;
use crate::log::{self, LogConfig, LogHandle, Request};
use crate::machine::{StateError, StateMachine};
use crate::snapshot::Snapshots;
use crate::types::LogId;

/// A member's parts, ready to run.
pub(crate) struct Opened {
    pub(crate) lock: Box<dyn DirLock>,
    pub(crate) log: LogHandle,
    pub(crate) applier: Applier,
    pub(crate) member: MemberId,
    pub(crate) formed: Formed,
    pub(crate) snapshots: Arc<Snapshots>,
    /// Whether the member has never belonged to a group.
    pub(crate) empty: bool,
}

/// Opens or makes everything in `config.dir`. Blocks.
pub(crate) fn open(
    config: &GroupConfig,
    mut machine: Box<dyn StateMachine>,
    disk: SharedDisk,
    draw: impl FnOnce() -> MemberId,
) -> Result<Opened, StartError> {
    let dir = config.dir.as_path();
    let io_at = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| StartError::Io { what, path, source }
    };
    disk.create_dir_all(dir).map_err(io_at("can't create", dir))?;
    // Its name has to outlive a power loss too: a member whose directory is not there looks like a new one.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(io_at("can't sync", parent))?;
    }
    let lock =
        disk.lock(&dir.join("lock")).map_err(io_at("another process uses, or this one can't lock,", dir))?;
    let member = identity::check(disk.as_ref(), config, draw)?;

    let snapshots = Arc::new(Snapshots::open(dir.join("snapshots"), disk.clone())?);
    let state_failed = |source: StateError| StartError::State { group: config.name.clone(), source };
    let applied = catch_up(machine.as_mut(), &snapshots).map_err(state_failed)?;

    let log_config = LogConfig {
        dir: dir.join("log"),
        cluster: config.cluster,
        name: config.name.clone(),
        segment_bytes: config.segment_bytes,
        durability: config.durability,
    };
    let log = log::open(log_config, disk.clone())?;
    let parts = check_together(config, &log, &applied, &snapshots).and_then(|empty| {
        finish_purge(&log, applied.last).map_err(io_at("can't purge the log in", dir))?;
        let formed = Formed::open(disk, dir, log.clone())?;
        Ok((empty, formed, start_applier(config, machine, applied, snapshots.clone(), &log)?))
    });
    match parts {
        Ok((empty, formed, applier)) => Ok(Opened { lock, log, applier, member, formed, snapshots, empty }),
        Err(error) => {
            log.stop();
            Err(error)
        }
    }
}

fn start_applier(
    config: &GroupConfig,
    machine: Box<dyn StateMachine>,
    applied: Applied,
    snapshots: Arc<Snapshots>,
    log: &LogHandle,
) -> Result<Applier, StartError> {
    Applier::start(&config.name, machine, applied, snapshots, log.shared.room.clone()).map_err(|source| {
        StartError::Io { what: "can't start a thread for", path: config.dir.clone(), source }
    })
}

/// A crash after a received snapshot was kept and before the log below it was purged leaves a log that ends below the state.
/// openraft purges it where it is older by term too; an entry of a later term that nobody ever took may stand there as well.
fn finish_purge(log: &LogHandle, applied: Option<LogId>) -> io::Result<()> {
    let last = log.shared.index.lock().last();
    match applied {
        Some(applied) if last.is_none_or(|last| last.index < applied.index) => {
            let (done, mut answer) = oneshot::channel();
            log.send(Request::Purge(applied, done))?;
            log.catch_up();
            match answer.try_recv() {
                Ok(purged) => purged,
                Err(_) => answer.blocking_recv().map_err(io::Error::other)?,
            }
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the member is new; an error where log and state can't belong together.
fn check_together(
    config: &GroupConfig,
    log: &LogHandle,
    applied: &Applied,
    snapshots: &Snapshots,
) -> Result<bool, StartError> {
    let corrupt = |what: String| StartError::Corrupt { path: config.dir.clone(), what };
    let (purged, last) = {
        let index = log.shared.index.lock();
        (index.purged, index.last())
    };
    if purged > applied.last {
        let entry = purged.map_or(0, |id| id.index);
        return Err(corrupt(format!(
            "the log begins after entry {entry}, but the state does not hold what came before"
        )));
    }
    let snapshot = snapshots.current().and_then(|snapshot| snapshot.meta.last_log_id);
    // With `async` a power loss may take more of the log than of the state. With `sync` it can't.
    if applied.last > last && applied.last > snapshot && config.durability == Durability::Sync {
        let (state, log) = (applied.last.map_or(0, |id| id.index), last.map_or(0, |id| id.index));
        return Err(corrupt(format!("the state holds entry {state}, but the log ends at {log}")));
    }
    let voted = log.shared.vote.lock().is_some();
    Ok(last.is_none() && !voted && applied.last.is_none() && snapshot.is_none())
}
