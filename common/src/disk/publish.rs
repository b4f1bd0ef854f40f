//! The one way in which a small file is replaced.

use std::io;
use std::path::Path;

use super::{Disk, OpenMode};

/// Replaces `path` by `bytes` so that a crash at any moment leaves the old or the new whole:
/// write beside it, fsync, rename over it, fsync the directory. Mode 0600.
///
/// # Errors
/// Those of the disk. The old content stands unless the rename was reached.
pub fn atomic_publish(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = match path.parent().ok_or(io::ErrorKind::InvalidInput)? {
        // A bare name is a file of the working directory.
        bare if bare.as_os_str().is_empty() => Path::new("."),
        dir => dir,
    };
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let beside = dir.join(name);
    // What a crash left of an earlier try.
    if disk.file_len(&beside)?.is_some() {
        disk.remove_file(&beside)?;
    }
    let file = disk.open(&beside, OpenMode::CreateNew)?;
    file.write_all_at(&[io::IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    disk.rename(&beside, path)?;
    disk.sync_dir(dir)
}
