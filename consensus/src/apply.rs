//! The owner of the state machine, and the state machine as openraft sees it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hay_common::disk::is_full;
use hay_common::limits::{LOG_ROOM_CHECK, SNAPSHOT_ROOM_CHECK};
use hay_common::work::{self, Orders};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::machine::{StateError, StateMachine};
use crate::room::Room;
use crate::snapshot::{PublishError, Published, SnapshotDir, Snapshots};
use crate::types::{Entry, LogId, Membership, Replies, SnapshotMeta, StorageError, Types};

/// How far the state machine is: what it keeps for us as `applied`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: Membership,
}

/// The first byte of an encoded [`Applied`].
const APPLIED_FORMAT: u8 = 1;

impl Applied {
    fn encode(&self) -> Result<Bytes, StateError> {
        let encoded = postcard::to_extend(self, vec![APPLIED_FORMAT]);
        encoded.map(Bytes::from).map_err(|e| StateError::Engine(Box::new(e)))
    }

    pub(crate) fn read(machine: &dyn StateMachine) -> Result<Self, StateError> {
        let Some(bytes) = machine.applied()? else { return Ok(Self::default()) };
        let what = "the applied position in the state";
        match bytes.split_first() {
            Some((&APPLIED_FORMAT, body)) => {
                postcard::from_bytes(body).map_err(|_| StateError::Corrupt(format!("{what} can't be read")))
            }
            Some((format, _)) => Err(StateError::NewerVersion {
                what: what.to_owned(),
                found: (*format).into(),
                known: APPLIED_FORMAT.into(),
            }),
            None => Err(StateError::Corrupt(format!("{what} is empty"))),
        }
    }
}

/// How far the state is, for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    At(Option<LogId>),
    /// It comes no further.
    Failed,
}

enum Work {
    Apply(Vec<Entry>, oneshot::Sender<Result<Vec<Replies>, StateError>>),
    Build(oneshot::Sender<Result<Arc<Published>, PublishError<StateError>>>),
    Install(SnapshotMeta, SnapshotDir, oneshot::Sender<Result<(), InstallError>>),
    Stop,
}

#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("the snapshot could not be kept")]
    Keep(#[from] PublishError<io::Error>),
    #[error("the state machine could not take the snapshot")]
    State(#[from] StateError),
}

impl InstallError {
    fn is_full(&self) -> bool {
        match self {
            Self::Keep(error) => error.is_full(is_full),
            Self::State(error) => error.is_full(),
        }
    }
}

/// The way to the owner, the snapshots and how far the state is. openraft asks one thing at a time.
#[derive(Clone)]
pub(crate) struct Applier {
    orders: Orders<Work>,
    applied: Arc<Mutex<Applied>>,
    reached: Arc<watch::Sender<Reached>>,
    snapshots: Arc<Snapshots>,
    room: Arc<Room>,
}

impl Applier {
    /// Starts the owner.
    pub(crate) fn start(
        name: &str,
        machine: Box<dyn StateMachine>,
        applied: Applied,
        snapshots: Arc<Snapshots>,
        room: Arc<Room>,
    ) -> io::Result<Self> {
        let reached = Arc::new(watch::Sender::new(Reached::At(applied.last)));
        let applied = Arc::new(Mutex::new(applied));
        let (shared, told) = (applied.clone(), reached.clone());
        let mut owner = Owner { machine, applied: shared, reached: told, snapshots: snapshots.clone() };
        let carry = move |work| owner.carry_out(work);
        let orders = Orders::to(snapshots.disk(), format!("{name}-apply"), || Work::Stop, carry)?;
        Ok(Self { orders, applied, reached, snapshots, room })
    }

    /// Ends the owner after what it was asked before, and drops the state machine. Blocks.
    pub(crate) fn stop(&self) {
        if self.orders.end(Work::Stop).is_err() {
            tracing::error!("the thread of a state machine panicked");
        }
    }

    /// How far the state is.
    pub(crate) fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.subscribe()
    }

    /// Tells those who wait for more of the state that there will be none.
    fn or_fail<T>(&self, result: Result<T, AnyError>) -> Result<T, AnyError> {
        if result.is_err() {
            self.reached.send_replace(Reached::Failed);
        }
        result
    }

    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, AnyError> {
        let gone = || AnyError::error("the thread of the state machine has stopped");
        let (reply, answer) = oneshot::channel();
        self.orders.give(work(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// Brings a machine up to the newest snapshot where that is ahead of it: a new machine, or one that lost its state.
pub(crate) fn catch_up(machine: &mut dyn StateMachine, snapshots: &Snapshots) -> Result<Applied, StateError> {
    let applied = Applied::read(machine)?;
    match snapshots.current() {
        Some(snapshot) if snapshot.meta.last_log_id > applied.last => {
            let applied = of_snapshot(&snapshot.meta);
            machine.install(&snapshot.state_dir(), applied.encode()?)?;
            Ok(applied)
        }
        _ => Ok(applied),
    }
}

fn of_snapshot(meta: &SnapshotMeta) -> Applied {
    Applied { last: meta.last_log_id, membership: meta.last_membership.clone() }
}

struct Owner {
    machine: Box<dyn StateMachine>,
    applied: Arc<Mutex<Applied>>,
    reached: Arc<watch::Sender<Reached>>,
    snapshots: Arc<Snapshots>,
}

impl Owner {
    fn carry_out(&mut self, work: Work) -> ControlFlow<()> {
        // An asker that is gone does not undo the work.
        match work {
            Work::Apply(entries, reply) => drop(reply.send(self.apply(entries))),
            Work::Build(reply) => drop(reply.send(self.build())),
            Work::Install(meta, from, reply) => drop(reply.send(self.install(&meta, &from))),
            Work::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// The commands of all entries in one call, the replies sorted back to their entries.
    fn apply(&mut self, entries: Vec<Entry>) -> Result<Vec<Replies>, StateError> {
        let mut next = self.applied.lock().clone();
        let mut commands = Vec::new();
        let mut counts = Vec::with_capacity(entries.len());
        for entry in entries {
            next.last = Some(entry.log_id);
            let before = commands.len();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => commands.extend(batch.0),
                EntryPayload::Membership(membership) => {
                    next.membership = Membership::new(Some(entry.log_id), membership);
                }
            }
            counts.push(commands.len() - before);
        }
        let wanted = commands.len();
        let replies = self.machine.apply(commands, next.encode()?)?;
        if replies.len() != wanted {
            let what = format!("the state machine gave {} replies to {wanted} commands", replies.len());
            return Err(StateError::Corrupt(what));
        }
        self.has_applied(next);
        let mut replies = replies.into_iter();
        Ok(counts.into_iter().map(|count| Replies(replies.by_ref().take(count).collect())).collect())
    }

    fn has_applied(&self, applied: Applied) {
        let last = applied.last;
        *self.applied.lock() = applied;
        self.reached.send_replace(Reached::At(last));
    }

    fn build(&mut self) -> Result<Arc<Published>, PublishError<StateError>> {
        let applied = self.applied.lock().clone();
        let id = applied.last.map_or_else(|| "0".to_owned(), |id| format!("{}-{}", id.index, id.leader_id));
        let meta =
            SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership, snapshot_id: id };
        let built = self.snapshots.publish(&meta, |dir| self.machine.snapshot(dir));
        built.inspect_err(|_| self.snapshots.discard())
    }

    /// Keeps the copy first: a crash before the machine took it installs it again at the next start. The log below it is
    /// purged only afterwards: [`LogStore`](crate::log::LogStore) waits for it.
    fn install(&mut self, meta: &SnapshotMeta, from: &SnapshotDir) -> Result<(), InstallError> {
        // The state machine may have met a full disk once it was kept.
        let kept = match self.snapshots.current() {
            Some(current) if current.meta == *meta => current,
            Some(_) | None => self.snapshots.adopt(meta, from)?,
        };
        let applied = of_snapshot(meta);
        self.machine.install(&kept.state_dir(), applied.encode()?)?;
        self.has_applied(applied);
        Ok(())
    }
}

/// The words of an error and of what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> AnyError {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    tracing::error!(error = %words, "the state machine failed; this member stops");
    AnyError::error(words)
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = self.applied.lock().clone();
        Ok((applied.last, applied.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let result = self.ask(|reply| Work::Apply(entries, reply)).await;
        let result = self.or_fail(result.and_then(|applied| applied.map_err(|e| chain(&e))));
        result.map_err(|e| StorageIOError::write_state_machine(e).into())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotDir>, StorageError> {
        let snapshots = self.snapshots.clone();
        let on = snapshots.disk().clone();
        let made = work::blocking(on.as_ref(), move || snapshots.incoming()).await;
        let made = made.map_err(|e| AnyError::new(&e)).and_then(|made| made.map_err(|e| AnyError::new(&e)));
        made.map(|dir| Box::new(SnapshotDir::Incoming(Arc::new(dir))))
            .map_err(|e| StorageIOError::write_snapshot(None, e).into())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotDir>,
    ) -> Result<(), StorageError> {
        // The consensus waits too: see `LogStore::purge`. The leader does not count on this member meanwhile.
        let mut waiting = None;
        let result = loop {
            match self.ask(|reply| Work::Install(meta.clone(), (*snapshot).clone(), reply)).await {
                Ok(Err(error)) if error.is_full() && !self.room.is_closing() => {
                    waiting.get_or_insert_with(|| self.room.wait(self.snapshots.dir()));
                    tokio::time::sleep(LOG_ROOM_CHECK).await;
                }
                other => break other,
            }
        };
        drop(waiting);
        let result = self.or_fail(result.and_then(|installed| installed.map_err(|e| chain(&e))));
        result.map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), e).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        Ok(self.snapshots.current().map(as_snapshot))
    }
}

impl RaftSnapshotBuilder<Types> for Applier {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        // Asked again from here, not waited for on the thread: what is committed must be applied meanwhile, or a leader whose
        // log still has room would be one that answers nobody.
        let mut told = false;
        let result = loop {
            match self.ask(Work::Build).await {
                Ok(Err(error)) if error.is_full(StateError::is_full) && !self.room.is_closing() => {
                    if !std::mem::replace(&mut told, true) {
                        let dir = self.snapshots.dir().display();
                        tracing::error!(%dir, "the disk has no room for a snapshot: the log grows until there is");
                    }
                    tokio::time::sleep(SNAPSHOT_ROOM_CHECK).await;
                }
                other => break other,
            }
        };
        let result = result.and_then(|built| built.map_err(|e| chain(&e)));
        result.map(as_snapshot).map_err(|e| StorageIOError::write_snapshot(None, e).into())
    }
}

fn as_snapshot(published: Arc<Published>) -> Snapshot<Types> {
    Snapshot { meta: published.meta.clone(), snapshot: Box::new(SnapshotDir::Published(published)) }
}
