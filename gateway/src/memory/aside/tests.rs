use super::*;
use hay_common::disk::{DirLock, Disk, RealDisk, Space};
use parking_lot::Mutex;
use std::path::Path;

/// What a disk does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Only so many bytes are free.
    Free(u64),
    /// Files can't be opened: no descriptors, no permission.
    Open,
    /// Writes fail in their middle, as with `ENOSPC`.
    Write,
    /// Writes do not end until it does another thing wrong, or nothing.
    Hang,
    /// A read gives other bytes.
    Flip,
    /// A file is shorter than what was written.
    Short,
}

/// The real disk, with one fault at a time.
#[derive(Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<Fault>>, Closed);

/// The threads that closed a file.
type Closed = Arc<Mutex<Vec<std::thread::ThreadId>>>;

impl FaultyDisk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Fault::None)), Closed::default())
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.0.lock() = fault;
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if *self.0.lock() == Fault::Open {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Arc::new(FaultyFile(self.clone(), RealDisk.open(path, mode)?)))
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
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        match *self.0.lock() {
            Fault::Free(free) => Ok(Space { free, total: u64::MAX }),
            _ => Ok(Space { free: u64::MAX, ..RealDisk.space(path)? }),
        }
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        RealDisk.lock(path)
    }
}

struct FaultyFile(FaultyDisk, Arc<dyn DiskFile>);

impl Drop for FaultyFile {
    fn drop(&mut self) {
        self.0.1.lock().push(std::thread::current().id());
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.1.read_at(buf, offset)?;
        match *self.0.0.lock() {
            Fault::Flip => buf[read / 2] ^= 1,
            Fault::Short if offset > 0 => return Ok(0),
            Fault::Short => return Ok(read / 2),
            _ => {}
        }
        Ok(read)
    }
    fn try_read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.1.try_read_cached(buf, offset)
    }
    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        // A test that fails meanwhile is not held up for ever.
        for _ in 0..30_000 {
            if *self.0.0.lock() != Fault::Hang {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if *self.0.0.lock() == Fault::Write {
            self.1.write_all_at(&[IoSlice::new(&parts[0][..parts[0].len() / 2])], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.1.write_all_at(parts, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.sync_data()
    }
    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        self.1.zero_ahead(from, to)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
}

fn room() -> (AsideRoom, FaultyDisk, tempfile::TempDir) {
    let (disk, dir) = (FaultyDisk::new(), tempfile::tempdir().unwrap());
    let room = AsideRoom::open(Arc::new(disk.clone()), dir.path().join("gateway/aside"), 1000).unwrap();
    (room, disk, dir)
}

fn read(file: &Option<AsideFile>) -> Result<Vec<u8>, AsideError> {
    let file = file.as_ref().unwrap();
    let mut bytes = vec![0; file.len()];
    file.read(&mut bytes).map(|()| bytes)
}

#[test]
fn what_is_appended_comes_back_in_its_order_and_has_no_name() {
    use std::os::unix::fs::PermissionsExt;
    let (room, _, dir) = room();
    let mut file = None;
    room.append(&mut file, b"first, ").unwrap();
    room.append(&mut file, b"then").unwrap();
    assert_eq!(read(&file).unwrap(), b"first, then");
    let aside = dir.path().join("gateway/aside");
    assert!(std::fs::read_dir(&aside).unwrap().next().is_none());
    assert_eq!(std::fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_a_crash_left_is_removed_at_the_start() {
    let (_, _, dir) = room();
    let aside = dir.path().join("gateway/aside");
    std::fs::write(aside.join("aside-0"), "left over").unwrap();
    let room = AsideRoom::open(RealDisk::shared(), aside.clone(), 0).unwrap();
    assert!(std::fs::read_dir(&aside).unwrap().next().is_none());
    room.append(&mut None, b"x").unwrap();
}

#[test]
fn what_is_not_ours_stays_and_stops_nothing() {
    let (_, _, dir) = room();
    let aside = dir.path().join("gateway/aside");
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "precious").unwrap();
    for file in ["notes", "0", "aside-", "aside-1.txt", "aside-+1"] {
        std::fs::write(aside.join(file), "precious").unwrap();
    }
    std::fs::create_dir(aside.join("lost+found")).unwrap();
    std::fs::create_dir(aside.join("aside-0")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, aside.join("aside-1")).unwrap();
    std::fs::write(aside.join("aside-2"), "left over").unwrap();
    let before = RealDisk.read_dir(&aside).unwrap();
    let room = AsideRoom::open(RealDisk::shared(), aside.clone(), 0).unwrap();
    let mut file = None;
    room.append(&mut file, b"x").unwrap();
    assert_eq!(read(&file).unwrap(), b"x");
    let mut after = RealDisk.read_dir(&aside).unwrap();
    after.push("aside-2".into());
    after.sort();
    assert_eq!(after, before);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"precious");
}

#[test]
fn a_directory_that_is_a_link_or_not_ours_is_refused() {
    let (_, _, dir) = room();
    let (aside, link) = (dir.path().join("gateway/aside"), dir.path().join("link"));
    std::fs::write(aside.join("aside-0"), "precious").unwrap();
    std::os::unix::fs::symlink(&aside, &link).unwrap();
    let refused = AsideRoom::open(RealDisk::shared(), link, 0).err().unwrap();
    assert!(refused.to_string().contains("symbolic link"), "{refused}");
    assert!(aside.join("aside-0").exists());
    let us = rustix::process::geteuid().as_raw();
    check_own(&aside, us).unwrap();
    assert!(check_own(&aside, us + 1).unwrap_err().to_string().contains("belongs to user"));
}

#[test]
fn files_are_closed_by_one_thread_that_may_wait() {
    let (room, disk, _dir) = room();
    let full = || {
        let mut file = None;
        room.append(&mut file, b"x").unwrap();
        file
    };
    let here = std::thread::current().id();
    drop(full());
    assert_eq!(*disk.1.lock(), [here], "without a runtime there is nobody else");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let many = || (0..50).map(|_| full()).collect::<Vec<_>>();
    runtime.block_on(async {
        let closed = async || {
            while disk.1.lock().len() < 50 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            std::mem::take(&mut *disk.1.lock())
        };
        disk.1.lock().clear();
        drop(many());
        assert!(!closed().await.contains(&here), "on the thread of the bodies");
        let files = many();
        {
            // Closing takes its time: threads that are to be there are.
            let _slow = disk.1.lock();
            drop(files);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let by = closed().await;
        assert!(by.iter().all(|id| *id == by[0]), "a thread for each: {by:?}");
    });
}

#[test]
fn damage_is_seen_and_a_failed_write_changes_nothing() {
    let (room, disk, _dir) = room();
    let mut file = None;
    room.append(&mut file, b"first, ").unwrap();
    for fault in [Fault::Write, Fault::Free(1000 + ASIDE_SPARE_BYTES + 6)] {
        disk.set(fault);
        assert!(room.append(&mut file, b"failing").is_err(), "{fault:?}");
        disk.set(Fault::None);
        assert_eq!(read(&file).unwrap(), b"first, ");
    }
    disk.set(Fault::Free(1000 + ASIDE_SPARE_BYTES + 4));
    room.append(&mut file, b"then").unwrap();
    disk.set(Fault::None);
    assert_eq!(read(&file).unwrap(), b"first, then");
    disk.set(Fault::Flip);
    assert!(matches!(read(&file), Err(AsideError::Damaged)));
    disk.set(Fault::Short);
    assert!(matches!(read(&file), Err(AsideError::Io(_))));
    disk.set(Fault::Open);
    assert!(matches!(room.append(&mut None, b"x"), Err(AsideError::Io(_))));
}
