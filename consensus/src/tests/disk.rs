//! A disk that fails when it is told to, and remembers what reached it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hay_common::disk::{DirLock, Disk, DiskFile, OpenMode, RealDisk, SharedDisk, Space};
use parking_lot::Mutex;

/// A disk on which nothing happens any more after a number of changes: as after `kill -9`, or with failing syncs.
pub(crate) struct Failing {
    pub(crate) left: AtomicI64,
    syncs_only: bool,
    /// How often space may still be zeroed; then the disk is full.
    pub(crate) zeros_left: AtomicI64,
    pub(crate) zeros_refused: AtomicI64,
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
            events: Mutex::default(),
        })
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

struct FailingFile(Arc<dyn DiskFile>, Arc<Failing>);

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            self.0.spend(false)?;
        }
        Ok(Arc::new(FailingFile(RealDisk.open(path, mode)?, self.0.clone())))
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
        self.1.spend(false)?;
        self.1.note(Event::Wrote(offset, parts.iter().map(|p| p.len() as u64).sum()));
        self.0.write_all_at(parts, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.spend(true)?;
        self.1.note(Event::Synced);
        self.0.sync_data()
    }
    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
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
