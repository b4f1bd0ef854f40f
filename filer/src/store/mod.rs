//! The metadata in RocksDB, without its own log: the replicated log is one, and is purged only below a snapshot.

mod known;
mod layout;
mod machine;
mod reader;
mod rocks;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hay_common::disk::{Disk, SharedDisk};
use parking_lot::{Mutex, RwLock};
use rocksdb::{Cache, DB};

use self::known::{KnownRows, Pass};
use self::layout::Layout;
pub use self::layout::LayoutError;
pub use self::machine::Machine;
pub use self::reader::{Effort, Reader, to_failure};
use crate::namespace::rows::RowsError;
use crate::schema::keys;
use crate::schema::values::{DecodeRowError, FORMAT_VERSION, FormatRow, Row};

/// Why the metadata can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The engine.
    #[error("the metadata in {dir} can't be opened", dir = dir.display())]
    Engine {
        /// The database.
        dir: PathBuf,
        /// In the engine's words.
        #[source]
        source: rocksdb::Error,
    },
    /// Another version wrote it.
    #[error(
        "the metadata in {dir} has format {found}; this program uses format {known}. The format is not frozen yet: \
         use the program that wrote it, or read the files out with that program and store them anew", dir = dir.display()
    )]
    Format {
        /// The database.
        dir: PathBuf,
        /// The format that was found; 0 where none is named.
        found: u32,
        /// The one that this program uses.
        known: u32,
    },
    /// The format row can't be read.
    #[error("the metadata in {dir} is damaged", dir = dir.display())]
    Damaged {
        /// The database.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: RowsError,
    },
}

/// What the writer and the readers share.
struct Shared {
    db: RwLock<Arc<DB>>,
    known: KnownRows,
    number: Mutex<u64>,
    layout: Layout,
    cache: Cache,
    disk: SharedDisk,
}

impl Shared {
    fn db(&self) -> Arc<DB> {
        self.db.read().clone()
    }

    /// The database for readers.
    fn view(&self) -> View<'_> {
        // In this order: rows at hand may be used only by snapshots that are not older than the pass.
        let pass = self.known.pass();
        View { known: &self.known, pass, db: self.db() }
    }
}

/// What a snapshot is taken of, and the rows at hand that it may use.
struct View<'s> {
    known: &'s KnownRows,
    pass: Pass,
    db: Arc<DB>,
}

/// Opens the metadata in `dir`, or makes it: the one writer, for the replicated log, and a reader.
///
/// # Errors
/// See [`OpenStoreError`]. Nothing is changed then.
pub fn open(dir: &Path, cache_bytes: usize, disk: SharedDisk) -> Result<(Machine, Reader), OpenStoreError> {
    let io = |what| move |source| LayoutError::Io { what, path: dir.to_owned(), source };
    disk.create_dir_all(dir).map_err(io("create"))?;
    // Its name has to outlive a power loss too.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(io("sync the parent of"))?;
    }
    let layout = Layout::at(dir);
    let cache = Cache::new_lru_cache(cache_bytes);
    let known = layout.current(disk.as_ref())?;
    if known.is_none() {
        refuse_what_is_in_use(&layout, disk.as_ref())?;
    }
    let number = known.unwrap_or(1);
    layout.remove_leftovers(disk.as_ref(), known.unwrap_or(0))?;
    let path = layout.state(number);
    let engine = |source| OpenStoreError::Engine { dir: path.clone(), source };
    let db = rocks::open(&path, &cache).map_err(engine)?;
    if known.is_none() {
        let row = FormatRow { version: FORMAT_VERSION };
        db.put_opt(keys::format(), row.encode(), &rocks::without_wal()).map_err(engine)?;
        rocks::flush(&db).map_err(engine)?;
        layout.publish(disk.as_ref(), number)?;
    }
    check_format(&db, &path)?;
    let shared = Arc::new(Shared {
        db: RwLock::new(Arc::new(db)),
        known: KnownRows::default(),
        number: Mutex::new(number),
        layout,
        cache,
        disk,
    });
    Ok((Machine::over(shared.clone()), Reader::over(shared)))
}

/// Without `current` a directory is new, or has lost it. In a new one a crash may have left a database, but none in which
/// a command was applied, and no log.
fn refuse_what_is_in_use(layout: &Layout, disk: &dyn Disk) -> Result<(), OpenStoreError> {
    if layout.has_log(disk)? {
        return Err(layout.lost("the replicated log").into());
    }
    for number in layout.states(disk)? {
        let path = layout.state(number);
        let held = DB::open_for_read_only(&rocksdb::Options::default(), &path, false)
            .and_then(|db| db.get(keys::applied()));
        match held {
            Ok(None) => {}
            Ok(Some(_)) => return Err(layout.lost(&format!("state-{number} with what was applied")).into()),
            // Cut off while it was made, or damaged: which of them can't be told, so it is kept.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a database that can't be opened is moved aside");
                layout.move_aside(disk, number)?;
            }
        }
    }
    Ok(())
}

fn check_format(db: &DB, dir: &Path) -> Result<(), OpenStoreError> {
    let wrong = |found| OpenStoreError::Format { dir: dir.to_owned(), found, known: FORMAT_VERSION };
    let found =
        db.get(keys::format()).map_err(|source| OpenStoreError::Engine { dir: dir.to_owned(), source })?;
    match found.map(|bytes| FormatRow::decode(&bytes)) {
        Some(Ok(row)) if row.version == FORMAT_VERSION => Ok(()),
        Some(Ok(row)) => Err(wrong(row.version)),
        Some(Err(DecodeRowError::NewerVersion { found, .. })) => Err(wrong(u32::from(found))),
        Some(Err(error)) => Err(OpenStoreError::Damaged { dir: dir.to_owned(), source: error.into() }),
        None => Err(wrong(0)),
    }
}
