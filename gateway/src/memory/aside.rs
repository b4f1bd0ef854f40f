//! Bytes of half-received chunks in files, while others need the memory.
//!
//! The files have no names: they are unlinked as soon as they are open, so that none outlives its body, nor the process.
//! What a body sent is checked as it comes back: the chunk's hash is only reckoned from the bytes then, and would make
//! damage look like what the client meant.
//!
//! The directory must lie on a disk: on a tmpfs, what is set aside stays in memory, beyond all budgets.

mod closing;

use std::io::{self, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hay_common::disk::{DiskFile, OpenMode, SharedDisk, read_exact_at};
use hay_common::limits::ASIDE_SPARE_BYTES;

use closing::Closing;

/// Why bytes could not be set aside, or do not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AsideError {
    /// What is left belongs to those who store.
    #[error("the free-space reserve is near")]
    NearlyFull,
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It has other bytes than were written.
    #[error("the file has other bytes than were written")]
    Damaged,
}

/// The directory of the files.
pub(crate) struct AsideRoom {
    disk: SharedDisk,
    dir: PathBuf,
    reserve_bytes: u64,
    opened: AtomicU64,
    closing: Arc<Closing>,
}

impl AsideRoom {
    /// Makes `dir` where it is missing and clears it of what a crash left: a file between its opening and its unlinking.
    /// Whatever else lies there stays. Blocks.
    ///
    /// # Errors
    /// Those of the disk; and when `dir` is a symbolic link or another user's.
    pub(crate) fn open(disk: SharedDisk, dir: PathBuf, reserve_bytes: u64) -> io::Result<Self> {
        disk.create_dir_all(&dir)?;
        check_own(&dir, rustix::process::geteuid().as_raw())?;
        for name in disk.read_dir(&dir)?.iter().filter(|name| is_aside_name(name)) {
            let path = dir.join(name);
            if std::fs::symlink_metadata(&path)?.is_file() {
                disk.remove_file(&path)?;
            }
        }
        Ok(Self { disk, dir, reserve_bytes, opened: AtomicU64::new(0), closing: Arc::default() })
    }

    /// Writes `bytes` behind those that `file` has, in a new file where it has none. On an error `file` has what it had.
    /// Blocks.
    ///
    /// # Errors
    /// See [`AsideError`].
    pub(crate) fn append(&self, file: &mut Option<AsideFile>, bytes: &[u8]) -> Result<(), AsideError> {
        let needed = self.reserve_bytes.saturating_add(ASIDE_SPARE_BYTES).saturating_add(bytes.len() as u64);
        if self.disk.space(&self.dir)?.free < needed {
            return Err(AsideError::NearlyFull);
        }
        match file {
            Some(file) => file.append(bytes)?,
            None => {
                let (handle, closing) = (Some(self.nameless()?), Arc::clone(&self.closing));
                let mut new = AsideFile { handle, bytes: 0, crc: 0, closing };
                new.append(bytes)?;
                *file = Some(new);
            }
        }
        Ok(())
    }

    fn nameless(&self) -> io::Result<Arc<dyn DiskFile>> {
        loop {
            let name = format!("{NAME_START}{}", self.opened.fetch_add(1, Ordering::Relaxed));
            let path = self.dir.join(name);
            match self.disk.open(&path, OpenMode::CreateNew) {
                // No file of ours, or it would have been removed at the start.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    self.disk.remove_file(&path)?;
                    return Ok(file);
                }
            }
        }
    }
}

/// Before the number in a file's name.
const NAME_START: &str = "aside-";

fn is_aside_name(name: &Path) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(NAME_START));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Through a link files would be removed and written elsewhere, and the owner of a directory decides what its names
/// stand for.
fn check_own(dir: &Path, us: u32) -> io::Result<()> {
    let found = std::fs::symlink_metadata(dir)?;
    if found.is_symlink() {
        return Err(io::Error::other("it is a symbolic link: name the directory itself"));
    }
    if found.uid() != us {
        let why = format!("it belongs to user {}, not to {us}, as whom this runs", found.uid());
        return Err(io::Error::other(why));
    }
    Ok(())
}

/// The first bytes of a chunk, in a file that is gone soon after this is.
pub(crate) struct AsideFile {
    /// None: only in [`Drop`], which must give it away and keep no part in it.
    handle: Option<Arc<dyn DiskFile>>,
    bytes: usize,
    /// CRC32C of all of them.
    crc: u32,
    closing: Arc<Closing>,
}

impl AsideFile {
    fn handle(&self) -> io::Result<&dyn DiskFile> {
        self.handle.as_deref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.handle()?.write_all_at(&[IoSlice::new(bytes)], self.bytes as u64)?;
        self.bytes += bytes.len();
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(())
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Reads all of them into `into`, which has their length. Blocks.
    ///
    /// # Errors
    /// See [`AsideError`].
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<(), AsideError> {
        read_exact_at(self.handle()?, into, 0)?;
        if into.len() != self.bytes || crc32c::crc32c(into) != self.crc {
            return Err(AsideError::Damaged);
        }
        Ok(())
    }
}

impl Drop for AsideFile {
    /// Bodies break off on async threads.
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.closing.close(handle);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
