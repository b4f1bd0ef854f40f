//! Files that are written below one local directory, and never outside: every step goes through the open
//! directory above it and follows no symlink, so that neither a stored name nor a link that lies in wait leads out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use hay_common::random::Random;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Why a file can't be written.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The stored name is no name for a local file.
    #[error("is no name for a local file (it would lead outside the target, or can't exist)")]
    UnsafeName,
    /// Something other than a directory is in the way.
    #[error("{0:?} is in the way: it is not a directory (symlinks are not followed below the target)")]
    InTheWay(String),
    /// A directory is where the file should be.
    #[error("a directory of that name is in the way")]
    IsDirectory,
    /// The system says no.
    #[error("can't be written: {0}")]
    Io(#[from] io::Error),
}

/// The segments of a stored path as local names.
///
/// # Errors
/// When one of them would lead outside, or can't exist.
pub fn local_segments(relative: &str) -> Result<Vec<&str>, LocalError> {
    let inner = relative.strip_suffix('/').unwrap_or(relative);
    let segments: Vec<&str> = inner.split('/').collect();
    let safe = |segment: &&str| !matches!(*segment, "" | "." | "..") && !segment.contains('\0');
    if segments.iter().all(safe) { Ok(segments) } else { Err(LocalError::UnsafeName) }
}

/// The directory that all files go below. Cheap to clone.
#[derive(Clone)]
pub struct LocalRoot {
    directory: Arc<OwnedFd>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl LocalRoot {
    /// An existing directory. The caller named it, so it may be a symlink.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: Arc::new(open(path, DIRECTORY, Mode::empty())?) })
    }

    /// Makes the directories of a stored path, the last segment included.
    pub fn make_directory(&self, relative: &str) -> Result<(), LocalError> {
        self.descend(&local_segments(relative)?).map(drop)
    }

    /// The innermost of `segments`, made where missing.
    fn descend(&self, segments: &[&str]) -> Result<Arc<OwnedFd>, LocalError> {
        let mut here = self.directory.clone();
        for segment in segments {
            let entered = openat(&here, *segment, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
            let entered = match entered {
                Err(Errno::NOENT) => {
                    match mkdirat(&here, *segment, Mode::from_raw_mode(0o777)) {
                        // Another transfer may have made it just now.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(LocalError::Io(error.into())),
                    }
                    openat(&here, *segment, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                }
                other => other,
            };
            here = match entered {
                Ok(fd) => Arc::new(fd),
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(LocalError::InTheWay((*segment).to_owned())),
                Err(error) => return Err(LocalError::Io(error.into())),
            };
        }
        Ok(here)
    }

    /// A file to write to, under a name of its own until it is published.
    pub fn create(&self, relative: &str, random: &dyn Random) -> Result<PartFile, LocalError> {
        let segments = local_segments(relative)?;
        let (name, above) = segments.split_last().ok_or(LocalError::UnsafeName)?;
        let directory = self.descend(above)?;
        let part = format!(".hay-{:016x}.part", random.u64());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&directory, &part, flags, Mode::from_raw_mode(0o666)).map_err(io::Error::from)?;
        Ok(PartFile { directory, part, name: (*name).to_owned(), file: File::from(fd), published: false })
    }

    /// Whether something is at a stored path, symlinks not followed.
    pub fn exists(&self, relative: &str) -> Result<bool, LocalError> {
        let segments = local_segments(relative)?;
        let path = segments.join("/");
        match rustix::fs::statat(&self.directory, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(LocalError::Io(error.into())),
        }
    }
}

/// A file that is not yet there. Goes away with this, unless it was published.
pub struct PartFile {
    directory: Arc<OwnedFd>,
    part: String,
    name: String,
    file: File,
    published: bool,
}

impl PartFile {
    /// The file to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Lets the file appear under its name, in the place of one that may be there.
    pub fn publish(mut self) -> Result<(), LocalError> {
        match renameat(&self.directory, &self.part, &self.directory, &self.name) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => Err(LocalError::IsDirectory),
            Err(error) => Err(LocalError::Io(error.into())),
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed now stays under a name that says what it is.
            let _ = unlinkat(&self.directory, &self.part, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::random::SeededRandom;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn put(root: &LocalRoot, relative: &str, bytes: &[u8]) -> Result<(), LocalError> {
        let mut part = root.create(relative, SeededRandom::shared(7).as_ref())?;
        part.file().write_all(bytes).unwrap();
        part.publish()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = LocalRoot::open(dir.path()).unwrap();
        put(&root, "a/b/c", b"one").unwrap();
        put(&root, "a/b/c", b"two").unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b/c")).unwrap(), b"two");
        let mut part = root.create("a/b/d", SeededRandom::shared(8).as_ref()).unwrap();
        part.file().write_all(b"half").unwrap();
        drop(part);
        assert_eq!(names(&dir.path().join("a/b")), ["c"]);
        root.make_directory("e/f/").unwrap();
        assert!(dir.path().join("e/f").is_dir());
        assert!(root.exists("e/f/").unwrap() && !root.exists("e/g").unwrap());
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let root = LocalRoot::open(&inside).unwrap();
        for name in ["..", "../x", "a/../../x", "/x", "a//b", ".", "a/./b", "", "a\0b"] {
            assert!(matches!(put(&root, name, b""), Err(LocalError::UnsafeName)), "{name:?}");
            assert!(matches!(root.make_directory(name), Err(LocalError::UnsafeName)), "{name:?}");
        }
        assert_eq!(names(dir.path()), ["inside"]);
        assert_eq!(names(&inside), [""; 0]);
    }

    #[test]
    fn symlinks_that_lie_in_wait_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("victim"), b"kept").unwrap();
        symlink(&outside, inside.join("dir")).unwrap();
        symlink(outside.join("victim"), inside.join("file")).unwrap();
        let root = LocalRoot::open(&inside).unwrap();
        assert!(matches!(put(&root, "dir/victim", b"x"), Err(LocalError::InTheWay(_))));
        assert!(matches!(root.make_directory("dir/sub"), Err(LocalError::InTheWay(_))));
        // The link itself is replaced, what it points to is not touched.
        put(&root, "file", b"new").unwrap();
        assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"kept");
        assert_eq!(names(&outside), ["victim"]);
    }

    #[test]
    fn a_directory_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = LocalRoot::open(dir.path()).unwrap();
        root.make_directory("a").unwrap();
        assert!(matches!(put(&root, "a", b""), Err(LocalError::IsDirectory)));
        put(&root, "f", b"").unwrap();
        assert!(matches!(put(&root, "f/g", b""), Err(LocalError::InTheWay(_))));
    }
}
