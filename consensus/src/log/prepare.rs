//! Makes the next segment ready while the current one fills, so that no append waits for zeros.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use hay_common::disk::{DiskFile, OpenMode, SharedDisk};
use hay_common::ids::ClusterId;
use hay_common::work::Orders;

use super::segment::{self, FIRST_RECORD, Segment};

/// What a segment is made of.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) generation: u64,
    /// Bytes to be written ahead.
    pub(crate) bytes: u64,
    /// An emptied segment that may be used.
    pub(crate) spare: Option<PathBuf>,
}

/// Writes a segment ahead under its final name, durably: it appears whole or not at all.
pub(crate) fn prepare(
    disk: &SharedDisk,
    dir: &Path,
    cluster: ClusterId,
    order: &Order,
) -> io::Result<Segment> {
    let path = dir.join(segment::live_name(order.generation));
    // A spare may be missing where an earlier try of this order failed after it was renamed.
    let spare = match &order.spare {
        Some(spare) if disk.file_len(spare)?.is_some() => Some(spare.clone()),
        Some(_) | None => None,
    };
    match spare {
        Some(spare) => {
            let file = disk.open(&spare, OpenMode::ReadWrite)?;
            fill(disk, dir, cluster, order, (&spare, file))
        }
        None => {
            let new = path.with_extension("new");
            if disk.file_len(&new)?.is_some() {
                disk.remove_file(&new)?;
            }
            let file = disk.open(&new, OpenMode::CreateNew)?;
            fill(disk, dir, cluster, order, (&new, file)).inspect_err(|_| {
                // Half of the zeros on a full disk: of use to nobody. It may be renamed already; then it is whole.
                let _ = disk.remove_file(&new);
            })
        }
    }
}

fn fill(
    disk: &SharedDisk,
    dir: &Path,
    cluster: ClusterId,
    order: &Order,
    (from, file): (&Path, Arc<dyn DiskFile>),
) -> io::Result<Segment> {
    let path = dir.join(segment::live_name(order.generation));
    segment::write_header(file.as_ref(), cluster, order.generation)?;
    let written = file.len()?.max(FIRST_RECORD);
    let capacity = order.bytes.max(written);
    // Syncs the header too.
    file.zero_ahead(written, capacity)?;
    disk.rename(from, &path)?;
    disk.sync_dir(dir)?;
    Ok(Segment { generation: order.generation, file, path, capacity })
}

enum Task {
    Prepare(Order),
    Remove(PathBuf),
    Stop,
}

/// The thread that prepares segments and removes surplus ones.
pub(crate) struct Preparer {
    tasks: Orders<Task>,
    ready: mpsc::Receiver<io::Result<Segment>>,
}

impl Preparer {
    pub(crate) fn start(name: &str, disk: SharedDisk, dir: PathBuf, cluster: ClusterId) -> io::Result<Self> {
        let (done, ready) = mpsc::channel();
        let own = disk.clone();
        let carry = move |task| {
            match task {
                Task::Prepare(order) => {
                    if done.send(prepare(&own, &dir, cluster, &order)).is_err() {
                        return ControlFlow::Break(());
                    }
                }
                Task::Remove(path) => {
                    if let Err(error) = own.remove_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "a surplus log segment could not be removed");
                    }
                }
                Task::Stop => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        };
        let tasks = Orders::to(&disk, format!("{name}-log-prep"), || Task::Stop, carry)?;
        Ok(Self { tasks, ready })
    }

    /// Orders the next segment. One order at a time.
    pub(crate) fn order(&self, order: Order) {
        self.send(Task::Prepare(order));
    }

    pub(crate) fn remove(&self, path: PathBuf) {
        self.send(Task::Remove(path));
    }

    fn send(&self, task: Task) {
        // A thread that died shows where the segment is waited for.
        let _ = self.tasks.give(task);
    }

    /// Waits for the segment that was ordered.
    pub(crate) fn take(&self) -> io::Result<Segment> {
        self.tasks.catch_up();
        self.ready.recv().map_err(|_| io::Error::other("the thread that prepares log segments has died"))?
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        if self.tasks.end(Task::Stop).is_err() {
            tracing::error!("the thread that prepares log segments panicked");
        }
    }
}
