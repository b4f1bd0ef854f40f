//! One Raft group as its owner uses it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::disk::DirLock;
use hay_common::ids::MemberId;
use hay_common::limits::{COMMAND_BYTES_MAX, LOG_ASYNC_SYNC_EVERY};
use hay_common::work;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::apply::Applier;
use crate::barrier::WaitingRead;
use crate::error::{Leader, MembersError, ProposeError, ReadError, Refusal, ShutdownError};
use crate::log::{LogHandle, Request};
use crate::members::Members;
use crate::network::Contacts;
use crate::proposer::{ProposalCounters, Waiting};
use crate::receive::Receiver;
use crate::transport::{Acks, ArrivingParts, CallKind, Envelope};
use crate::types::Raft;

/// Commands that wait at the end have so long to be done.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

/// One Raft group. Cheap to clone; ends by [`Group::shutdown`].
#[derive(Clone)]
pub struct Group {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) member: MemberId,
    pub(crate) raft: Raft,
    pub(crate) log: LogHandle,
    pub(crate) applier: Applier,
    pub(crate) counters: Arc<ProposalCounters>,
    pub(crate) ready: watch::Receiver<Option<u64>>,
    /// What it waits for before it belongs to a group.
    pub(crate) news: watch::Receiver<Option<String>>,
    pub(crate) members: Members,
    pub(crate) contacts: Contacts,
    pub(crate) receiver: Arc<Receiver>,
    /// `None` once the group shuts down.
    pub(crate) proposals: Mutex<Option<mpsc::Sender<Waiting>>>,
    pub(crate) reads: Mutex<Option<mpsc::Sender<WaitingRead>>>,
    pub(crate) proposer: Mutex<Option<JoinHandle<()>>>,
    pub(crate) helpers: Vec<JoinHandle<()>>,
    pub(crate) lock: Mutex<Option<Box<dyn DirLock>>>,
}

impl Group {
    /// Has `command` applied, durably on a majority, and returns its reply. Commands that wait share a log entry and a
    /// sync. Once called, the command is proposed even if the caller no longer waits.
    ///
    /// # Errors
    /// See [`ProposeError`]: `Unknown` and `Stopped` leave open whether the command is done.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        let group = || self.inner.name.clone();
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len(), max: COMMAND_BYTES_MAX });
        }
        let stopped = || {
            let why = self.stopped().unwrap_or_else(|| "it was shut down".to_owned());
            ProposeError::Stopped { group: group(), why }
        };
        let Some(queue) = self.inner.proposals.lock().clone() else { return Err(stopped()) };
        if self.inner.log.shared.room.is_full() {
            return Err(ProposeError::Full(group()));
        }
        if !self.inner.raft.server_metrics().borrow().state.is_leader() && self.stopped().is_none() {
            // It need not wait for what a former leadership still has in flight.
            return Err(ProposeError::NotLeader { group: group(), leader: self.leader() });
        }
        let (reply, answer) = oneshot::channel();
        queue.try_send(Waiting { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded(group()),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }

    /// After it, local state is linearizable: it holds everything that was acknowledged before the call. A majority has
    /// said after the call that this member leads; a group whose only voter is this member answers at once.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let group = || self.inner.name.clone();
        let stopped = || {
            let why = self.stopped().unwrap_or_else(|| "it was shut down".to_owned());
            ReadError::Stopped { group: group(), why }
        };
        if self.leads_alone() {
            // Nobody else can have committed anything, and replies leave only after the state has changed.
            return Ok(());
        }
        let Some(queue) = self.inner.reads.lock().clone() else { return Err(stopped()) };
        let (reply, answer) = oneshot::channel();
        queue.try_send(reply).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Overloaded(group()),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }

    fn leads_alone(&self) -> bool {
        let ready = *self.inner.ready.borrow();
        let metrics = self.inner.raft.server_metrics();
        let now = metrics.borrow();
        let mut voters = now.membership_config.voter_ids();
        ready.is_some()
            && now.state.is_leader()
            && voters.next() == Some(self.inner.member.0)
            && voters.next().is_none()
            && self.inner.proposals.lock().is_some()
    }

    /// The term in which this member leads and has caught up; `None` while it does not. For owners whose duties begin
    /// and end with the leadership.
    pub fn leading(&self) -> watch::Receiver<Option<u64>> {
        self.inner.ready.clone()
    }

    /// Who leads, where known.
    pub fn leader(&self) -> Option<Leader> {
        let metrics = self.inner.raft.server_metrics();
        let now = metrics.borrow();
        let node = now.current_leader.and_then(|id| now.membership_config.membership().get_node(&id));
        Leader::of(now.current_leader, node)
    }

    /// Where the leader is reached, where known.
    pub fn leader_address(&self) -> Option<String> {
        self.leader().map(|leader| leader.address).filter(|address| !address.is_empty())
    }

    /// This member's id.
    pub fn member(&self) -> MemberId {
        self.inner.member
    }

    /// The name of the group.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Has `member` at `address` follow without a vote. New members ask for it themselves; a learner that was at the same
    /// address before makes place.
    ///
    /// # Errors
    /// See [`MembersError`].
    pub async fn add_learner(&self, member: MemberId, address: &str) -> Result<(), MembersError> {
        self.inner.members.add_learner(member, address).await
    }

    /// Whether [`Group::promote`] would be tried.
    ///
    /// # Errors
    /// See [`MembersError`].
    pub fn may_promote(&self, member: MemberId) -> Result<(), MembersError> {
        self.inner.members.may_promote(member)
    }

    /// Whether [`Group::remove_member`] would be tried.
    ///
    /// # Errors
    /// See [`MembersError`].
    pub fn may_remove(&self, member: MemberId) -> Result<(), MembersError> {
        self.inner.members.may_remove(member).map(drop)
    }

    /// Makes a learner that has caught up a voter.
    ///
    /// # Errors
    /// See [`MembersError`].
    pub async fn promote(&self, member: MemberId) -> Result<(), MembersError> {
        self.inner.members.promote(member).await
    }

    /// Removes a member. It must not come back under its id; with an empty directory it may join anew.
    ///
    /// # Errors
    /// See [`MembersError`]; a removal that would leave no majority that answers is refused.
    pub async fn remove_member(&self, member: MemberId) -> Result<(), MembersError> {
        self.inner.members.remove(member).await
    }

    /// Takes a message of another member in, and gives the answer.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn receive(&self, kind: CallKind, envelope: Envelope) -> Result<Bytes, Refusal> {
        self.inner.receiver.call(kind, envelope).await
    }

    /// Takes a snapshot of another member in, part by part.
    ///
    /// # Errors
    /// See [`Refusal`]; what goes wrong later is in the stream.
    pub async fn receive_snapshot(&self, parts: ArrivingParts) -> Result<Acks, Refusal> {
        self.inner.receiver.clone().snapshot(parts).await
    }

    /// Makes a snapshot now rather than when the next is due. Returns once it is asked for.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        let asked = self.inner.raft.trigger().snapshot().await;
        asked.map_err(|e| ProposeError::Stopped { group: self.inner.name.clone(), why: e.to_string() })
    }

    pub(crate) fn stopped(&self) -> Option<String> {
        self.inner.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Comes back once the group has stopped, for whatever reason: it does nothing any more until the next start.
    pub async fn gone(&self) {
        let mut metrics = self.inner.raft.metrics();
        // One that panicked says nothing any more, and that shows too.
        let _ = metrics.wait_for(|now| now.running_state.is_err()).await;
    }

    /// Finishes the commands that wait, then ends: threads, files, directory lock. The state machine is dropped.
    ///
    /// # Errors
    /// When something of the group had failed before.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let failed = self.stopped();
        self.end().await;
        match failed {
            None => Ok(()),
            Some(what) => Err(ShutdownError { group: self.inner.name.clone(), what }),
        }
    }

    pub(crate) async fn end(&self) {
        let inner = &self.inner;
        inner.log.shared.room.close();
        drop(inner.proposals.lock().take());
        let proposer = inner.proposer.lock().take();
        if let Some(mut proposer) = proposer {
            match tokio::time::timeout(SHUTDOWN_WAIT, &mut proposer).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(group = inner.name, %error, "the proposer failed"),
                // No majority: the callers learn that the group has stopped, and that it may be done all the same.
                Err(_) => proposer.abort(),
            }
        }
        drop(inner.reads.lock().take());
        if let Err(error) = inner.raft.shutdown().await {
            tracing::error!(group = inner.name, %error, "the consensus did not end cleanly");
        }
        inner.helpers.iter().for_each(JoinHandle::abort);
        stop_owners(inner.log.clone(), inner.applier.clone()).await;
        drop(inner.lock.lock().take());
    }
}

#[cfg(test)]
impl Group {
    /// Ends as a process that is killed does, but for what the test's own process must have back.
    pub(crate) async fn crash(&self) {
        if let Some(proposer) = self.inner.proposer.lock().take() {
            proposer.abort();
        }
        self.inner.helpers.iter().for_each(JoinHandle::abort);
        self.end().await;
    }
}

pub(crate) async fn stop_owners(log: LogHandle, applier: Applier) {
    let disk = log.disk.clone();
    let stopped = work::blocking(disk.as_ref(), move || {
        applier.stop();
        log.stop();
    });
    if let Err(error) = stopped.await {
        tracing::error!(%error, "a thread of the group could not be stopped");
    }
}

pub(crate) async fn sync_now_and_then(log: LogHandle) {
    let mut ticks = tokio::time::interval(LOG_ASYNC_SYNC_EVERY);
    loop {
        ticks.tick().await;
        if log.send(Request::Sync).is_err() {
            return;
        }
    }
}
