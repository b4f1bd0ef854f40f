//! What waits for a volume's appender. Bounded by number and bytes.

use std::collections::VecDeque;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use hay_common::ids::{Cookie, Epoch, NeedleKey, VolumeId};
use hay_common::limits::{
    APPEND_BATCH_BYTES_MAX, APPENDS_WAITING_BYTES_MAX, APPENDS_WAITING_MAX, NEEDLE_BYTES_MAX,
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::error::{AppendError, StoreError};

/// A needle to be stored.
#[derive(Debug, Clone)]
pub struct NewNeedle {
    pub(crate) epoch: Epoch,
    pub(crate) key: NeedleKey,
    pub(crate) cookie: Cookie,
    pub(crate) codec: u8,
    pub(crate) parts: Vec<Bytes>,
    pub(crate) length: u32,
    pub(crate) crc: Option<u32>,
}

impl NewNeedle {
    /// Of `parts`, one after the other; they are not copied. `crc`: the CRC32C of the data, where it is known already.
    ///
    /// # Errors
    /// `TooLarge`, `Codec`.
    pub fn new(
        epoch: Epoch,
        key: NeedleKey,
        cookie: Cookie,
        codec: u32,
        parts: Vec<Bytes>,
        crc: Option<u32>,
    ) -> Result<Self, AppendError> {
        let bytes = parts.iter().map(Bytes::len).sum::<usize>();
        if bytes > NEEDLE_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, max: NEEDLE_BYTES_MAX });
        }
        let codec = u8::try_from(codec).map_err(|_| AppendError::Codec(codec))?;
        Ok(Self { epoch, key, cookie, codec, parts, length: bytes as u32, crc })
    }
}

impl NewNeedle {
    /// The epoch that it carries.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bytes of its data.
    pub fn length(&self) -> usize {
        self.length as usize
    }
}

/// One answer for each needle of a submission, in order.
pub type Answers = Vec<Result<(), AppendError>>;

/// Needles that one caller waits for together.
#[derive(Debug)]
pub(crate) struct Submission {
    pub needles: Vec<NewNeedle>,
    pub reply: oneshot::Sender<Answers>,
}

impl Submission {
    fn bytes(&self) -> usize {
        self.needles.iter().map(|n| n.length as usize).sum()
    }
}

/// What the appender is asked to do beside appending.
#[derive(Debug)]
pub(crate) enum Control {
    /// Persist the epoch, take no further appends.
    Seal { epoch: Epoch, done: mpsc::SyncSender<Result<(), StoreError>> },
    /// Finish what waits, sync, write a checkpoint, end.
    Close { done: mpsc::SyncSender<Result<(), StoreError>> },
}

/// How long appends wait for others to share their sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gather {
    /// Until so many needles wait …
    pub needles: usize,
    /// … or so much time has passed.
    pub patience: Duration,
}

/// What the appender does next.
#[derive(Debug)]
pub(crate) enum Work {
    Append(Vec<Submission>),
    Control(Control),
    /// Nothing came in time.
    Idle,
    /// Closed, and nothing is left.
    Over,
}

#[derive(Debug, Default)]
struct Waiting {
    appends: VecDeque<Submission>,
    needles: usize,
    bytes: usize,
    control: VecDeque<Control>,
    closed: bool,
    /// The appender sleeps until so many needles wait: it is not woken for each.
    wanted: usize,
}

/// The queue of one volume.
#[derive(Debug)]
pub(crate) struct Queue {
    volume: VolumeId,
    waiting: Mutex<Waiting>,
    came: Condvar,
    /// Rung where the appender is no thread but a task: in a simulation.
    bell: OnceLock<Notify>,
}

impl Queue {
    pub fn new(volume: VolumeId) -> Self {
        Self { volume, waiting: Mutex::default(), came: Condvar::new(), bell: OnceLock::new() }
    }

    /// Puts needles into the queue.
    pub fn submit(&self, submission: Submission) -> Result<(), AppendError> {
        let bytes = submission.bytes();
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(AppendError::Closing);
        }
        let needles = waiting.needles + submission.needles.len();
        if needles > APPENDS_WAITING_MAX || waiting.bytes + bytes > APPENDS_WAITING_BYTES_MAX {
            return Err(AppendError::Overloaded(self.volume));
        }
        waiting.needles = needles;
        waiting.bytes += bytes;
        waiting.appends.push_back(submission);
        let is_enough = needles >= waiting.wanted;
        drop(waiting);
        if is_enough {
            self.wake();
        }
        Ok(())
    }

    /// Hands a command over. False when the appender is gone.
    pub fn control(&self, control: Control) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        waiting.control.push_back(control);
        drop(waiting);
        self.wake();
        true
    }

    fn wake(&self) {
        self.came.notify_one();
        if let Some(bell) = self.bell.get() {
            bell.notify_one();
        }
    }

    /// For an appender that is a task.
    pub fn bell(&self) -> &Notify {
        self.bell.get_or_init(Notify::new)
    }

    /// Needles that wait now.
    pub fn needles(&self) -> usize {
        self.waiting.lock().needles
    }

    /// Refuses all further submissions.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake();
    }

    /// The next command, or all appends that wait and fit into one batch. Waits for them, at most for `patience`.
    ///
    /// A command goes before the appends that wait: a seal answers them "sealed", and none of them is acknowledged
    /// yet; a close finishes them itself.
    ///
    /// With `gather`, appends that wait are let wait for others, until so many needles are there.
    pub fn take(&self, patience: Option<Duration>, gather: Option<Gather>) -> Work {
        let mut waiting = self.waiting.lock();
        waiting.wanted = 0;
        while waiting.appends.is_empty() && waiting.control.is_empty() && !waiting.closed {
            match patience {
                None => self.came.wait(&mut waiting),
                Some(patience) => {
                    if self.came.wait_for(&mut waiting, patience).timed_out() {
                        return Work::Idle;
                    }
                }
            }
        }
        if let Some(control) = waiting.control.pop_front() {
            return Work::Control(control);
        }
        if waiting.appends.is_empty() {
            return Work::Over;
        }
        if let Some(gather) = gather {
            waiting.wanted = gather.needles;
            let is_short = |w: &mut Waiting| w.needles < w.wanted && w.control.is_empty() && !w.closed;
            // Whether they came or not, what is there goes now.
            let _ = self.came.wait_while_for(&mut waiting, is_short, gather.patience);
            waiting.wanted = 0;
        }
        let mut batch = Vec::with_capacity(waiting.appends.len());
        let (mut bytes, mut needles) = (0, 0);
        while let Some(next) = waiting.appends.front() {
            let more = next.bytes();
            if !batch.is_empty() && bytes + more > APPEND_BATCH_BYTES_MAX {
                break;
            }
            bytes += more;
            needles += next.needles.len();
            batch.extend(waiting.appends.pop_front());
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        waiting.needles = waiting.needles.saturating_sub(needles);
        Work::Append(batch)
    }
}
