//! What masters tell this server to do with its disk, done one after the other beside the heartbeat: a slow disk must not
//! make the server look dead.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use hay_common::ids::{Epoch, VolumeId};
use hay_common::limits::{HEARTBEAT_COMMAND_AGAIN, HEARTBEAT_COMMANDS_WAITING_MAX};
use hay_common::model::SizeClass;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::replicate::{Confirmation, Fill, Member, Replication};
use crate::server::stopping;
use crate::store::StoreError;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Create {
        volume: VolumeId,
        epoch: Epoch,
        class: SizeClass,
        members: Vec<Member>,
    },
    Seal {
        volume: VolumeId,
        epoch: Epoch,
    },
    /// Only begun in its turn: it takes long, and has a place of its own.
    Fill(Fill),
    Confirm(Vec<Confirmation>),
}

/// More waits than a server may have before it.
#[derive(Debug)]
pub(crate) struct TooMany;

#[derive(Default)]
struct Waiting {
    orders: VecDeque<Order>,
    /// What the map says of volumes where it could not be done. Tried again until it can: no master says it twice.
    failed: HashMap<VolumeId, Confirmation>,
    /// Counts the streams: what one has said and is not done when it ends, the next says anew.
    stream: u64,
}

/// The orders of one server.
pub(crate) struct Orders {
    replication: Arc<Replication>,
    waiting: Mutex<Waiting>,
    came: Notify,
    /// Volumes to be named in the next report, done or not.
    done: Mutex<HashSet<VolumeId>>,
    ended: Notify,
}

impl Orders {
    pub fn new(replication: Arc<Replication>) -> Arc<Self> {
        Arc::new(Self {
            replication,
            waiting: Mutex::default(),
            came: Notify::new(),
            done: Mutex::default(),
            ended: Notify::new(),
        })
    }

    /// A stream begins: it says all anew that still holds.
    pub fn begin(&self) {
        let mut waiting = self.waiting.lock();
        let stream = waiting.stream + 1;
        *waiting = Waiting { stream, ..Waiting::default() };
    }

    /// To be done after what waits. What waits already is not done twice: masters say again what takes long.
    ///
    /// # Errors
    /// `TooMany`: it is not done.
    pub fn give(&self, order: Order) -> Result<(), TooMany> {
        let mut waiting = self.waiting.lock();
        if waiting.orders.contains(&order) {
            return Ok(());
        }
        if waiting.orders.len() >= HEARTBEAT_COMMANDS_WAITING_MAX {
            return Err(TooMany);
        }
        waiting.orders.push_back(order);
        drop(waiting);
        self.came.notify_one();
        Ok(())
    }

    /// Waits until something was done, and gives the volumes that the masters should hear of.
    pub async fn done(&self) -> HashSet<VolumeId> {
        self.ended.notified().await;
        std::mem::take(&mut *self.done.lock())
    }

    /// Does what comes, until `stopped` says so.
    pub async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            let next = tokio::select! {
                () = stopping(&mut stopped) => return,
                next = self.next() => next,
            };
            let (stream, order) = next;
            let (own, stop) = (self.clone(), stopped.clone());
            // Not broken off by the end of the server, which waits for what is being changed.
            let done = self.replication.store().blocking(move || own.carry_out(stream, order, stop));
            if done.await.is_err() {
                tracing::error!("a master's command met a fault in the program");
            }
            self.ended.notify_one();
        }
    }

    async fn next(&self) -> (u64, Order) {
        loop {
            let pause = {
                let mut waiting = self.waiting.lock();
                if let Some(order) = waiting.orders.pop_front() {
                    return (waiting.stream, order);
                }
                (!waiting.failed.is_empty()).then_some(HEARTBEAT_COMMAND_AGAIN)
            };
            match pause {
                None => self.came.notified().await,
                Some(pause) => {
                    if tokio::time::timeout(pause, self.came.notified()).await.is_err() {
                        let mut waiting = self.waiting.lock();
                        let failed = std::mem::take(&mut waiting.failed).into_values().collect();
                        return (waiting.stream, Order::Confirm(failed));
                    }
                }
            }
        }
    }

    /// Blocks.
    fn carry_out(&self, stream: u64, order: Order, stopped: watch::Receiver<bool>) {
        let (volume, what, done) = match order {
            Order::Create { volume, epoch, class, members } => {
                (volume, "create", self.replication.create(volume, epoch, class, &members))
            }
            Order::Seal { volume, epoch } => (volume, "seal", self.replication.store().seal(volume, epoch)),
            Order::Fill(fill) if !self.replication.is_fill_due(&fill) => return,
            Order::Fill(fill) => return self.replication.fill(fill, stopped),
            Order::Confirm(confirmations) => {
                return confirmations.into_iter().for_each(|said| self.confirm(stream, said));
            }
        };
        match done {
            Ok(()) => tracing::info!(%volume, what, "done as a master said"),
            // The report that follows shows that it was not done; the master says it again.
            Err(error) => log(volume, what, &error),
        }
        self.done.lock().insert(volume);
    }

    /// Takes in what the map says of a volume. One that was sealed while this server was away takes its epoch now, durably.
    fn confirm(&self, stream: u64, said: Confirmation) {
        let volume = said.volume;
        let taken = self.replication.confirm(&said);
        let mut waiting = self.waiting.lock();
        if waiting.stream != stream {
            return;
        }
        match taken {
            // What was said of it before is of no interest any more.
            Ok(()) => drop(waiting.failed.remove(&volume)),
            Err(error) => {
                waiting.failed.insert(volume, said);
                drop(waiting);
                log(volume, "confirm", &error);
            }
        }
    }
}

fn log(volume: VolumeId, what: &'static str, error: &StoreError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::error!(%volume, what, %error, cause, "a master's command failed");
}
