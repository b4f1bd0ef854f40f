//! The floor of durable writes: writers whose bytes are gathered while a sync is in flight, written at once into
//! prewritten space, and synced together, on the very file primitives that the server uses.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hay_common::clock::Clock;
use hay_common::disk::{DiskFile, OpenMode, RealDisk};
use hay_common::random::Random;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Bytes of the prewritten file: room for many groups, little enough to write in a second or two.
const FILE_BYTES_MIN: u64 = 64 << 20;
const FILE_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a group, unless a single write is larger.
const GROUP_BYTES_MAX: u64 = 64 << 20;
/// Parts of one `pwritev`.
const GROUP_WRITES_MAX: usize = 512;

/// What a slice of the floor brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSlice {
    /// Writes that were synced.
    pub ops: u64,
    /// Syncs.
    pub syncs: u64,
    /// From start to end, in nanoseconds.
    pub elapsed_ns: u64,
}

/// A prewritten file that nobody else sees.
pub struct SyncFloor {
    file: Arc<dyn DiskFile>,
    file_bytes: u64,
    data: Bytes,
    writers: usize,
}

struct Write {
    data: Bytes,
    done: oneshot::Sender<io::Result<()>>,
}

impl SyncFloor {
    /// Writes and syncs the file that the slices overwrite. Blocks.
    pub fn prepare(directory: &Path, data: Bytes, writers: usize, random: &dyn Random) -> io::Result<Self> {
        let disk = RealDisk::shared();
        let path = directory.join(format!(".hay-bench-{:016x}", random.u64()));
        let file = disk.open(&path, OpenMode::CreateNew)?;
        // Without a name it is gone with the process, however that ends.
        disk.remove_file(&path)?;
        let wanted = (data.len() as u64).saturating_mul(writers as u64).saturating_mul(4);
        let file_bytes = wanted.clamp(FILE_BYTES_MIN, FILE_BYTES_MAX).max(data.len() as u64);
        file.zero_ahead(0, file_bytes)?;
        Ok(Self { file, file_bytes, data, writers })
    }

    /// Runs for `time`. Blocks.
    pub fn run(&self, time: Duration, clock: &dyn Clock) -> io::Result<SyncSlice> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (tx, rx) = mpsc::channel(self.writers.max(1));
        let started = clock.monotonic();
        std::thread::scope(|scope| {
            let committer = scope.spawn(move || self.commit(rx));
            let ops = runtime.block_on(async {
                let mut running: FuturesUnordered<_> =
                    (0..self.writers).map(|_| self.write(tx.clone(), started + time, clock)).collect();
                drop(tx);
                let mut ops = 0;
                while let Some(done) = running.next().await {
                    ops += done?;
                }
                io::Result::Ok(ops)
            })?;
            let syncs = committer.join().map_err(|_| io::Error::other("the committer died"))?;
            let elapsed_ns = u64::try_from((clock.monotonic() - started).as_nanos()).unwrap_or(u64::MAX);
            Ok(SyncSlice { ops, syncs, elapsed_ns })
        })
    }

    async fn write(&self, to: mpsc::Sender<Write>, until: Duration, clock: &dyn Clock) -> io::Result<u64> {
        let gone = || io::Error::other("the committer is gone");
        let mut ops = 0;
        while clock.monotonic() < until {
            let (done, answer) = oneshot::channel();
            to.send(Write { data: self.data.clone(), done }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())??;
            ops += 1;
        }
        Ok(ops)
    }

    fn commit(&self, mut writes: mpsc::Receiver<Write>) -> u64 {
        let (mut position, mut syncs) = (0, 0);
        while let Some(first) = writes.blocking_recv() {
            let mut bytes = first.data.len() as u64;
            let mut group = vec![first];
            while group.len() < GROUP_WRITES_MAX && bytes + self.data.len() as u64 <= GROUP_BYTES_MAX {
                let Ok(next) = writes.try_recv() else { break };
                bytes += next.data.len() as u64;
                group.push(next);
            }
            if position + bytes > self.file_bytes {
                position = 0;
            }
            let parts: Vec<IoSlice<'_>> = group.iter().map(|write| IoSlice::new(&write.data)).collect();
            let written = self.file.write_all_at(&parts, position).and_then(|()| self.file.sync_data());
            position += bytes;
            syncs += 1;
            for write in group {
                let copy = match &written {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                // A writer that went away needs no answer.
                let _ = write.done.send(copy);
            }
        }
        syncs
    }
}
