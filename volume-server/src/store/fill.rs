//! A volume that is copied to this server, or completed here.
//!
//! Order: persist that it is filling (a start in between finds a volume that vouches for nothing), append what is lacking
//! like any needle, seal, and only then take the mark away. Each step may be repeated.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::model::SizeClass;

use super::appender;
use super::error::{AppendError, At, StoreError};
use super::layout::VolumePaths;
use super::queue::{Answers, Control, NewNeedle};
use super::recover::{self, Opened};
use super::{Store, volume::Volume};

/// What a fill finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The volume takes what is lacking.
    Filling,
    /// It is written anew: what can be read of the old file is to be copied too.
    Anew,
    /// It has been filled in this epoch.
    Done,
}

impl Store {
    /// Makes the volume, or opens a sealed one again, to be filled. One that can't be written to any more is written anew.
    /// Repeatable. Blocks.
    ///
    /// # Errors
    /// `ClassDiffers`; `NotFillable` where it has gone on to a later epoch; I/O.
    pub fn begin_fill(
        &self,
        id: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: &[NodeId],
    ) -> Result<Begun, StoreError> {
        let anew = || self.begin_rebuild(id, epoch, class, members).map(|()| Begun::Anew);
        if self.broken.read().contains_key(&id) {
            return anew();
        }
        let Some(volume) = self.volume(id) else {
            return self.make(id, epoch, class, members, true).map(|()| Begun::Filling);
        };
        if volume.class != class {
            return Err(StoreError::ClassDiffers(id));
        }
        let state = volume.state.load_full();
        let is_fit = state.read_only.is_none();
        if is_fit && state.sealed.is_some() && !state.filling && state.epoch >= epoch {
            // Said once more, when the report of its end was under way.
            return Ok(Begun::Done);
        }
        if state.epoch > epoch {
            let reason = format!("it has seen epoch {}, the fill is of {epoch}", state.epoch);
            return Err(StoreError::NotFillable { volume: id, reason });
        }
        if !is_fit {
            return anew();
        }
        let paths = VolumePaths::new(&self.shared.config.dir, id);
        // Takes no appends of writers any more, if it still did: those that wait are answered before. In its own epoch:
        // sealed in that of the fill, and not marked as filling yet, it would look like one that is filled.
        self.seal(id, state.epoch)?;
        // The appender that has sealed it may still be about to cut what lies behind its end.
        drop(volume.sealing.lock());
        let marked = volume.change_state(|state| {
            state.epoch = state.epoch.max(epoch);
            state.members = members.to_vec();
            state.filling = true;
            state.sealed = None;
        });
        marked.at(&paths.state)?;
        self.open_again(id, &paths).map(|()| Begun::Filling)
    }

    /// In place of the object whose appender has ended. Who reads through the old one still may: its file only grows.
    fn open_again(&self, id: VolumeId, paths: &VolumePaths) -> Result<(), StoreError> {
        let _one_at_a_time = self.creation.lock();
        match recover::open(&self.shared, id)? {
            Opened::Volume(volume) => {
                // Counted since the start of the server, whichever object has counted.
                let reads = self.volume(id).map_or(0, |before| before.reads.load(Ordering::Relaxed));
                volume.reads.store(reads, Ordering::Relaxed);
                appender::start(volume.clone()).at(&paths.data)?;
                self.volumes.write().insert(id, volume);
                Ok(())
            }
            Opened::Broken(broken) => Err(StoreError::NotFillable { volume: id, reason: broken.reason }),
        }
    }

    /// What a fill appends to.
    pub(super) fn growing(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.rebuilt(id).or_else(|| self.volume(id))
    }

    /// In which epoch a volume is being filled here.
    pub fn filling_in(&self, id: VolumeId) -> Option<Epoch> {
        let state = self.growing(id)?.state.load_full();
        state.filling.then_some(state.epoch)
    }

    /// Appends needles to a volume that is being filled.
    pub async fn fill(&self, id: VolumeId, needles: Vec<NewNeedle>) -> Answers {
        let count = needles.len();
        let submitted = match self.growing(id) {
            Some(volume) if !volume.state.load().filling => Err(AppendError::Sealed(id)),
            Some(volume) => volume.submit(needles),
            None => Err(AppendError::NoVolume(id)),
        };
        match submitted {
            Ok(answers) => answers.await.unwrap_or_else(|_| vec![Err(AppendError::Closing); count]),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Seals a filled volume; from now on it is a replica like any. `incomplete`: it may lack needles that its sources could
    /// not give, or have lost. Blocks.
    ///
    /// # Errors
    /// `NoVolume`, I/O: it is still filling then.
    pub fn finish_fill(&self, id: VolumeId, epoch: Epoch, incomplete: bool) -> Result<(), StoreError> {
        if let Some(new) = self.rebuilt(id) {
            return self.finish_rebuild(&new, epoch, incomplete);
        }
        let volume = self.volume(id).ok_or(StoreError::NoVolume(id))?;
        seal_filled(&volume, epoch)?;
        let done = volume.change_state(|state| {
            state.filling = false;
            state.incomplete = incomplete;
        });
        done.at(&volume.paths.state)
    }

    /// Gives a fill up: the volume is a replica again with what it has got, which is marked as not being all. Repeatable.
    /// Blocks.
    ///
    /// # Errors
    /// I/O: it is still filling then.
    pub fn abort_fill(&self, id: VolumeId) -> Result<(), StoreError> {
        self.abort_rebuild(id)?;
        let Some(volume) = self.volume(id) else { return Ok(()) };
        let state = volume.state.load_full();
        if !state.filling {
            return Ok(());
        }
        seal_filled(&volume, state.epoch)?;
        let done = volume.change_state(|state| {
            // It may have ended meanwhile, with all of it.
            state.incomplete |= state.filling;
            state.filling = false;
        });
        done.at(&volume.paths.state)
    }
}

pub(super) fn seal_filled(volume: &Arc<Volume>, epoch: Epoch) -> Result<(), StoreError> {
    let (done, sealed) = mpsc::sync_channel(1);
    if volume.queue.control(Control::Seal { epoch, done }) {
        volume.take_turn();
        return sealed.recv().unwrap_or(Err(StoreError::Closed(volume.id)));
    }
    match volume.state.load().sealed {
        Some(_) => Ok(()),
        None => Err(StoreError::Closed(volume.id)),
    }
}
