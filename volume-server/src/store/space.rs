//! Whether the disk has room. Asked of the kernel now and then, counted down in between.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use hay_common::disk::{SharedDisk, Space};

/// The room on the store's file system.
pub struct FreeSpace {
    disk: SharedDisk,
    dir: PathBuf,
    reserve: u64,
    free: AtomicU64,
    total: AtomicU64,
}

impl FreeSpace {
    /// Asks for the first time.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn new(disk: SharedDisk, dir: PathBuf, reserve: u64) -> io::Result<Self> {
        let space = Self { disk, dir, reserve, free: AtomicU64::new(0), total: AtomicU64::new(0) };
        space.refresh()?;
        Ok(space)
    }

    /// Asks again. Blocks.
    ///
    /// # Errors
    /// Those of the disk; the old figures stand then.
    pub fn refresh(&self) -> io::Result<()> {
        let now = self.disk.space(&self.dir)?;
        self.free.store(now.free, Ordering::Relaxed);
        self.total.store(now.total, Ordering::Relaxed);
        Ok(())
    }

    /// Whether `bytes` more leave the reserve whole.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.free.load(Ordering::Relaxed) >= self.reserve.saturating_add(bytes)
    }

    /// Counts what was written.
    pub fn take(&self, bytes: u64) {
        // The closure never refuses.
        let _ = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| Some(free.saturating_sub(bytes)));
    }

    /// The disk said that it is full: no room until the kernel is asked again.
    pub fn exhausted(&self) {
        self.free.store(0, Ordering::Relaxed);
    }

    /// The figures, as of now.
    pub fn get(&self) -> Space {
        Space { free: self.free.load(Ordering::Relaxed), total: self.total.load(Ordering::Relaxed) }
    }
}
