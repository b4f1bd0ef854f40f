//! A copy whose file can't be written to any more, written anew beside it.
//!
//! The old file is left as it is: it is read from, and copied from, until the new one has all of it that can be read. Order:
//! the new state, which says that it is being filled; the new data file; the needles; its seal; the new state without the
//! mark. From there on a start finishes what is left, before it a start removes the new files. Then the data file takes its
//! place, the directory is synced, and checkpoint and state follow. Each step may be repeated.
//!
//! An old file is kept under another name where the new one may lack needles: people may still get something out of it.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use hay_common::disk::Disk;
use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::model::SizeClass;
use hay_needle::State;

use super::appender;
use super::error::{At, StoreError};
use super::fill::seal_filled;
use super::layout::{self, VolumePaths, read_file};
use super::queue::Control;
use super::recover::{self, Opened};
use super::{Store, volume::Volume};

impl Store {
    /// A volume that is being written anew here.
    pub(super) fn rebuilt(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.rebuilds.read().get(&id).cloned()
    }

    /// Makes the new files, or goes on with those of an earlier try.
    pub(super) fn begin_rebuild(
        &self,
        id: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: &[NodeId],
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.creation.lock();
        let paths = VolumePaths::anew(&self.shared.config.dir, id);
        if let Some(begun) = self.rebuilt(id) {
            // One that is whole has only not taken its place yet.
            let state = begun.state.load_full();
            if !state.filling || begun.class == class && state.read_only.is_none() {
                let told = begun.change_state(|state| {
                    state.epoch = state.epoch.max(epoch);
                    state.members = members.to_vec();
                });
                return told.at(&paths.state);
            }
            self.forget_rebuild(&begun)?;
        }
        discard(self.shared.disk.as_ref(), &paths)?;
        self.write_first(&paths, id, epoch, class, members, true)?;
        match recover::open_at(&self.shared, id, paths.clone())? {
            Opened::Volume(volume) => {
                appender::start(volume.clone()).at(&paths.data)?;
                self.rebuilds.write().insert(id, volume);
                Ok(())
            }
            Opened::Broken(broken) => Err(StoreError::Unusable { path: paths.data, reason: broken.reason }),
        }
    }

    /// Seals the new file and puts it in the place of the old one.
    pub(super) fn finish_rebuild(
        &self,
        new: &Arc<Volume>,
        epoch: Epoch,
        incomplete: bool,
    ) -> Result<(), StoreError> {
        let id = new.id;
        seal_filled(new, epoch)?;
        // Its appender may still be about to cut what lies behind its end, and to write its checkpoint.
        drop(new.sealing.lock());
        // A sync that failed meanwhile leaves nobody to say what of the new file is on disk: the old one must not go for it.
        if let Some(reason) = new.state.load().read_only.clone() {
            return Err(StoreError::NotFillable { volume: id, reason });
        }
        let done = new.change_state(|state| {
            state.filling = false;
            state.incomplete = incomplete;
        });
        done.at(&new.paths.state)?;
        let _one_at_a_time = self.creation.lock();
        let old = self.volume(id);
        if let Some(old) = &old {
            retire(old);
        }
        let state = new.state.load_full();
        take_place(self.shared.disk.as_ref(), &self.shared.config.dir, &state)?;
        match recover::open(&self.shared, id)? {
            Opened::Volume(volume) => {
                // Counted since the start of the server, whichever file was read.
                let reads = old.map_or(0, |old| old.reads.load(Ordering::Relaxed));
                volume.reads.store(reads, Ordering::Relaxed);
                volume.queue.close();
                self.volumes.write().insert(id, volume);
                self.rebuilds.write().remove(&id);
                self.broken.write().remove(&id);
                Ok(())
            }
            Opened::Broken(broken) => Err(StoreError::NotFillable { volume: id, reason: broken.reason }),
        }
    }

    /// Gives up what was written anew, unless it is whole already.
    pub(super) fn abort_rebuild(&self, id: VolumeId) -> Result<(), StoreError> {
        let _one_at_a_time = self.creation.lock();
        match self.rebuilt(id).filter(|begun| begun.state.load().filling) {
            Some(begun) => self.forget_rebuild(&begun),
            None => Ok(()),
        }
    }

    fn forget_rebuild(&self, begun: &Volume) -> Result<(), StoreError> {
        retire(begun);
        discard(self.shared.disk.as_ref(), &begun.paths)?;
        self.rebuilds.write().remove(&begun.id);
        Ok(())
    }
}

/// Ends whatever still works on a volume's files: from now on they are another one's.
fn retire(volume: &Volume) {
    let (done, closed) = mpsc::sync_channel(1);
    if volume.queue.control(Control::Close { done }) {
        volume.take_turn();
        // It has ended, with an answer or without.
        let _ = closed.recv();
    }
    volume.zero.stop();
    drop(volume.checkpointing.lock());
    let _no_change_is_under_way = volume.state_change.lock();
    volume.retired.store(true, Ordering::Release);
}

/// Finishes, or removes, what an earlier process was writing anew.
pub(super) fn settle(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    for id in layout::anew(disk, dir)? {
        let paths = VolumePaths::anew(dir, id);
        let bytes = read_file(disk, &paths.state, recover::STATE_BYTES_MAX).at(&paths.state)?;
        let state = bytes.and_then(|bytes| State::decode(&bytes).ok());
        let is_done = |state: &State| !state.filling && state.sealed.is_some() && state.read_only.is_none();
        match state.filter(|state| state.volume == id && is_done(state)) {
            Some(state) => take_place(disk, dir, &state)?,
            None => discard(disk, &paths)?,
        }
    }
    Ok(())
}

fn take_place(disk: &dyn Disk, dir: &Path, state: &State) -> Result<(), StoreError> {
    let (new, own) = (VolumePaths::anew(dir, state.volume), VolumePaths::new(dir, state.volume));
    let is_there = |path: &Path| disk.file_len(path).at(path).map(|len| len.is_some());
    if is_there(&new.data)? {
        if state.incomplete && is_there(&own.data)? {
            let kept = own.replaced(state.incarnation);
            disk.rename(&own.data, &kept).at(&own.data)?;
            tracing::warn!(
                volume = %state.volume, kept_in = %kept.display(),
                "a copy was written anew, and may lack needles; the old file is kept"
            );
        }
        disk.rename(&new.data, &own.data).at(&new.data)?;
        disk.sync_dir(dir).at(dir)?;
    }
    if is_there(&new.checkpoint)? {
        disk.rename(&new.checkpoint, &own.checkpoint).at(&new.checkpoint)?;
    }
    disk.rename(&new.state, &own.state).at(&new.state)?;
    disk.sync_dir(dir).at(dir)
}

/// The state first: one that says that all is there must not outlive the data.
fn discard(disk: &dyn Disk, paths: &VolumePaths) -> Result<(), StoreError> {
    for path in [&paths.state, &paths.data, &paths.checkpoint] {
        if disk.file_len(path).at(path)?.is_some() {
            disk.remove_file(path).at(path)?;
            disk.sync_dir(&paths.dir).at(&paths.dir)?;
        }
    }
    Ok(())
}
