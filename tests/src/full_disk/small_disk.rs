//! A file system of its own that can be filled: ext4 on a loop device. Without the right to mount, a reserve that is
//! set close to what the ordinary file system has free does for one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Unmounted and gone when it is dropped. Drop the server first.
pub struct SmallDisk {
    holder: tempfile::TempDir,
    mounted: Option<PathBuf>,
    reserve: u64,
}

impl SmallDisk {
    /// `bytes` large; `reserve` is what the server is to keep free.
    pub fn new(bytes: u64, reserve: u64) -> Self {
        let holder = tempfile::Builder::new().prefix("hay-test-disk-").tempdir().unwrap();
        let mounted = mount(holder.path(), bytes);
        let mut disk = Self { holder, mounted, reserve };
        if disk.mounted.is_none() {
            println!(
                "mounting is not allowed here: the ordinary file system stands in, with a large reserve"
            );
            disk.reserve = disk.free().saturating_sub(bytes).max(reserve);
        }
        disk
    }

    pub fn path(&self) -> &Path {
        self.mounted.as_deref().unwrap_or(self.holder.path())
    }

    pub fn free(&self) -> u64 {
        let space = statvfs(self.path()).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// What the server is to be told to keep free.
    pub fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Lays down a ballast that leaves `room` above the reserve.
    pub fn leave(&self, room: u64) {
        self.lay("ballast", self.reserve + room);
    }

    /// Somebody else takes space, until only `share` percent of the reserve are free.
    pub fn press(&self, share: u64) {
        self.lay("press", self.reserve / 100 * share);
    }

    fn lay(&self, name: &str, keep: u64) {
        let bytes = self.free().saturating_sub(keep);
        if bytes > 0 {
            let file = File::create(self.path().join(name)).unwrap();
            fallocate(&file, FallocateFlags::empty(), 0, bytes).unwrap();
            file.sync_all().unwrap();
        }
    }

    /// Makes room again.
    pub fn make_room(&self) {
        for name in ["ballast", "press"] {
            let _ = std::fs::remove_file(self.path().join(name));
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let Some(mounted) = &self.mounted else { return };
        // A server that was killed a moment ago may still hold it: lazily, then.
        if !run(Command::new("umount").arg(mounted)) {
            run(Command::new("umount").arg("-l").arg(mounted));
        }
    }
}

fn mount(holder: &Path, bytes: u64) -> Option<PathBuf> {
    let (image, point) = (holder.join("image"), holder.join("disk"));
    File::create(&image).unwrap().set_len(bytes).unwrap();
    std::fs::create_dir(&point).unwrap();
    let mkfs = ["mkfs.ext4", "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"]
        .iter()
        .any(|mkfs| run(Command::new(mkfs).args(["-q", "-F", "-m", "0"]).arg(&image)));
    let ext4 = mkfs && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point));
    let size = format!("size={bytes}");
    let any = ext4 || run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&point));
    any.then_some(point)
}

fn run(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
