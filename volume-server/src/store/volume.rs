//! One volume of this server: what its appender, its readers and its upkeep share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use hay_common::clock::SharedClock;
use hay_common::disk::{DiskFile, SharedDisk, atomic_publish};
use hay_common::ids::{Epoch, Incarnation, NodeId, VolumeId};
use hay_common::model::{SizeClass, VolumeState};
use hay_needle::{Index, Seeds, State};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::appender::Appender;
use super::config::StoreConfig;
use super::error::AppendError;
use super::layout::VolumePaths;
use super::meters::Meters;
use super::queue::{Answers, NewNeedle, Queue, Submission};
use super::space::FreeSpace;
use super::zero::ZeroAhead;

/// What all volumes of a store share.
pub(crate) struct Shared {
    pub config: StoreConfig,
    pub disk: SharedDisk,
    pub clock: SharedClock,
    pub space: FreeSpace,
    pub meters: Meters,
}

/// The needles, and how far the file is theirs.
#[derive(Debug)]
pub(crate) struct Content {
    pub index: Index,
    /// All records below are in the index, and were acknowledged or recovered. The next record begins here.
    pub end: u64,
    /// Bytes of deleted needles.
    pub garbage: u64,
}

/// One open volume.
pub(crate) struct Volume {
    pub id: VolumeId,
    pub class: SizeClass,
    pub incarnation: Incarnation,
    pub seeds: Seeds,
    pub paths: VolumePaths,
    pub shared: Arc<Shared>,
    /// For appends, their syncs, and reads.
    pub data: Arc<dyn DiskFile>,
    /// The same file opened once more, for zeroing ahead and checkpoints. The kernel tells each opening of a write-back
    /// error once: had they one in common, the zeroing's sync could swallow the error of an append.
    pub upkeep: Arc<dyn DiskFile>,
    pub content: RwLock<Content>,
    pub state: ArcSwap<State>,
    /// Held while the state file is replaced.
    pub state_change: Mutex<()>,
    pub queue: Queue,
    /// Its appender, where that works in turn with everything else: in a simulation.
    pub turn: OnceLock<Weak<Mutex<Appender>>>,
    /// Held by the appender from its seal until it has cut the file: nobody may write to it anew before.
    pub sealing: Mutex<()>,
    pub zero: ZeroAhead,
    /// Length that the newest checkpoint covers.
    pub checkpoint_at: AtomicU64,
    /// A thread was started to write one.
    pub checkpoint_due: AtomicBool,
    /// Held while one is written.
    pub checkpointing: Mutex<()>,
    pub reads: AtomicU64,
    /// Its files are another writing's, or gone: it is still read from, and changes nothing any more.
    pub retired: AtomicBool,
}

/// A volume as it is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Which volume.
    pub id: VolumeId,
    /// The highest epoch it has seen.
    pub epoch: Epoch,
    /// Which contents it takes.
    pub class: SizeClass,
    /// Writable or sealed.
    pub state: VolumeState,
    /// Why it takes no appends though it is not sealed.
    pub read_only: Option<String>,
    /// Bytes of superblock and records.
    pub size_bytes: u64,
    /// How many needles.
    pub needles: u64,
    /// Bytes that compaction would give back.
    pub garbage_bytes: u64,
    /// This writing of it.
    pub incarnation: Incarnation,
    /// Reads since the server started.
    pub reads: u64,
    /// It is being copied here.
    pub filling: bool,
    /// It may have lost needles whose names it does not know.
    pub incomplete: bool,
    /// The replica because of which appends are not acknowledged here any more.
    pub failed_replica: Option<NodeId>,
    /// What keeps it from being filled, or what a fill that has ended could not get.
    pub fill_problem: Option<String>,
    /// How often in a row this server itself failed to fill it.
    pub fill_failures: u32,
}

impl Volume {
    /// Queues needles; the answers come in their order once they are on disk.
    pub fn submit(&self, needles: Vec<NewNeedle>) -> Result<oneshot::Receiver<Answers>, AppendError> {
        self.writable()?;
        let (reply, answers) = oneshot::channel();
        self.queue.submit(Submission { needles, reply })?;
        Ok(answers)
    }

    /// In a simulation what waits is done when this returns. Elsewhere the appender's thread is at it.
    pub fn take_turn(&self) {
        if let Some(appender) = self.turn.get().and_then(Weak::upgrade) {
            // Whether it goes on is for whoever calls it next.
            let _ = appender.lock().turn();
        }
    }

    /// Whether it takes appends at all.
    pub fn writable(&self) -> Result<(), AppendError> {
        let state = self.state.load();
        match (&state.sealed, &state.read_only) {
            (Some(_), _) => Err(AppendError::Sealed(self.id)),
            (None, Some(reason)) => Err(AppendError::ReadOnly { volume: self.id, reason: reason.clone() }),
            (None, None) => Ok(()),
        }
    }

    /// Persists a changed state, then makes it known. Blocks.
    pub fn change_state(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let _one_at_a_time = self.state_change.lock();
        if self.retired.load(Ordering::Acquire) {
            return Err(io::Error::other("the volume has been written anew meanwhile"));
        }
        let mut next = State::clone(&self.state.load());
        change(&mut next);
        if next != **self.state.load() {
            atomic_publish(self.shared.disk.as_ref(), &self.paths.state, &next.encode())?;
            self.state.store(Arc::new(next));
        }
        Ok(())
    }

    /// From now on a needle that is not known may be one that was lost. Known at once, whether it can be persisted or not.
    pub fn mark_incomplete(&self) -> io::Result<()> {
        let _one_at_a_time = self.state_change.lock();
        if self.state.load().incomplete {
            return Ok(());
        }
        let next = State { incomplete: true, ..State::clone(&self.state.load()) };
        self.state.store(Arc::new(next.clone()));
        atomic_publish(self.shared.disk.as_ref(), &self.paths.state, &next.encode())
    }

    /// After a write or sync has failed: no appends until it is rebuilt. The first reason stands.
    pub fn fail(&self, reason: &str) {
        let _one_at_a_time = self.state_change.lock();
        let mut next = State::clone(&self.state.load());
        if next.read_only.is_some() || self.retired.load(Ordering::Acquire) {
            return;
        }
        next.read_only = Some(reason.to_owned());
        // Known first, persisted if the disk still can: this process must refuse from now on in any case.
        self.state.store(Arc::new(next.clone()));
        self.shared.meters.failed_volumes.increment(1);
        tracing::error!(volume = %self.id, reason, "the volume is read-only from now on");
        if let Err(error) = atomic_publish(self.shared.disk.as_ref(), &self.paths.state, &next.encode()) {
            tracing::error!(volume = %self.id, %error, "that it is read-only could not be persisted");
        }
    }

    /// As it is reported.
    pub fn info(&self) -> VolumeInfo {
        let state = self.state.load();
        let content = self.content.read();
        VolumeInfo {
            id: self.id,
            epoch: state.epoch,
            class: self.class,
            state: if state.sealed.is_some() { VolumeState::Sealed } else { VolumeState::Writable },
            read_only: state.read_only.clone(),
            size_bytes: content.end,
            needles: content.index.len() as u64,
            garbage_bytes: content.garbage,
            incarnation: self.incarnation,
            reads: self.reads.load(Ordering::Relaxed),
            filling: state.filling,
            incomplete: state.incomplete,
            failed_replica: None,
            fill_problem: None,
            fill_failures: 0,
        }
    }
}
