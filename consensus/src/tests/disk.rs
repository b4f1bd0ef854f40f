//! A disk that fails when it is told to, and remembers what reached it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use hay_common::disk::{DirLock, Disk, DiskFile, OpenMode, RealDisk, SharedDisk, Space};
use parking_lot::{Condvar, Mutex};

/// A disk on which nothing happens any more after a number of changes: as after `kill -9`, or with failing syncs.
pub(crate) struct Failing {
    pub(crate) left: AtomicI64,
    syncs_only: bool,
    /// How often space may still be zeroed; then the disk is full.
    pub(crate) zeros_left: AtomicI64,
    pub(crate) zeros_refused: AtomicI64,
    /// No file is made any more, and none grows.
    full: AtomicBool,
    /// How often that was said.
    pub(crate) full_said: AtomicUsize,
    /// What is done to files with this in their path waits until it is let go.
    held: Mutex<Option<&'static str>>,
    let_go: Condvar,
    waiting: AtomicUsize,
    /// What reached files and directories, in order.
    pub(crate) events: Mutex<Vec<Event>>,
}

/// What reached a file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Bytes: from where, and how many.
    Wrote(u64, u64),
    Synced,
    SyncedDir(PathBuf),
}

impl Failing {
    /// Nothing happens any more after so many changes.
    pub(crate) fn after(left: i64) -> Arc<Self> {
        Self::of(left, false)
    }

    /// Syncs fail after so many.
    pub(crate) fn syncs_after(left: i64) -> Arc<Self> {
        Self::of(left, true)
    }

    fn of(left: i64, syncs_only: bool) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(left),
            syncs_only,
            zeros_left: AtomicI64::new(i64::MAX),
            zeros_refused: AtomicI64::new(0),
            full: AtomicBool::new(false),
            full_said: AtomicUsize::new(0),
            held: Mutex::new(None),
            let_go: Condvar::new(),
            waiting: AtomicUsize::new(0),
            events: Mutex::default(),
        })
    }

    /// Nothing reaches it any more, as from a process that is killed.
    pub(crate) fn kill(&self) {
        self.left.store(0, Ordering::SeqCst);
        self.let_go();
    }

    /// Whether it is full.
    pub(crate) fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// Has every change of a file wait that has this in its path; the empty text stands in each.
    pub(crate) fn hold(&self, part: &'static str) {
        *self.held.lock() = Some(part);
    }

    pub(crate) fn let_go(&self) {
        *self.held.lock() = None;
        self.let_go.notify_all();
    }

    /// How much waits.
    pub(crate) fn holding(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether anything waits.
    pub(crate) fn holds_any(&self) -> bool {
        self.holding() > 0
    }

    fn pass(&self, path: &Path) {
        let mut held = self.held.lock();
        while held.is_some_and(|part| path.to_string_lossy().contains(part)) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.let_go.wait(&mut held);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn room(&self, is_there: bool) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) && !is_there {
            self.full_said.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// How often space was zeroed while the disk was not full.
    pub(crate) fn zeroed(&self) -> i64 {
        i64::MAX - self.zeros_left.load(Ordering::SeqCst)
    }

    /// Where the last write of records ended.
    pub(crate) fn written_to(&self) -> u64 {
        let events = self.events.lock();
        let end = |event: &Event| match event {
            // At 0 stand headers, and small files that are replaced as a whole.
            Event::Wrote(from @ 1.., bytes) => Some(from + bytes),
            _ => None,
        };
        events.iter().rev().find_map(end).unwrap()
    }

    fn note(&self, event: Event) {
        self.events.lock().push(event);
    }

    fn spend(&self, is_sync: bool) -> io::Result<()> {
        if self.syncs_only && !is_sync {
            return Ok(());
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            Err(io::Error::other("the disk failed"))
        } else {
            Ok(())
        }
    }
}

pub(crate) struct FailingDisk(Arc<Failing>);

impl FailingDisk {
    pub(crate) fn shared(failing: &Arc<Failing>) -> SharedDisk {
        Arc::new(Self(failing.clone()))
    }
}

struct FailingFile(Arc<dyn DiskFile>, Arc<Failing>, PathBuf);

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            self.0.pass(path);
            self.0.room(false)?;
            self.0.spend(false)?;
        }
        Ok(Arc::new(FailingFile(RealDisk.open(path, mode)?, self.0.clone(), path.to_owned())))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.read_dir(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.file_len(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.pass(to);
        self.0.spend(false)?;
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.spend(false)?;
        RealDisk.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.spend(true)?;
        self.0.note(Event::SyncedDir(path.to_owned()));
        RealDisk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn try_read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.0.try_read_cached(buf, offset)
    }
    fn write_all_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.1.pass(&self.2);
        let bytes: u64 = parts.iter().map(|p| p.len() as u64).sum();
        self.1.room(offset + bytes <= self.0.len()?)?;
        self.1.spend(false)?;
        self.1.note(Event::Wrote(offset, bytes));
        self.0.write_all_at(parts, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass(&self.2);
        self.1.spend(true)?;
        self.1.note(Event::Synced);
        self.0.sync_data()
    }
    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        self.1.pass(&self.2);
        self.1.room(to <= self.0.len()?)?;
        if self.1.zeros_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.1.zeros_left.store(0, Ordering::SeqCst);
            self.1.zeros_refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Half of the zeros arrive.
        self.1.spend(false).or_else(|e| self.0.zero_ahead(from, from + (to - from) / 2).and(Err(e)))?;
        self.0.zero_ahead(from, to)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}
