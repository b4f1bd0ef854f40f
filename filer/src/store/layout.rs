//! The filer's directory: which database in it is the one in use, and how another takes its place.
//!
//! ```text
//! DIR/current      the name of the database in use, replaced atomically
//! DIR/state-1/     a RocksDB database
//! DIR/raft/        the replicated log (the consensus's own)
//! ```
//!
//! A snapshot that arrives is copied into `state-(n+1)`, completed and synced there, and only then named in `current`:
//! a crash leaves the old state or the new one. What `current` does not name is left over and removed at the next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hay_common::disk::{Disk, OpenMode, atomic_publish, read_exact_at};

const CURRENT: &str = "current";
const STATE: &str = "state-";
const RAFT: &str = "raft";

/// Why the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The disk said no.
    #[error("{what} {path}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The disk's own words.
        #[source]
        source: io::Error,
    },
    /// `current` does not name a database.
    #[error("{path} is damaged: it names {found:?}. Nothing was changed; restore the directory from a backup", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// `current` is gone, but not what it stood for.
    #[error("{path} is missing, but {what} is there. Nothing was changed; restore the file or the directory from a backup", path = path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is there.
        what: String,
    },
}

fn failed<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> LayoutError + use<'p> {
    move |source| LayoutError::Io { what, path: path.to_owned(), source }
}

/// The filer's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn state(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{STATE}{number}"))
    }

    /// The number of the database in use, or `None` in a new directory.
    pub fn current(&self, disk: &dyn Disk) -> Result<Option<u64>, LayoutError> {
        let path = self.dir.join(CURRENT);
        let Some(len) = disk.file_len(&path).map_err(failed("stat", &path))? else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(len.min(64)).unwrap_or(64)];
        let file = disk.open(&path, OpenMode::Read).map_err(failed("open", &path))?;
        read_exact_at(file.as_ref(), &mut bytes, 0).map_err(failed("read", &path))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match text.trim_end().strip_prefix(STATE).and_then(|n| n.parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(LayoutError::Corrupt { path, found: text }),
        }
    }

    /// Makes `number` the database in use, durably. Its own files have to be durable already.
    pub fn publish(&self, disk: &dyn Disk, number: u64) -> Result<(), LayoutError> {
        disk.sync_dir(&self.dir).map_err(failed("sync", &self.dir))?;
        let path = self.dir.join(CURRENT);
        atomic_publish(disk, &path, format!("{STATE}{number}\n").as_bytes()).map_err(failed("replace", &path))
    }

    /// The numbers of all databases.
    pub fn states(&self, disk: &dyn Disk) -> Result<Vec<u64>, LayoutError> {
        let names = disk.read_dir(&self.dir).map_err(failed("list", &self.dir))?;
        let number = |name: &PathBuf| name.to_str()?.strip_prefix(STATE)?.parse().ok();
        Ok(names.iter().filter_map(number).collect())
    }

    /// Whether a replicated log is there.
    pub fn has_log(&self, disk: &dyn Disk) -> Result<bool, LayoutError> {
        let path = self.dir.join(RAFT);
        Ok(disk.file_len(&path).map_err(failed("stat", &path))?.is_some())
    }

    /// The error for a directory that holds `what`, but not `current`.
    pub fn lost(&self, what: &str) -> LayoutError {
        LayoutError::Lost { path: self.dir.join(CURRENT), what: what.to_owned() }
    }

    /// Renames a database so that it is never touched again.
    pub fn move_aside(&self, disk: &dyn Disk, number: u64) -> Result<(), LayoutError> {
        let path = self.state(number);
        let mut names = (0u32..).map(|n| self.dir.join(format!("unused-{STATE}{number}-{n}")));
        let aside = names.find(|aside| !aside.exists()).unwrap_or_else(|| self.dir.join("unused"));
        disk.rename(&path, &aside).map_err(failed("move aside", &path))
    }

    /// Removes databases that a crash left behind.
    pub fn remove_leftovers(&self, disk: &dyn Disk, keep: u64) -> Result<(), LayoutError> {
        for number in self.states(disk)?.into_iter().filter(|number| *number != keep) {
            let path = self.state(number);
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

/// Copies a database. Tables never change and are linked where that can be; the rest is copied.
pub(super) fn copy_database(from: &Path, to: &Path) -> Result<(), LayoutError> {
    fs::create_dir(to).map_err(failed("create", to))?;
    for entry in fs::read_dir(from).map_err(failed("list", from))? {
        let path = entry.map_err(failed("list", from))?.path();
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        let linked = path.extension().is_some_and(|e| e == "sst") && fs::hard_link(&path, &target).is_ok();
        if !linked {
            fs::copy(&path, &target).map_err(failed("copy", &path))?;
        }
    }
    sync_tree(to)
}

/// Makes the files of a directory durable, and the directory.
pub(super) fn sync_tree(dir: &Path) -> Result<(), LayoutError> {
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(failed("sync", &path))?;
        }
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}
