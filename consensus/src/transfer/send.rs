//! The sender's end: the files of a published snapshot, read part by part.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use hay_common::limits::{RAFT_SNAPSHOT_STALL, RPC_BULK_PART_BYTES, RPC_STREAM_DEPTH};
use tokio::sync::mpsc;

use crate::snapshot::SnapshotDir;
use crate::transport::{
    Acks, Envelope, FilePart, Parts, SnapshotAck, SnapshotEnd, SnapshotPart, TransportError,
};

use super::add_file;

type Outgoing = mpsc::Sender<io::Result<SnapshotPart>>;

/// The parts of `snapshot`, read as they are taken: at most a few are in memory. `snapshot` is held as long as that goes on.
pub(crate) fn read_parts(begin: Envelope, snapshot: SnapshotDir) -> Parts {
    let (parts, queue) = mpsc::channel(RPC_STREAM_DEPTH);
    tokio::task::spawn_blocking(move || {
        let sent = send_all(&parts, begin, &snapshot.state_dir());
        if let Err(error) = sent {
            tracing::warn!(%error, "a snapshot could not be read for sending");
            // A receiver that is gone needs no error.
            let _ = parts.blocking_send(Err(error));
        }
    });
    futures::stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|part| (part, queue)) })
        .boxed()
}

fn send_all(parts: &Outgoing, begin: Envelope, dir: &Path) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let send = |part| parts.blocking_send(Ok(part)).map_err(|_| gone());
    send(SnapshotPart::Begin(begin))?;
    let mut end = SnapshotEnd { files: 0, bytes: 0, crc: 0 };
    for (name, path) in files(dir, "")? {
        let mut file = fs::File::open(&path)?;
        let (mut offset, mut crc) = (0u64, 0u32);
        let mut next = read_part(&mut file)?;
        loop {
            let data = std::mem::replace(&mut next, Bytes::new());
            // The next one tells whether this is the last.
            if !data.is_empty() {
                next = read_part(&mut file)?;
            }
            crc = crc32c::crc32c_append(crc, &data);
            let (last, length) = (next.is_empty(), data.len() as u64);
            let part_crc = crc32c::crc32c(&data);
            send(SnapshotPart::File(FilePart { name: name.clone(), offset, data, crc: part_crc, last }))?;
            offset += length;
            if last {
                break;
            }
        }
        end.files += 1;
        end.bytes += offset;
        end.crc = add_file(end.crc, &name, offset, crc);
    }
    send(SnapshotPart::End(end))
}

fn read_part(file: &mut fs::File) -> io::Result<Bytes> {
    let mut data = Vec::with_capacity(RPC_BULK_PART_BYTES);
    file.by_ref().take(RPC_BULK_PART_BYTES as u64).read_to_end(&mut data)?;
    Ok(data.into())
}

/// All files below `dir`, in the order of names.
fn files(dir: &Path, below: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name =
            entry.file_name().into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path(), &name)?);
        } else {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Waits for the answer at the end of a receiver's acknowledgements, as long as some come.
pub(crate) async fn await_done(mut acks: Acks, alive: impl Fn(u64)) -> Result<Bytes, TransportError> {
    loop {
        match tokio::time::timeout(RAFT_SNAPSHOT_STALL, acks.next()).await {
            Err(_) => return Err(TransportError::TimedOut),
            Ok(None) => return Err(TransportError::Unreachable("the transfer was cut".to_owned())),
            Ok(Some(Err(error))) => return Err(error),
            Ok(Some(Ok(SnapshotAck::Progress(bytes)))) => alive(bytes),
            Ok(Some(Ok(SnapshotAck::Done(answer)))) => return Ok(answer),
        }
    }
}
