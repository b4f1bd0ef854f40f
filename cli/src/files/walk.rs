//! What is in a local folder, in the words of the store.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hay_common::limits::PATH_DEPTH_MAX;

/// Something in a folder.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File {
        /// Where it is.
        local: PathBuf,
        /// Its path inside the folder, with slashes.
        relative: String,
        /// Bytes, when it was seen.
        size: u64,
    },
    /// A directory that holds nothing that is stored, and would be lost without a word of its own.
    EmptyDirectory {
        /// Its path inside the folder; empty for the folder itself.
        relative: String,
    },
    /// A symlink that was not followed.
    Symlink,
    /// A socket, pipe or device.
    Special,
    /// Something that can't be stored.
    Problem {
        /// Where it is.
        local: PathBuf,
        /// Why.
        cause: WalkError,
    },
}

/// Why something in a folder can't be stored.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// It can't be looked at.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// Stored paths are UTF-8.
    #[error("its name is not UTF-8, and stored paths are")]
    NotUtf8,
    /// A followed symlink leads back.
    #[error("a symlink leads back to a directory above it; not followed")]
    Cycle,
    /// Deeper than a stored path may be.
    #[error("is more than {PATH_DEPTH_MAX} directories deep")]
    TooDeep,
}

/// Looks through `root`, directories before what is behind them in no certain order. `sink` says whether to go on.
/// Blocks.
pub fn walk(root: &Path, follow: bool, sink: &mut dyn FnMut(Found) -> bool) {
    let mut walk = Walk { follow, above: Vec::new(), sink, open: true };
    walk.directory(root, String::new());
}

struct Walk<'a> {
    follow: bool,
    // Device and inode of the directories that we are in: a followed symlink to one of them would never end.
    above: Vec<(u64, u64)>,
    sink: &'a mut dyn FnMut(Found) -> bool,
    open: bool,
}

impl Walk<'_> {
    fn tell(&mut self, found: Found) {
        self.open = self.open && (self.sink)(found);
    }

    fn problem(&mut self, local: &Path, cause: impl Into<WalkError>) {
        self.tell(Found::Problem { local: local.to_owned(), cause: cause.into() });
    }

    /// One directory with all below it. The recursion is as deep as a stored path may be.
    fn directory(&mut self, local: &Path, relative: String) {
        if self.above.len() >= PATH_DEPTH_MAX {
            return self.problem(local, WalkError::TooDeep);
        }
        let listed = fs::metadata(local).and_then(|metadata| Ok((metadata, fs::read_dir(local)?)));
        let (metadata, entries) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.problem(local, error),
        };
        let identity = (metadata.dev(), metadata.ino());
        if self.above.contains(&identity) {
            return self.problem(local, WalkError::Cycle);
        }
        self.above.push(identity);
        let mut kept = 0u64;
        for entry in entries {
            if !self.open {
                break;
            }
            match entry {
                Ok(entry) => kept += u64::from(self.entry(&entry, &relative)),
                Err(error) => self.problem(local, error),
            }
        }
        self.above.pop();
        if kept == 0 {
            self.tell(Found::EmptyDirectory { relative });
        }
    }

    /// One name. Says whether it leaves something stored in its directory.
    fn entry(&mut self, entry: &fs::DirEntry, parent: &str) -> bool {
        let local = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            self.problem(&local, WalkError::NotUtf8);
            return false;
        };
        let relative = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
        let (kind, metadata) = match self.look(entry, &local) {
            Ok(look) => look,
            Err(error) => {
                self.problem(&local, error);
                return false;
            }
        };
        if kind.is_dir() {
            self.directory(&local, relative);
            return true;
        }
        let found = if kind.is_file() {
            Found::File { size: metadata.map_or(0, |m| m.len()), local, relative }
        } else if kind.is_symlink() {
            Found::Symlink
        } else {
            Found::Special
        };
        let kept = matches!(found, Found::File { .. });
        self.tell(found);
        kept
    }

    fn look(&self, entry: &fs::DirEntry, local: &Path) -> io::Result<(FileType, Option<Metadata>)> {
        let kind = entry.file_type()?;
        if kind.is_file() || (kind.is_symlink() && self.follow) {
            let metadata = if self.follow { fs::metadata(local)? } else { entry.metadata()? };
            return Ok((metadata.file_type(), Some(metadata)));
        }
        Ok((kind, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        files: Vec<(String, u64)>,
        empty: Vec<String>,
        symlinks: u64,
        special: u64,
        problems: Vec<String>,
    }

    fn see(root: &Path, follow: bool) -> Seen {
        let mut seen = Seen::default();
        walk(root, follow, &mut |found| {
            match found {
                Found::File { relative, size, .. } => seen.files.push((relative, size)),
                Found::EmptyDirectory { relative } => seen.empty.push(relative),
                Found::Symlink => seen.symlinks += 1,
                Found::Special => seen.special += 1,
                Found::Problem { cause, .. } => seen.problems.push(cause.to_string()),
            }
            true
        });
        seen.files.sort();
        seen.empty.sort();
        seen
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        fs::create_dir(root.join("only-links")).unwrap();
        fs::write(root.join("a/b/one"), b"1").unwrap();
        fs::write(root.join("two"), b"22").unwrap();
        symlink("../two", root.join("only-links/to-two")).unwrap();
        symlink("..", root.join("a/up")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        dir
    }

    #[test]
    fn symlinks_and_special_files_are_counted_and_empty_directories_kept() {
        let seen = see(tree().path(), false);
        assert_eq!(seen.files, [("a/b/one".to_owned(), 1), ("two".to_owned(), 2)]);
        assert_eq!(seen.empty, ["empty", "only-links"]);
        assert_eq!((seen.symlinks, seen.special, seen.problems.len()), (2, 1, 0));
    }

    #[test]
    fn followed_symlinks_never_go_round() {
        let seen = see(tree().path(), true);
        assert_eq!(
            seen.files,
            [("a/b/one".to_owned(), 1), ("only-links/to-two".to_owned(), 2), ("two".to_owned(), 2)]
        );
        assert_eq!(seen.problems, [WalkError::Cycle.to_string()]);
    }

    #[test]
    fn names_that_are_not_utf8_and_dangling_links_are_named_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"").unwrap();
        fs::write(dir.path().join("good"), b"").unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        let seen = see(dir.path(), true);
        assert_eq!(seen.files, [("good".to_owned(), 0)]);
        assert_eq!(seen.problems.len(), 2, "{:?}", seen.problems);
    }

    #[test]
    fn an_empty_folder_is_a_directory_and_a_deep_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(see(dir.path(), false).empty, [""]);
        let mut deep = dir.path().to_owned();
        for _ in 0..PATH_DEPTH_MAX + 3 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(see(dir.path(), false).problems, [WalkError::TooDeep.to_string()]);
    }
}
