//! Bytes of half-received chunks in files, while others need the memory.
//!
//! The files have no names: they are unlinked as soon as they are open, so that none outlives its body, nor the process.
//! What a body sent is checked as it comes back: the chunk's hash is only reckoned from the bytes then, and would make
//! damage look like what the client meant.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hay_common::disk::{DiskFile, OpenMode, SharedDisk, read_exact_at};
use hay_common::limits::ASIDE_SPARE_BYTES;

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
}

impl AsideRoom {
    /// Makes `dir` where it is missing and clears it of what a crash left: a file between its opening and its unlinking.
    /// Blocks.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn open(disk: SharedDisk, dir: PathBuf, reserve_bytes: u64) -> io::Result<Self> {
        disk.create_dir_all(&dir)?;
        for name in disk.read_dir(&dir)? {
            disk.remove_file(&dir.join(name))?;
        }
        Ok(Self { disk, dir, reserve_bytes, opened: AtomicU64::new(0) })
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
        let (handle, before, crc) = match file {
            Some(file) => (Arc::clone(&file.file), file.bytes, file.crc),
            None => (self.nameless()?, 0, 0),
        };
        handle.write_all_at(&[IoSlice::new(bytes)], before as u64)?;
        let crc = crc32c::crc32c_append(crc, bytes);
        *file = Some(AsideFile { file: handle, bytes: before + bytes.len(), crc });
        Ok(())
    }

    fn nameless(&self) -> io::Result<Arc<dyn DiskFile>> {
        let name = format!("{}", self.opened.fetch_add(1, Ordering::Relaxed));
        let path = self.dir.join(name);
        let file = self.disk.open(&path, OpenMode::CreateNew)?;
        self.disk.remove_file(&path)?;
        Ok(file)
    }
}

/// The first bytes of a chunk, in a file that is gone when this is.
pub(crate) struct AsideFile {
    file: Arc<dyn DiskFile>,
    bytes: usize,
    /// CRC32C of all of them.
    crc: u32,
}

impl AsideFile {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Reads all of them into `into`, which has their length. Blocks.
    ///
    /// # Errors
    /// See [`AsideError`].
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<(), AsideError> {
        read_exact_at(self.file.as_ref(), into, 0)?;
        if into.len() != self.bytes || crc32c::crc32c(into) != self.crc {
            return Err(AsideError::Damaged);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
