//! The free-space reserve: commands that make the store grow are refused before the log or RocksDB meets a full disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use hay_common::disk::SharedDisk;
use hay_common::error::{ErrorCode, Failure};

/// Whether there is room to grow.
pub(crate) struct Reserve {
    disk: SharedDisk,
    dir: PathBuf,
    reserve_bytes: u64,
    full: AtomicBool,
}

impl Reserve {
    pub fn of(disk: SharedDisk, dir: PathBuf, reserve_bytes: u64) -> Self {
        Self { disk, dir, reserve_bytes, full: AtomicBool::new(false) }
    }

    /// Looks at the disk. Blocks.
    pub fn look(&self) {
        let full = match self.disk.space(&self.dir) {
            Ok(space) => space.free < self.reserve_bytes,
            Err(error) => {
                // Not knowing is no leave to fill the disk.
                tracing::warn!(%error, dir = %self.dir.display(), "free space can't be told");
                true
            }
        };
        let was = self.full.swap(full, Ordering::Relaxed);
        metrics::gauge!("hay_filer_storage_full").set(if full { 1.0 } else { 0.0 });
        match (was, full) {
            (false, true) => tracing::warn!(
                dir = %self.dir.display(),
                reserve_bytes = self.reserve_bytes,
                "the free-space reserve is reached: writes are refused, deletes go on"
            ),
            (true, false) => tracing::info!(dir = %self.dir.display(), "there is free space again"),
            _ => {}
        }
    }

    /// Refuses what would grow.
    pub fn check(&self) -> Result<(), Failure> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Failure::new(
                ErrorCode::StorageFull,
                "the filer's disk has reached its free-space reserve: delete files or add space",
            ));
        }
        Ok(())
    }
}
