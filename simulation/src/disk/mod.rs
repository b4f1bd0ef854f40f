//! A disk in memory, which outlives the process that uses it and may lose what was not synced.
//!
//! Names are durable once their directory is synced; a rename is kept or lost as a whole. Directories themselves are
//! durable when they are made: whether somebody syncs the parent of a new one is not tested here.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hay_common::disk::{DirLock, Disk, DiskFile, OpenMode, SharedDisk, Space};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use file::{Content, switched_off};

type Inode = Arc<Mutex<Content>>;

/// A change of names that no sync has made durable.
#[derive(Clone)]
enum Change {
    Made(PathBuf, Inode),
    Moved(PathBuf, PathBuf, Inode),
    Removed(PathBuf),
}

impl Change {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Made(path, _) | Self::Moved(_, path, _) | Self::Removed(path)) = self;
        path.parent() == Some(dir)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            Self::Made(path, inode) => drop(names.insert(path.clone(), inode.clone())),
            Self::Moved(from, to, inode) => {
                // Another file may stand there by now.
                if names.get(from).is_some_and(|there| Arc::ptr_eq(there, inode)) {
                    names.remove(from);
                }
                names.insert(to.clone(), inode.clone());
            }
            Self::Removed(path) => drop(names.remove(path)),
        }
    }
}

struct State {
    rng: StdRng,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Inode>,
    /// As of the last syncs of their directories.
    durable: BTreeMap<PathBuf, Inode>,
    changes: Vec<Change>,
    locked: BTreeSet<PathBuf>,
    /// Which run of the machine may use it.
    run: u64,
    /// The greatest time that a piece of work takes.
    slowness: Duration,
    /// It says that it has synced large files, and has not.
    lies: bool,
}

/// The disk of one machine.
#[derive(Clone)]
pub struct MachineDisk(Arc<Mutex<State>>);

/// Volumes and logs, which are written ahead, are larger from the beginning.
const LARGE_FILE_BYTES: u64 = 512 << 10;

/// The least of [`MachineDisk::slow_down`]: a disk as it usually is.
pub const USUAL: Duration = Duration::from_millis(3);

impl MachineDisk {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: StdRng::seed_from_u64(seed),
            dirs: BTreeSet::from([PathBuf::from("/")]),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
            locked: BTreeSet::new(),
            run: 0,
            slowness: USUAL,
            lies: false,
        })))
    }

    /// For a process that starts: nobody who used it before can any more.
    pub fn switch_on(&self) -> SharedDisk {
        self.switch_off();
        let run = self.0.lock().run;
        Arc::new(RunningDisk { disk: self.clone(), run })
    }

    /// The process is gone at once. What it wrote is there.
    pub fn switch_off(&self) {
        let mut state = self.0.lock();
        state.run += 1;
        state.locked.clear();
    }

    /// The process is gone at once, and of what was not synced any part with it.
    pub fn lose_power(&self) {
        self.switch_off();
        let mut state = self.0.lock();
        let State { rng, names, durable, changes, .. } = &mut *state;
        for change in changes.drain(..) {
            if rng.random_bool(0.5) {
                change.apply(durable);
            }
        }
        *names = durable.clone();
        for inode in names.values() {
            inode.lock().lose_power(rng);
        }
    }

    /// A piece of work takes up to this from now on.
    pub fn slow_down(&self, slowness: Duration) {
        self.0.lock().slowness = slowness;
    }

    /// From now on it says that it has synced what is appended to large files, and has not: a fault that must be found.
    /// With small files it is honest: those that say whose a directory is would give it away at once.
    pub fn lie(&self) {
        self.0.lock().lies = true;
    }
}

/// The disk as one run of its machine has it.
struct RunningDisk {
    disk: MachineDisk,
    run: u64,
}

impl RunningDisk {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.run != self.run {
            return Err(switched_off());
        }
        work(&mut state)
    }
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for RunningDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.with(|state| {
            let known = state.names.get(path).cloned();
            match (mode, known) {
                (OpenMode::Read | OpenMode::ReadWrite, Some(inode)) => Ok(inode),
                (OpenMode::Read | OpenMode::ReadWrite, None) => Err(absent()),
                (OpenMode::CreateNew, Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
                (OpenMode::CreateNew, None) => {
                    if path.parent().is_none_or(|dir| !state.dirs.contains(dir)) {
                        return Err(absent());
                    }
                    let inode = Inode::default();
                    state.names.insert(path.to_owned(), inode.clone());
                    state.changes.push(Change::Made(path.to_owned(), inode.clone()));
                    Ok(inode)
                }
            }
        })?;
        Ok(Arc::new(RunningFile { disk: self.disk.clone(), run: self.run, inode }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(|state| {
            state.dirs.extend(path.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.with(|state| {
            if !state.dirs.contains(path) {
                return Err(absent());
            }
            let all = state.names.keys().chain(&state.dirs);
            let inside = all.filter(|known| known.parent() == Some(path));
            let names = inside.filter_map(|known| known.file_name()).map(PathBuf::from);
            Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
        })
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.with(|state| Ok(state.names.get(path).map(|inode| inode.lock().len())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|state| {
            let inode = state.names.remove(from).ok_or_else(absent)?;
            state.names.insert(to.to_owned(), inode.clone());
            state.changes.push(Change::Moved(from.to_owned(), to.to_owned(), inode));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.with(|state| {
            state.names.remove(path).ok_or_else(absent)?;
            state.changes.push(Change::Removed(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.with(|state| {
            if !state.dirs.contains(path) {
                return Err(absent());
            }
            let State { changes, durable, .. } = state;
            changes.retain(|change| {
                let is_here = change.is_in(path);
                if is_here {
                    change.apply(durable);
                }
                !is_here
            });
            Ok(())
        })
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        self.with(|_| Ok(Space { free: 1 << 42, total: 1 << 42 }))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.with(|state| match state.locked.insert(path.to_owned()) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        })?;
        Ok(Box::new(Lock { disk: self.disk.clone(), run: self.run, path: path.to_owned() }))
    }

    fn takes(&self) -> Option<Duration> {
        let mut state = self.disk.0.lock();
        let most = state.slowness.as_micros() as u64;
        Some(Duration::from_micros(state.rng.random_range(0..=most)))
    }
}

struct Lock {
    disk: MachineDisk,
    run: u64,
    path: PathBuf,
}

impl DirLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.run == self.run {
            state.locked.remove(&self.path);
        }
    }
}

struct RunningFile {
    disk: MachineDisk,
    run: u64,
    inode: Inode,
}

impl RunningFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        match self.disk.0.lock().run == self.run {
            true => Ok(work(&mut self.inode.lock())),
            false => Err(switched_off()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let lies = self.disk.0.lock().lies;
        self.with(|content| {
            if !lies || content.len() < LARGE_FILE_BYTES {
                content.sync();
            }
        })
    }
}

impl DiskFile for RunningFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|content| content.read(buf, offset))
    }

    fn try_read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let is_cached = self.disk.0.lock().rng.random_bool(0.8);
        if is_cached { self.read_at(buf, offset).map(Some) } else { Ok(None) }
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.with(|content| content.write(parts, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        self.with(|content| {
            content.zero(from, to);
            content.sync();
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|content| content.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content| content.len())
    }
}
