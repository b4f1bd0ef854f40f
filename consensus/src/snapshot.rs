//! Snapshots on disk: each a directory with a description and the state machine's own copy.
//!
//! ```text
//! snapshots/snap-INDEX-TERM-N/meta     what it holds (checksummed)
//!                            /state/   the state machine's files
//!          /building/                  one that is being made; removed at the next start
//!          /incoming-N/                one that is being received
//!          /gone-INDEX-TERM-N/         one that is being removed; likewise
//! ```
//! A directory named `snap-…` is whole at every moment: it gets that name last of all, and loses it first of all.
//!
//! These are real files: storage engines below a state machine write and read them on their own, so [`std::fs`] is
//! used rather than the [`Disk`] trait, except for the checksummed description.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hay_common::disk::{SharedDisk, is_full};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::envelope::Kind;
use crate::error::StartError;
use crate::types::SnapshotMeta;

const KIND: Kind = Kind { magic: *b"haySnapD", version: 1 };

#[derive(Serialize, Deserialize)]
struct Description {
    meta: SnapshotMeta,
}

/// A published snapshot. Its directory goes when a newer one has taken its place and nobody reads it any more.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) meta: SnapshotMeta,
    path: PathBuf,
    superseded: AtomicBool,
}

impl Published {
    /// Where the state machine's copy is.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.superseded.load(Ordering::Acquire)
            && let Err(error) = retire(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an old snapshot could not be removed");
        }
    }
}

/// A snapshot's state as openraft hands it around.
#[derive(Debug, Clone)]
pub(crate) enum SnapshotDir {
    /// One of this member's own.
    Published(Arc<Published>),
    /// Being received: the state machine's files go here.
    Incoming(Arc<IncomingDir>),
}

impl SnapshotDir {
    pub(crate) fn state_dir(&self) -> PathBuf {
        match self {
            Self::Published(published) => published.state_dir(),
            Self::Incoming(incoming) => incoming.path.clone(),
        }
    }
}

/// A directory to receive a snapshot into. Goes with its last holder, unless it has become a snapshot.
#[derive(Debug)]
pub(crate) struct IncomingDir {
    path: PathBuf,
}

impl IncomingDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for IncomingDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a broken-off snapshot could not be removed");
        }
    }
}

/// The snapshots of one group. Only the newest is kept.
pub(crate) struct Snapshots {
    dir: PathBuf,
    disk: SharedDisk,
    current: Mutex<Option<Arc<Published>>>,
    incoming: AtomicU64,
}

impl Snapshots {
    /// Finds the newest snapshot and removes what crashes left.
    pub(crate) fn open(dir: PathBuf, disk: SharedDisk) -> Result<Self, StartError> {
        let io = |source| StartError::Io { what: "can't open the snapshots in", path: dir.clone(), source };
        disk.create_dir_all(&dir).map_err(io)?;
        let mut newest: Option<Published> = None;
        let mut without_description = Vec::new();
        for name in disk.read_dir(&dir).map_err(io)? {
            let path = dir.join(&name);
            if !name.to_string_lossy().starts_with("snap-") {
                remove(&path).map_err(io)?;
                continue;
            }
            let meta_path = path.join("meta");
            let description: Option<Description> = KIND.read(disk.as_ref(), &meta_path)?;
            let Some(Description { meta }) = description else {
                without_description.push(path);
                continue;
            };
            let found = Published { meta, path, superseded: AtomicBool::new(false) };
            let (keep, old) = match newest.take() {
                Some(other) if other.meta.last_log_id > found.meta.last_log_id => (other, Some(found)),
                other => (found, other),
            };
            if let Some(old) = old {
                old.superseded.store(true, Ordering::Release);
            }
            newest = Some(keep);
        }
        for path in without_description {
            // The rest of one that was being removed, if a whole one is newer: an earlier program removed in place.
            if newest.as_ref().is_none_or(|newest| position(&newest.path) <= position(&path)) {
                let what = "a snapshot has no description".to_owned();
                return Err(StartError::Corrupt { path: path.join("meta"), what });
            }
            retire(&path).map_err(io)?;
        }
        Ok(Self { dir, disk, current: Mutex::new(newest.map(Arc::new)), incoming: AtomicU64::new(0) })
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What they are on.
    pub(crate) fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// The newest one.
    pub(crate) fn current(&self) -> Option<Arc<Published>> {
        self.current.lock().clone()
    }

    /// An empty directory to receive a snapshot into.
    pub(crate) fn incoming(&self) -> io::Result<IncomingDir> {
        // Never the one of a transfer before this: that may still be written to.
        let number = self.incoming.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("incoming-{number}"));
        remove(&path)?;
        self.disk.create_dir_all(&path)?;
        Ok(IncomingDir { path })
    }

    /// Publishes a snapshot that `fill` writes into an empty directory, durably, in place of the one before.
    pub(crate) fn publish<E>(
        &self,
        meta: &SnapshotMeta,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Arc<Published>, PublishError<E>> {
        let building = self.dir.join("building");
        let state = building.join("state");
        remove(&building)?;
        self.disk.create_dir_all(&state)?;
        // First: where the disk has no room for it, a received state still lies where it was.
        KIND.publish(self.disk.as_ref(), &building.join("meta"), &Description { meta: meta.clone() })?;
        fill(&state).map_err(PublishError::Fill)?;
        self.disk.sync_dir(&building)?;
        let path = self.free_name(meta)?;
        self.disk.rename(&building, &path)?;
        self.disk.sync_dir(&self.dir)?;
        let published = Arc::new(Published { meta: meta.clone(), path, superseded: AtomicBool::new(false) });
        let before = self.current.lock().replace(published.clone());
        if let Some(before) = before {
            before.superseded.store(true, Ordering::Release);
        }
        Ok(published)
    }

    /// Removes what is left of one that was not finished: on a full disk others need the room.
    pub(crate) fn discard(&self) {
        let building = self.dir.join("building");
        if let Err(error) = remove(&building) {
            tracing::warn!(path = %building.display(), %error, "an unfinished snapshot could not be removed");
        }
    }

    /// Publishes a received snapshot. What came from another member is this one's own and durable already: its
    /// directory is taken as it is. One of a sender in this process is copied: it may still be read.
    pub(crate) fn adopt(
        &self,
        meta: &SnapshotMeta,
        from: &SnapshotDir,
    ) -> Result<Arc<Published>, PublishError<io::Error>> {
        self.publish(meta, |state| match from {
            SnapshotDir::Published(published) => copy_dir(&published.state_dir(), state),
            SnapshotDir::Incoming(incoming) => fs::rename(&incoming.path, state),
        })
    }

    /// Two snapshots of one position may differ in bytes, and the older may still be read.
    fn free_name(&self, meta: &SnapshotMeta) -> io::Result<PathBuf> {
        let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let mut number = 0u64;
        loop {
            let path = self.dir.join(format!("snap-{index:020}-{term}-{number}"));
            if self.disk.file_len(&path)?.is_none() {
                return Ok(path);
            }
            number += 1;
        }
    }
}

/// Why a snapshot was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError<E> {
    #[error("the disk failed while a snapshot was written")]
    Io(#[from] io::Error),
    #[error("the state could not be copied")]
    Fill(#[source] E),
}

impl<E> PublishError<E> {
    /// Whether the disk was full; `fill` tells it of what failed in the state.
    pub(crate) fn is_full(&self, fill: impl FnOnce(&E) -> bool) -> bool {
        match self {
            Self::Io(error) => is_full(error),
            Self::Fill(error) => fill(error),
        }
    }
}

/// Removes a snapshot: its name first, durably, so that a crash on the way leaves no half of one under it.
fn retire(path: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let gone = dir.join(format!("gone-{}", name.to_string_lossy().trim_start_matches("snap-")));
    remove(&gone)?;
    fs::rename(path, &gone)?;
    fs::File::open(dir)?.sync_all()?;
    remove(&gone)
}

/// Index, term and number in the name of a snapshot's directory; `None` where they are not to be told.
fn position(path: &Path) -> Option<(u64, u64, u64)> {
    let mut parts = path.file_name()?.to_str()?.strip_prefix("snap-")?.split('-').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Copies a directory, durably.
fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    fs::File::open(to)?.sync_all()
}

#[cfg(test)]
mod tests {
    use hay_common::disk::RealDisk;
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::LogId;

    fn meta(index: u64) -> SnapshotMeta {
        let id = LogId::new(CommittedLeaderId::new(1, 1), index);
        SnapshotMeta { last_log_id: Some(id), snapshot_id: index.to_string(), ..SnapshotMeta::default() }
    }

    fn open(dir: &Path) -> Result<Snapshots, StartError> {
        Snapshots::open(dir.to_owned(), RealDisk::shared())
    }

    fn publish(snapshots: &Snapshots, index: u64) -> Arc<Published> {
        let fill = |state: &Path| fs::write(state.join("file"), index.to_string());
        snapshots.publish(&meta(index), fill).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_crash_while_an_old_snapshot_is_removed_leaves_a_directory_that_opens() {
        for whole in ["snap-00000000000000000007-1-0", "gone-00000000000000000007-1-0"] {
            let dir = tempfile::tempdir().unwrap();
            let snapshots = open(dir.path()).unwrap();
            publish(&snapshots, 7);
            let old = snapshots.current().unwrap();
            publish(&snapshots, 9);
            // What is left when its first file is gone.
            fs::rename(&old.path, dir.path().join(whole)).unwrap();
            fs::remove_file(dir.path().join(whole).join("meta")).unwrap();
            std::mem::forget(old);
            drop(snapshots);
            let snapshots = open(dir.path()).unwrap();
            assert_eq!(snapshots.current().unwrap().meta, meta(9));
            assert_eq!(names(dir.path()), ["snap-00000000000000000009-1-0"], "{whole}");
        }
    }

    #[test]
    fn the_only_or_newest_snapshot_without_its_description_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = open(dir.path()).unwrap();
        let first = publish(&snapshots, 7);
        fs::create_dir(dir.path().join("snap-00000000000000000009-1-0")).unwrap();
        assert!(matches!(open(dir.path()), Err(StartError::Corrupt { .. })));
        fs::remove_dir(dir.path().join("snap-00000000000000000009-1-0")).unwrap();
        fs::remove_file(first.path.join("meta")).unwrap();
        assert!(matches!(open(dir.path()), Err(StartError::Corrupt { .. })));
        assert!(first.state_dir().join("file").exists(), "nothing was changed");
    }

    #[test]
    fn an_old_snapshot_loses_its_name_first_and_goes_when_nobody_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = open(dir.path()).unwrap();
        let reading = publish(&snapshots, 7);
        publish(&snapshots, 9);
        assert_eq!(fs::read(reading.state_dir().join("file")).unwrap(), b"7");
        drop(reading);
        assert_eq!(names(dir.path()), ["snap-00000000000000000009-1-0"]);
        // Where the removal itself can't happen, the name is gone all the same.
        let path = dir.path().join("snap-00000000000000000009-1-0");
        fs::write(dir.path().join("gone-00000000000000000009-1-0"), b"in the way").unwrap();
        retire(&path).unwrap();
        assert!(names(dir.path()).is_empty());
    }
}
