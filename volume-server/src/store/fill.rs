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

impl Store {
    /// Makes the volume, or opens a sealed one again, to be filled. Repeatable. Blocks.
    ///
    /// # Errors
    /// `ClassDiffers`; `NotFillable` where it was damaged or its disk failed here; I/O.
    pub fn begin_fill(
        &self,
        id: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: &[NodeId],
    ) -> Result<(), StoreError> {
        let Some(volume) = self.volume(id) else { return self.make(id, epoch, class, members, true) };
        if volume.class != class {
            return Err(StoreError::ClassDiffers(id));
        }
        let state = volume.state.load_full();
        if let Some(reason) = &state.read_only {
            return Err(StoreError::NotFillable { volume: id, reason: reason.clone() });
        }
        if state.epoch > epoch {
            let reason = format!("it has seen epoch {}, the fill is of {epoch}", state.epoch);
            return Err(StoreError::NotFillable { volume: id, reason });
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
        self.open_again(id, &paths)
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

    /// Appends needles to a volume that is being filled.
    pub async fn fill(&self, id: VolumeId, needles: Vec<NewNeedle>) -> Answers {
        let count = needles.len();
        let submitted = match self.volume(id) {
            Some(volume) if !volume.state.load().filling => Err(AppendError::Sealed(id)),
            Some(volume) => volume.submit(needles),
            None => Err(AppendError::NoVolume(id)),
        };
        match submitted {
            Ok(answers) => answers.await.unwrap_or_else(|_| vec![Err(AppendError::Closing); count]),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Seals a filled volume; from now on it is a replica like any. `incomplete`: its sources may have lost needles.
    /// Blocks.
    ///
    /// # Errors
    /// `NoVolume`, I/O: it is still filling then.
    pub fn finish_fill(&self, id: VolumeId, epoch: Epoch, incomplete: bool) -> Result<(), StoreError> {
        let volume = self.volume(id).ok_or(StoreError::NoVolume(id))?;
        seal_filled(&volume, epoch)?;
        let done = volume.change_state(|state| {
            state.filling = false;
            state.incomplete = incomplete;
        });
        done.at(&volume.paths.state)
    }
}

fn seal_filled(volume: &Arc<Volume>, epoch: Epoch) -> Result<(), StoreError> {
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
