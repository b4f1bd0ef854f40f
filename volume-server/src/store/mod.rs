//! The volumes of one server's directory.

mod appender;
mod config;
mod draft;
mod error;
mod fill;
mod gather;
mod layout;
mod meters;
mod names;
mod parts;
mod queue;
mod read;
mod rebuild;
mod recover;
mod space;
mod upkeep;
mod volume;
mod zero;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, mpsc};

use hay_common::clock::SharedClock;
use hay_common::disk::{DirLock, SharedDisk, Space, atomic_publish};
use hay_common::ids::{Cookie, Epoch, Incarnation, NeedleKey, NodeId, VolumeId};
use hay_common::limits::BLOCKING_READS_MAX;
use hay_common::model::SizeClass;
use hay_common::random::SharedRandom;
use hay_common::work;
use hay_needle::{State, Superblock};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub use config::StoreConfig;
pub use error::{AppendError, ReadError, StoreError};
pub use fill::Begun;
pub use names::Names;
pub use parts::NeedleParts;
pub use queue::{Answers, NewNeedle};
pub use read::{Needle, held_bytes};
pub use recover::BrokenVolume;
pub use volume::VolumeInfo;

use error::At;
use layout::VolumePaths;
use meters::Meters;
use queue::Control;
use recover::Opened;
use space::FreeSpace;
use volume::{Shared, Volume};

/// All volumes of one directory, held against other processes while it is open.
pub struct Store {
    node: NodeId,
    shared: Arc<Shared>,
    volumes: RwLock<HashMap<VolumeId, Arc<Volume>>>,
    broken: RwLock<HashMap<VolumeId, BrokenVolume>>,
    /// Volumes that are written anew beside files that can't be written to.
    rebuilds: RwLock<HashMap<VolumeId, Arc<Volume>>>,
    random: SharedRandom,
    reads: Arc<Semaphore>,
    /// One creation at a time: each rewrites the inventory.
    creation: Mutex<()>,
    _lock: Box<dyn DirLock>,
}

impl Store {
    /// Opens a directory and all its volumes; an empty one becomes a new server's. Blocks.
    ///
    /// # Errors
    /// A directory in use, of another cluster, or without volumes that it must have; I/O.
    pub fn open(
        config: StoreConfig,
        disk: SharedDisk,
        clock: SharedClock,
        random: SharedRandom,
    ) -> Result<Self, StoreError> {
        let dir = config.dir.clone();
        disk.create_dir_all(&dir).at(&dir)?;
        let lock = disk.lock(&dir.join("lock")).map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => StoreError::InUse(dir.clone()),
            _ => StoreError::Io { path: dir.join("lock"), source },
        })?;
        let node = layout::node(disk.as_ref(), &dir, config.cluster, random.as_ref())?;
        let space = FreeSpace::new(disk.clone(), dir.clone(), config.reserve_bytes).at(&dir)?;
        let shared = Arc::new(Shared { config, disk, clock, space, meters: Meters::new() });
        let (volumes, broken) = open_all(&shared)?;
        Ok(Self {
            node,
            shared,
            volumes: RwLock::new(volumes),
            broken: RwLock::new(broken),
            rebuilds: RwLock::default(),
            random,
            reads: Arc::new(Semaphore::new(BLOCKING_READS_MAX)),
            creation: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Does work on these volumes where it may block, to its end, whether anybody waits for it or not.
    pub(crate) fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        work::blocking(self.shared.disk.as_ref(), work)
    }

    /// This server's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Makes a volume that no other server has. See [`Store::create_replica`].
    ///
    /// # Errors
    /// `ClassDiffers`, I/O.
    pub fn create(&self, id: VolumeId, epoch: Epoch, class: SizeClass) -> Result<(), StoreError> {
        self.create_replica(id, epoch, class, &[])
    }

    /// Makes a volume durably; one that is there already with that class is left as it is, its epoch raised. `members`:
    /// the servers that have it, the primary first; none where it is this one alone. They are durable with it: an append
    /// may be acknowledged only when all have it. Blocks.
    ///
    /// # Errors
    /// `ClassDiffers`, I/O.
    pub fn create_replica(
        &self,
        id: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: &[NodeId],
    ) -> Result<(), StoreError> {
        self.make(id, epoch, class, members, false)
    }

    fn make(
        &self,
        id: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: &[NodeId],
        filling: bool,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.creation.lock();
        let paths = VolumePaths::new(&self.shared.config.dir, id);
        if let Some(broken) = self.broken.read().get(&id) {
            return Err(StoreError::Unusable { path: paths.data, reason: broken.reason.clone() });
        }
        if let Some(volume) = self.volume(id) {
            if volume.class != class {
                return Err(StoreError::ClassDiffers(id));
            }
            let raised = volume.change_state(|state| {
                // One that has gone on to another epoch knows its members better.
                if state.epoch <= epoch {
                    state.members = members.to_vec();
                }
                state.epoch = state.epoch.max(epoch);
            });
            return raised.at(&paths.state);
        }
        // What an earlier try left is written over: nothing was ever appended to it, since it was not opened.
        self.write_first(&paths, id, epoch, class, members, filling)?;
        let disk = self.shared.disk.as_ref();
        let mut inventory = layout::inventory(disk, &self.shared.config.dir)?;
        inventory.insert(id);
        layout::write_inventory(disk, &self.shared.config.dir, &inventory)?;
        match recover::open(&self.shared, id)? {
            Opened::Volume(volume) => {
                appender::start(volume.clone()).at(&paths.data)?;
                self.volumes.write().insert(id, volume);
                Ok(())
            }
            Opened::Broken(broken) => Err(StoreError::Unusable { path: paths.data, reason: broken.reason }),
        }
    }

    /// The first files of a volume, its state before its data: a state alone is no volume yet, but data alone would be a
    /// replica that knows of no other, and acknowledges what only it has.
    fn write_first(
        &self,
        paths: &VolumePaths,
        id: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: &[NodeId],
        filling: bool,
    ) -> Result<(), StoreError> {
        let disk = self.shared.disk.as_ref();
        let incarnation = Incarnation::from_random(self.random.u128());
        let block = Superblock { cluster: self.shared.config.cluster, volume: id, incarnation, epoch, class };
        let state = State { members: members.to_vec(), filling, ..recover::first_state(&block) };
        atomic_publish(disk, &paths.state, &state.encode()).at(&paths.state)?;
        atomic_publish(disk, &paths.data, &block.encode()).at(&paths.data)
    }

    /// Persists the higher epoch and takes no more appends of that volume. Repeatable. Blocks.
    ///
    /// # Errors
    /// `NoVolume`, I/O: then it is not known to be sealed.
    pub fn seal(&self, id: VolumeId, epoch: Epoch) -> Result<(), StoreError> {
        let volume = self.volume(id).ok_or(StoreError::NoVolume(id))?;
        let (done, sealed) = mpsc::sync_channel(1);
        if volume.queue.control(Control::Seal { epoch, done }) {
            volume.take_turn();
            return sealed.recv().unwrap_or(Err(StoreError::Closed(id)));
        }
        // No appender is left: sealed before, or closed.
        let end = volume.content.read().end;
        volume
            .change_state(|state| {
                state.epoch = state.epoch.max(epoch);
                state.sealed = state.sealed.or(Some(end));
            })
            .at(&volume.paths.state)
    }

    /// Appends needles to one volume; the answers are in their order. A needle that succeeded is on disk.
    pub async fn append(&self, id: VolumeId, needles: Vec<NewNeedle>) -> Answers {
        let count = needles.len();
        let submitted = match self.volume(id) {
            Some(volume) if volume.state.load().filling => Err(AppendError::Filling(id)),
            Some(volume) => volume.submit(needles),
            None => Err(AppendError::NoVolume(id)),
        };
        match submitted {
            // The appender answers always; its end without an answer is the end of the process's service.
            Ok(answers) => answers.await.unwrap_or_else(|_| vec![Err(AppendError::Closing); count]),
            Err(error) => vec![Err(error); count],
        }
    }

    /// Whether an append of `epoch` to a volume could succeed now; asked before a long needle is received.
    ///
    /// # Errors
    /// Those of an append.
    pub fn may_append(&self, id: VolumeId, epoch: Epoch) -> Result<(), AppendError> {
        let volume = self.volume(id).ok_or(AppendError::NoVolume(id))?;
        volume.writable()?;
        let current = volume.state.load().epoch;
        if epoch < current {
            return Err(AppendError::StaleEpoch { volume: id, given: epoch, current });
        }
        if !self.has_room() {
            return Err(AppendError::StorageFull);
        }
        Ok(())
    }

    /// Reads a needle, verified.
    ///
    /// # Errors
    /// Absent, corrupt and failed are told apart.
    pub async fn read(&self, id: VolumeId, key: NeedleKey, cookie: Cookie) -> Result<Needle, ReadError> {
        self.readable(id)?.read(key, cookie, &self.reads).await
    }

    /// Reads a range of a needle, all of which is verified. What of the range lies beyond the needle is left out. The
    /// answer holds [`held_bytes`].
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read_range(
        &self,
        id: VolumeId,
        key: NeedleKey,
        cookie: Cookie,
        range: Range<u32>,
    ) -> Result<Needle, ReadError> {
        self.readable(id)?.read_range(key, cookie, range, &self.reads).await
    }

    /// Verifies a needle that will be read in parts: memory for one part at a time.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read_parts(
        &self,
        id: VolumeId,
        key: NeedleKey,
        cookie: Cookie,
    ) -> Result<NeedleParts, ReadError> {
        self.readable(id)?.parts(key, cookie, &self.reads).await
    }

    /// Bytes of a needle's data, without looking at the disk.
    ///
    /// # Errors
    /// `NoVolume`, `Broken`, `Absent`, `Lost`.
    pub fn length(&self, id: VolumeId, key: NeedleKey, cookie: Cookie) -> Result<u32, ReadError> {
        self.readable(id)?.locate(key, cookie).map(|slot| slot.length)
    }

    fn readable(&self, id: VolumeId) -> Result<Arc<Volume>, ReadError> {
        self.volume(id).ok_or_else(|| match self.broken.read().get(&id) {
            Some(broken) => ReadError::Broken { volume: id, reason: broken.reason.clone() },
            None => ReadError::NoVolume(id),
        })
    }

    /// All open volumes, by id.
    pub fn infos(&self) -> Vec<VolumeInfo> {
        let mut infos: Vec<_> = self.volumes.read().values().map(|volume| volume.info()).collect();
        for (id, new) in &*self.rebuilds.read() {
            match infos.iter_mut().find(|info| info.id == *id) {
                // The old file is what can be read.
                Some(old) => old.filling = true,
                None => infos.push(new.info()),
            }
        }
        infos.sort_by_key(|info| info.id);
        infos
    }

    /// Volumes that are there and can't be opened.
    pub fn broken(&self) -> Vec<BrokenVolume> {
        self.broken.read().values().cloned().collect()
    }

    /// Room on the disk, as of the last look.
    pub fn space(&self) -> Space {
        self.shared.space.get()
    }

    /// Whether the free-space reserve is whole.
    pub fn has_room(&self) -> bool {
        self.shared.space.has_room_for(0)
    }

    /// Looks at the room on the disk. Blocks.
    pub fn refresh_space(&self) {
        if let Err(error) = self.shared.space.refresh() {
            tracing::warn!(%error, dir = %self.shared.config.dir.display(), "free space is not known");
        }
    }

    /// What acknowledged means here.
    pub fn durability(&self) -> hay_common::model::Durability {
        self.shared.config.durability
    }

    /// Finishes what waits, syncs, writes checkpoints, ends all appenders. Repeatable. Blocks.
    pub fn close(&self) {
        let mut volumes: Vec<_> = self.volumes.read().values().cloned().collect();
        volumes.extend(self.rebuilds.read().values().cloned());
        let waits: Vec<_> = volumes
            .iter()
            .filter_map(|volume| {
                let (done, closed) = mpsc::sync_channel(1);
                let is_open = volume.queue.control(Control::Close { done });
                volume.take_turn();
                is_open.then_some((volume.id, closed))
            })
            .collect();
        for volume in &volumes {
            // Sealed just now: its file is being cut.
            drop(volume.sealing.lock());
        }
        for (id, closed) in waits {
            if !matches!(closed.recv(), Ok(Ok(()))) {
                tracing::warn!(volume = %id, "the volume was not closed cleanly; the next start replays it");
            }
        }
    }

    /// What is durable of a volume beside its needles: epoch, seal, members.
    pub fn state(&self, id: VolumeId) -> Option<Arc<State>> {
        self.volume(id).map(|volume| volume.state.load_full())
    }

    fn volume(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.volumes.read().get(&id).cloned()
    }
}

type Volumes = (HashMap<VolumeId, Arc<Volume>>, HashMap<VolumeId, BrokenVolume>);

fn open_all(shared: &Arc<Shared>) -> Result<Volumes, StoreError> {
    let disk = shared.disk.as_ref();
    let dir = &shared.config.dir;
    rebuild::settle(disk, dir)?;
    let mut wanted = layout::inventory(disk, dir)?;
    let there: Vec<_> = layout::data_files(disk, dir)?.collect();
    if let Some(gone) = wanted.iter().find(|id| !there.contains(id)) {
        return Err(StoreError::Missing {
            dir: dir.clone(),
            what: format!("the data file of volume {gone}"),
            remedy: "restore it; if it is lost for good, take its line out of a new inventory by rebuilding this server",
        });
    }
    let known = wanted.len();
    for id in there {
        if wanted.contains(&id) || recover::is_made(shared, id)? {
            wanted.insert(id);
        }
    }
    if wanted.len() > known {
        // Made just before a crash.
        layout::write_inventory(disk, dir, &wanted)?;
    }
    let (mut volumes, mut broken) = (HashMap::new(), HashMap::new());
    for id in wanted {
        match recover::open(shared, id)? {
            Opened::Volume(volume) => {
                if volume.state.load().sealed.is_none() {
                    appender::start(volume.clone()).at(&volume.paths.data)?;
                } else {
                    volume.queue.close();
                }
                volumes.insert(id, volume);
            }
            Opened::Broken(is_broken) => {
                broken.insert(id, is_broken);
            }
        }
    }
    Ok((volumes, broken))
}

#[cfg(test)]
pub(crate) mod tests;
