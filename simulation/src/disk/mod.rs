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

use crate::trace::Sum;
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

/// How a process comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process alone: its files keep everything.
    Killed,
    /// The whole machine: of what was not synced any part is lost.
    PowerLost,
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
    /// Calls that change something, until one in the middle of which the process dies.
    dies_in: Option<(u32, Death)>,
    /// The process has died so.
    has_died: bool,
    /// The greatest time that a piece of work takes.
    slowness: Duration,
    /// Files can't grow.
    is_full: bool,
    /// It says that it has synced large files, and has not.
    lies: bool,
}

impl State {
    /// What part of the call that comes now is done before the process dies in it; `None` where it lives on.
    fn dies_now(&mut self) -> Option<f64> {
        let (left, _) = self.dies_in.as_mut()?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return None;
        }
        Some(match self.rng.random_range(0..4) {
            0 => 0.0,
            1 => 1.0,
            _ => self.rng.random(),
        })
    }

    /// Nobody who used it can any more.
    fn switch_off(&mut self) {
        self.run += 1;
        self.locked.clear();
        self.dies_in = None;
    }

    fn lose_power(&mut self) {
        let Self { rng, names, durable, changes, .. } = self;
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

    /// The process dies of what was announced.
    fn die(&mut self) {
        let death = self.dies_in.map(|(_, death)| death);
        self.switch_off();
        self.has_died = true;
        if death == Some(Death::PowerLost) {
            self.lose_power();
        }
    }
}

/// The disk of one machine.
#[derive(Clone)]
pub struct MachineDisk(Arc<Mutex<State>>);

/// Volumes and logs, which are written ahead, are larger from the beginning.
const LARGE_FILE_BYTES: u64 = 256 << 10;

/// In the names of checkpoints, whole or being written.
const CHECKPOINT: &str = ".checkpoint";

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
            dies_in: None,
            has_died: false,
            slowness: USUAL,
            is_full: false,
            lies: false,
        })))
    }

    /// For a process that starts: nobody who used it before can any more.
    pub fn switch_on(&self) -> SharedDisk {
        let mut state = self.0.lock();
        state.run += 1;
        state.locked.clear();
        Arc::new(RunningDisk { disk: self.clone(), run: state.run })
    }

    /// A process will start soon.
    pub fn plug_in(&self) {
        self.0.lock().has_died = false;
    }

    /// The process is gone at once, if it had not died before.
    pub fn end(&self, death: Death) {
        let mut state = self.0.lock();
        if !std::mem::replace(&mut state.has_died, true) {
            state.switch_off();
            if death == Death::PowerLost {
                state.lose_power();
            }
        }
    }

    /// The process dies in the middle of that many changes from now: of a write any first part is done.
    pub fn die_in(&self, changes: u32, death: Death) {
        self.0.lock().dies_in = Some((changes.max(1), death));
    }

    /// Whether no process uses it because it has died.
    pub fn has_died(&self) -> bool {
        self.0.lock().has_died
    }

    /// Everything on it is gone: another one is put in its place.
    pub fn wipe(&self) {
        let mut state = self.0.lock();
        state.switch_off();
        state.dirs = BTreeSet::from([PathBuf::from("/")]);
        state.names.clear();
        state.durable.clear();
        state.changes.clear();
    }

    /// A piece of work takes up to this from now on.
    pub fn slow_down(&self, slowness: Duration) {
        self.0.lock().slowness = slowness;
    }

    /// Whether files can't grow from now on.
    pub fn fill_up(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// From now on it says that it has synced what is appended to large files, and has not: a fault that must be found.
    /// With small files it is honest: those that say whose a directory is would give it away at once.
    pub fn lie(&self) {
        self.0.lock().lies = true;
    }

    /// All that is on it goes into `sum`, but what is in checkpoints: their order is that of the index's tables, whose hash has
    /// a seed of its own in each process. Nothing that reads them depends on it.
    pub fn sum(&self, sum: &mut Sum) {
        let state = self.0.lock();
        for (path, inode) in &state.names {
            sum.add(path.as_os_str().as_encoded_bytes());
            let content = inode.lock();
            sum.add_number(content.len());
            if !path.to_string_lossy().contains(CHECKPOINT) {
                content.sum(sum);
            }
        }
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

    /// The same where it changes something: that is done wholly or not at all.
    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.with(|state| {
            let Some(part) = state.dies_now() else { return work(state) };
            if part == 1.0 {
                // Whoever asked for it never learns what came of it.
                let _ = work(state);
            }
            state.die();
            Err(switched_off())
        })
    }
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for RunningDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let open = |state: &mut State| {
            let known = state.names.get(path).cloned();
            match (mode, known) {
                (OpenMode::Read | OpenMode::ReadWrite, Some(inode)) => Ok(inode),
                (OpenMode::Read | OpenMode::ReadWrite, None) => Err(absent()),
                (OpenMode::CreateNew, Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
                (OpenMode::CreateNew, None) => {
                    if path.parent().is_none_or(|dir| !state.dirs.contains(dir)) {
                        return Err(absent());
                    }
                    if state.is_full {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    let inode = Inode::default();
                    state.names.insert(path.to_owned(), inode.clone());
                    state.changes.push(Change::Made(path.to_owned(), inode.clone()));
                    Ok(inode)
                }
            }
        };
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => self.with(open),
            OpenMode::CreateNew => self.change(open),
        }?;
        Ok(Arc::new(RunningFile { disk: self.disk.clone(), run: self.run, inode }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
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
        self.change(|state| {
            let inode = state.names.remove(from).ok_or_else(absent)?;
            state.names.insert(to.to_owned(), inode.clone());
            state.changes.push(Change::Moved(from.to_owned(), to.to_owned(), inode));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.names.remove(path).ok_or_else(absent)?;
            state.changes.push(Change::Removed(path.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
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
        self.with(|state| Ok(Space { free: if state.is_full { 0 } else { 1 << 42 }, total: 1 << 42 }))
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

    /// The same where it changes something; `work` is told what part of it is done: 1 if the process lives on.
    fn change(&self, work: impl FnOnce(&State, &mut Content, f64) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        if state.run != self.run {
            return Err(switched_off());
        }
        let dies = state.dies_now();
        let done = work(&state, &mut self.inode.lock(), dies.unwrap_or(1.0));
        if dies.is_some() {
            state.die();
            return Err(switched_off());
        }
        done
    }
}

/// Up to where a write may go that is to go from `from` to `to`, of which only `part` is done.
fn reach(state: &State, content: &Content, (from, to): (u64, u64), part: f64) -> u64 {
    let room = if state.is_full { content.len().max(from).min(to) } else { to };
    let done = from + ((to - from) as f64 * part) as u64;
    done.min(room)
}

fn sync(state: &State, content: &mut Content) {
    match state.lies && content.len() >= LARGE_FILE_BYTES {
        true => content.pretend_to_sync(),
        false => content.sync(),
    }
}

fn full_below(done: u64, wanted: u64) -> io::Result<()> {
    if done < wanted { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
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
        let wanted = offset + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.change(|state, content, part| {
            let done = reach(state, content, (offset, wanted), part);
            content.write_first(done - offset, parts, offset);
            full_below(done, wanted)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|state, content, part| {
            if part == 1.0 {
                sync(state, content);
            }
            Ok(())
        })
    }

    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        self.change(|state, content, part| {
            let done = reach(state, content, (from, to), part);
            content.zero(from, done);
            if part == 1.0 {
                sync(state, content);
            }
            full_below(done, to)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|_, content, part| {
            if part == 1.0 {
                content.set_len(len);
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content| content.len())
    }
}
