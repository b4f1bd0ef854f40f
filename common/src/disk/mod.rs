//! Files behind a trait, so that a simulated disk can stand in for the real one and fail as it likes.
//!
//! All calls block. None may be made on an async thread but [`DiskFile::try_read_cached`], which never waits.

mod publish;
mod real;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use publish::atomic_publish;
pub use real::RealDisk;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; it is not changed.
    Read,
    /// It must exist.
    ReadWrite,
    /// It must not exist. Mode 0600.
    CreateNew,
}

/// Room on the file system of a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged process may still write.
    pub free: u64,
    /// The whole.
    pub total: u64,
}

/// A directory tree. A stat error is never taken for "absent": only `NotFound` is.
pub trait Disk: Send + Sync + 'static {
    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and those above it; not yet durable: see [`Disk::sync_dir`].
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// The length of a file, or `None` where nothing is.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Moves a file over another in the same file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes created, renamed and removed names of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Holds `path` (created where missing) against other processes until the guard is dropped.
    /// `WouldBlock` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
    /// `None`: its calls block, and belong on threads that may. A simulated disk, whose calls return at once, says how much
    /// simulated time the next piece of work takes; it is done in turn with everything else (see [`crate::work`]).
    fn takes(&self) -> Option<Duration> {
        None
    }
}

/// A lock that lives as long as this does.
pub trait DirLock: Send + Sync {}

/// An open file. Positions are explicit; many threads may use it at once.
pub trait DiskFile: Send + Sync {
    /// Fills `buf` from `offset`, or fewer bytes where the file ends.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`DiskFile::read_at`], if that needs no waiting for the disk; `None` where it would (or where the kernel
    /// can't tell). May be called on an async thread.
    fn try_read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Writes all of `parts`, one after the other, from `offset`.
    fn write_all_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// `fdatasync`. After an error the file's unsynced content is unknown: never call it again to make sure.
    fn sync_data(&self) -> io::Result<()>;
    /// Writes zeros from `from` to `to` and syncs them, so that later syncs below `to` need no journal.
    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Its length now.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

/// A disk that many hold.
pub type SharedDisk = Arc<dyn Disk>;

/// Reads exactly `buf.len()` bytes, or `UnexpectedEof`.
pub fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// Whether an error says that the disk is full (`ENOSPC`, `EDQUOT`).
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
