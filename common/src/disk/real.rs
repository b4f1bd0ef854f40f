//! The machine's own file system.

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags};

use super::{DirLock, Disk, DiskFile, OpenMode, SharedDisk, Space};

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// As a trait object.
    pub fn shared() -> SharedDisk {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(path)?
            .map(|e| e.map(|e| PathBuf::from(e.file_name())))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(names)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The lock goes when the descriptor does, so also with the process.
struct RealLock(#[expect(dead_code, reason = "held, not read")] File);

impl DirLock for RealLock {}

struct RealFile(File);

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn try_read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        match rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(n) => Ok(Some(n)),
            // Not cached, or a file system that can't tell: let a thread that may wait do it.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        let mut parts = parts.to_vec();
        let mut left: &mut [IoSlice<'_>] = &mut parts;
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            // The kernel takes at most IOV_MAX parts a call.
            let batch = left.get(..left.len().min(1024)).unwrap_or(left);
            match rustix::io::pwritev(&self.0, batch, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut left, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let piece = ZEROS.len().min(usize::try_from(to - at).unwrap_or(ZEROS.len()));
            let zeros = ZEROS.get(..piece).unwrap_or(&ZEROS);
            self.write_all_at(&[IoSlice::new(zeros)], at)?;
            at += piece as u64;
        }
        self.0.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|m| m.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{atomic_publish, read_exact_at};

    #[test]
    fn written_parts_read_back_cached_and_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let file = disk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        let many: Vec<[u8; 3]> = (0..5000u32).map(|i| [i as u8, (i >> 8) as u8, 9]).collect();
        let parts: Vec<IoSlice<'_>> = many.iter().map(|m| IoSlice::new(m)).collect();
        file.write_all_at(&parts, 7).unwrap();
        file.sync_data().unwrap();
        let mut back = vec![0; 15_000];
        read_exact_at(file.as_ref(), &mut back, 7).unwrap();
        assert_eq!(back, many.concat());
        let mut cached = vec![0; 15_000];
        if let Some(n) = file.try_read_cached(&mut cached, 7).unwrap() {
            assert_eq!(cached[..n], back[..n]);
        }
        assert!(read_exact_at(file.as_ref(), &mut back, 8).is_err());
    }

    #[test]
    fn zeros_are_zeros_and_leave_what_stands_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        file.write_all_at(&[IoSlice::new(b"head")], 0).unwrap();
        file.zero_ahead(4, 3 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 3 << 20);
        let mut all = vec![1; 3 << 20];
        read_exact_at(file.as_ref(), &mut all, 0).unwrap();
        assert_eq!(&all[..4], b"head");
        assert!(all[4..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }

    #[test]
    fn publishing_replaces_and_survives_what_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(dir.path().join("f.new"), b"half").unwrap();
        atomic_publish(&RealDisk, &path, b"one").unwrap();
        atomic_publish(&RealDisk, &path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(RealDisk.read_dir(dir.path()).unwrap(), [PathBuf::from("f")]);
    }
}
