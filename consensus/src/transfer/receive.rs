//! The receiver's end: a fresh directory that either becomes a whole, verified, durable copy, or goes.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use hay_common::limits::{
    RAFT_SNAPSHOT_FILES_MAX, RAFT_SNAPSHOT_STALL, RPC_BULK_PART_BYTES, RPC_STREAM_DEPTH,
};
use tokio::sync::mpsc;

use crate::snapshot::IncomingDir;
use crate::transport::{ArrivingParts, FilePart, SnapshotEnd, SnapshotPart, TransportError};

use super::{add_file, safe_name};

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the transfer of the snapshot was cut before its end")]
    Cut,
    #[error("nothing of the snapshot came for too long")]
    Stalled,
    #[error("the snapshot did not arrive as it was sent: {0}")]
    Damaged(&'static str),
    #[error("the snapshot could not be written")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A snapshot that is here, whole and durable.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) dir: Arc<IncomingDir>,
}

/// Takes the parts behind the first one into `dir`. `progress` is told the bytes written so far.
pub(crate) async fn receive(
    dir: IncomingDir,
    mut parts: ArrivingParts,
    progress: impl Fn(u64),
) -> Result<Arrived, ReceiveError> {
    let (queue, arriving) = mpsc::channel(RPC_STREAM_DEPTH);
    let (written, mut news) = tokio::sync::watch::channel(0u64);
    // It owns the directory: whatever happens to this future, the files go when nobody writes them any more.
    let mut writing = tokio::task::spawn_blocking(move || write_all(dir, arriving, &written));
    let mut queue = Some(queue);
    loop {
        tokio::select! {
            done = &mut writing => return done.map_err(io::Error::other)?,
            part = next_part(&mut parts), if queue.is_some() => {
                let part = match part {
                    Ok(part) => part,
                    Err(error) => {
                        // The writer ends too, and may have had a better reason before.
                        drop(queue.take());
                        return match writing.await.map_err(io::Error::other)? {
                            Ok(_) | Err(ReceiveError::Cut) => Err(error),
                            Err(reason) => Err(reason),
                        };
                    }
                };
                let last = matches!(part, SnapshotPart::End(_));
                if let Some(queue) = &queue
                    && queue.send(part).await.is_err()
                {
                    // The writer has failed: it says why.
                    return writing.await.map_err(io::Error::other)?;
                }
                if last {
                    queue = None;
                }
            }
            Ok(()) = news.changed() => progress(*news.borrow_and_update()),
        }
    }
}

async fn next_part(parts: &mut ArrivingParts) -> Result<SnapshotPart, ReceiveError> {
    match tokio::time::timeout(RAFT_SNAPSHOT_STALL, parts.next()).await {
        Err(_) => Err(ReceiveError::Stalled),
        Ok(None) => Err(ReceiveError::Cut),
        Ok(Some(part)) => Ok(part?),
    }
}

fn write_all(
    dir: IncomingDir,
    mut arriving: mpsc::Receiver<SnapshotPart>,
    written: &tokio::sync::watch::Sender<u64>,
) -> Result<Arrived, ReceiveError> {
    let mut files =
        Files { dir: dir.path().to_owned(), open: None, seen: SnapshotEnd { files: 0, bytes: 0, crc: 0 } };
    loop {
        match arriving.blocking_recv() {
            None => return Err(ReceiveError::Cut),
            Some(SnapshotPart::Begin(_)) => return Err(ReceiveError::Damaged("it begins twice")),
            Some(SnapshotPart::File(part)) => {
                files.take(&part)?;
                written.send_replace(files.seen.bytes + files.open.as_ref().map_or(0, |open| open.length));
            }
            Some(SnapshotPart::End(end)) => {
                files.check(end)?;
                sync_dirs(&files.dir)?;
                return Ok(Arrived { dir: Arc::new(dir) });
            }
        }
    }
}

struct Open {
    name: String,
    file: fs::File,
    length: u64,
    crc: u32,
}

struct Files {
    dir: PathBuf,
    open: Option<Open>,
    seen: SnapshotEnd,
}

impl Files {
    fn take(&mut self, part: &FilePart) -> Result<(), ReceiveError> {
        if part.data.len() > RPC_BULK_PART_BYTES || crc32c::crc32c(&part.data) != part.crc {
            return Err(ReceiveError::Damaged("a part does not match its checksum"));
        }
        let mut open = match self.open.take() {
            Some(open) if open.name == part.name && open.length == part.offset => open,
            None if part.offset == 0 => self.begin(&part.name)?,
            Some(_) | None => return Err(ReceiveError::Damaged("its parts are out of order")),
        };
        open.file.write_all(&part.data)?;
        open.length += part.data.len() as u64;
        open.crc = crc32c::crc32c_append(open.crc, &part.data);
        if part.last {
            open.file.sync_all()?;
            self.seen.files += 1;
            self.seen.bytes += open.length;
            self.seen.crc = add_file(self.seen.crc, &open.name, open.length, open.crc);
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    fn begin(&self, name: &str) -> Result<Open, ReceiveError> {
        let path = safe_name(name).ok_or(ReceiveError::Damaged("a file has a name that is not taken"))?;
        if self.seen.files >= RAFT_SNAPSHOT_FILES_MAX {
            return Err(ReceiveError::Damaged("it has too many files"));
        }
        let path = self.dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Open { name: name.to_owned(), file, length: 0, crc: 0 })
    }

    fn check(&self, end: SnapshotEnd) -> Result<(), ReceiveError> {
        if self.open.is_some() {
            return Err(ReceiveError::Damaged("its last file is not whole"));
        }
        if self.seen != end {
            return Err(ReceiveError::Damaged("files are missing, or not those that were sent"));
        }
        Ok(())
    }
}

fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    fs::File::open(dir)?.sync_all()
}
