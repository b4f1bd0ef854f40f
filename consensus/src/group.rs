//! One Raft group as its owner uses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hay_common::disk::{DirLock, SharedDisk};
use hay_common::ids::MemberId;
use hay_common::limits::{COMMAND_BYTES_MAX, LOG_ASYNC_SYNC_EVERY, PROPOSALS_WAITING_MAX, READS_WAITING_MAX};
use hay_common::model::Durability;
use openraft::network::RaftNetworkFactory;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::apply::Applier;
use crate::barrier::{WaitingRead, confirm_reads};
use crate::config::GroupConfig;
use crate::error::{ProposeError, ReadError, ShutdownError, StartError};
use crate::leadership::watch_leadership;
use crate::log::{LogHandle, LogStore, Request};
use crate::machine::{Position, StateMachine};
use crate::network::Alone;
use crate::open::{Opened, open};
use crate::proposer::{ProposalCounters, Proposer, Waiting};
use crate::status::{GroupCounters, GroupMember, GroupStatus};
use crate::types::{LogId, Raft, Types};

/// One Raft group. Cheap to clone; ends by [`Group::shutdown`].
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    member: MemberId,
    raft: Raft,
    log: LogHandle,
    applier: Applier,
    counters: Arc<ProposalCounters>,
    ready: watch::Receiver<Option<u64>>,
    /// `None` once the group shuts down.
    proposals: Mutex<Option<mpsc::Sender<Waiting>>>,
    reads: Mutex<Option<mpsc::Sender<WaitingRead>>>,
    proposer: Mutex<Option<JoinHandle<()>>>,
    helpers: Vec<JoinHandle<()>>,
    lock: Mutex<Option<Box<dyn DirLock>>>,
}

impl Group {
    /// Opens the group in `config.dir`, or makes it with this member alone, and waits until this member leads and has
    /// caught up. Takes milliseconds and the time to replay what no snapshot holds.
    ///
    /// # Errors
    /// Another's or a damaged directory, one in use, a failing disk or state machine.
    pub async fn start(
        config: GroupConfig,
        machine: Box<dyn StateMachine>,
        disk: SharedDisk,
    ) -> Result<Group, StartError> {
        let group = Self::start_on(config, machine, disk, Alone).await?;
        group.lead_alone().await?;
        Ok(group)
    }

    /// The same over a given network, without waiting for a leader.
    pub(crate) async fn start_on<N: RaftNetworkFactory<Types>>(
        config: GroupConfig,
        machine: Box<dyn StateMachine>,
        disk: SharedDisk,
        network: N,
    ) -> Result<Group, StartError> {
        let raft_config = Arc::new(raft_config(&config)?);
        let name = config.name.clone();
        let opened = {
            let config = config.clone();
            let opened = tokio::task::spawn_blocking(move || open(&config, machine, disk)).await;
            opened.map_err(|e| raft_failed(&name, &e))??
        };
        let Opened { lock, log, applier, empty } = opened;
        let store = LogStore { log: log.clone() };
        let raft = Raft::new(config.member.0, raft_config, network, store, applier.clone()).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(error) => {
                stop_threads(log, applier).await;
                return Err(raft_failed(&name, &error));
            }
        };
        let group = Self::assemble(&config, raft, log, applier, lock);
        if empty {
            let node = openraft::BasicNode::new(&config.address);
            let made = group.inner.raft.initialize(BTreeMap::from([(config.member.0, node)])).await;
            if let Err(error) = made {
                group.end().await;
                return Err(raft_failed(&name, &error));
            }
        }
        Ok(group)
    }

    fn assemble(
        config: &GroupConfig,
        raft: Raft,
        log: LogHandle,
        applier: Applier,
        lock: Box<dyn DirLock>,
    ) -> Self {
        let name = config.name.clone();
        let counters = Arc::new(ProposalCounters::default());
        let (ready_tx, ready) = watch::channel(None);
        let (proposals, proposal_queue) = mpsc::channel(PROPOSALS_WAITING_MAX);
        let (reads, read_queue) = mpsc::channel(READS_WAITING_MAX);
        let proposer = Proposer {
            group: name.clone(),
            raft: raft.clone(),
            log: log.clone(),
            counters: counters.clone(),
            snapshot_every_bytes: config.snapshot_every_bytes,
        };
        let proposer = tokio::spawn(proposer.run(proposal_queue));
        let mut helpers = vec![
            tokio::spawn(confirm_reads(name.clone(), raft.clone(), read_queue)),
            tokio::spawn(watch_leadership(name.clone(), raft.clone(), ready_tx)),
        ];
        if config.durability == Durability::Async {
            helpers.push(tokio::spawn(sync_now_and_then(log.clone())));
        }
        let inner = Inner {
            name,
            member: config.member,
            raft,
            log,
            applier,
            counters,
            ready,
            proposals: Mutex::new(Some(proposals)),
            reads: Mutex::new(Some(reads)),
            proposer: Mutex::new(Some(proposer)),
            helpers,
            lock: Mutex::new(Some(lock)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The only voter need not wait for an election timeout.
    async fn lead_alone(&self) -> Result<(), StartError> {
        let inner = &self.inner;
        if let Err(error) = inner.raft.trigger().elect().await {
            self.end().await;
            return Err(raft_failed(&inner.name, &error));
        }
        let mut ready = inner.ready.clone();
        if ready.wait_for(Option::is_some).await.is_err() || self.stopped().is_some() {
            let why = self.stopped().unwrap_or_else(|| "it ended".to_owned());
            self.end().await;
            return Err(raft_failed(&inner.name, &why));
        }
        Ok(())
    }

    /// Has `command` applied, durably on a majority, and returns its reply. Commands that wait share a log entry and a
    /// sync. Once called, the command is proposed even if the caller no longer waits.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Stopped` leaves open whether the command is done.
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
        let (reply, answer) = oneshot::channel();
        queue.try_send(Waiting { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded(group()),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }

    /// After it, local state is linearizable: it holds everything that was acknowledged before the call. A group whose
    /// only voter is this member answers at once.
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

    /// How the group fares.
    pub fn status(&self) -> GroupStatus {
        let inner = &self.inner;
        let metrics = inner.raft.metrics();
        let now = metrics.borrow();
        let position = |id: LogId| Position { index: id.index, term: id.leader_id.term };
        let membership = &now.membership_config;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(id, node)| GroupMember {
            id: MemberId(*id),
            address: node.addr.clone(),
            voter: voters.contains(id),
        });
        let log = &inner.log.shared.counters;
        GroupStatus {
            member: inner.member,
            leading: inner.ready.borrow().is_some(),
            leader: now.current_leader.map(MemberId),
            term: now.current_term,
            applied: now.last_applied.map(position),
            last_log_index: now.last_log_index,
            snapshot: now.snapshot.map(position),
            members: members.collect(),
            stopped: now.running_state.as_ref().err().map(ToString::to_string),
            counters: GroupCounters {
                proposals: inner.counters.proposals.load(Ordering::Relaxed),
                commands: inner.counters.commands.load(Ordering::Relaxed),
                syncs: log.syncs.load(Ordering::Relaxed),
                log_bytes: log.bytes.load(Ordering::Relaxed),
            },
        }
    }

    /// Makes a snapshot now rather than when the next is due. Returns once it is asked for.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        let asked = self.inner.raft.trigger().snapshot().await;
        asked.map_err(|e| ProposeError::Stopped { group: self.inner.name.clone(), why: e.to_string() })
    }

    fn stopped(&self) -> Option<String> {
        self.inner.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
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

    async fn end(&self) {
        let inner = &self.inner;
        drop(inner.proposals.lock().take());
        let proposer = inner.proposer.lock().take();
        if let Some(proposer) = proposer
            && let Err(error) = proposer.await
        {
            tracing::error!(group = inner.name, %error, "the proposer failed");
        }
        drop(inner.reads.lock().take());
        if let Err(error) = inner.raft.shutdown().await {
            tracing::error!(group = inner.name, %error, "the consensus did not end cleanly");
        }
        inner.helpers.iter().for_each(JoinHandle::abort);
        stop_threads(inner.log.clone(), inner.applier.clone()).await;
        drop(inner.lock.lock().take());
    }
}

async fn stop_threads(log: LogHandle, applier: Applier) {
    let stopped = tokio::task::spawn_blocking(move || {
        applier.stop();
        log.stop();
    });
    if let Err(error) = stopped.await {
        tracing::error!(%error, "a thread of the group could not be stopped");
    }
}

async fn sync_now_and_then(log: LogHandle) {
    let mut ticks = tokio::time::interval(LOG_ASYNC_SYNC_EVERY);
    loop {
        ticks.tick().await;
        if log.send(Request::Sync).is_err() {
            return;
        }
    }
}

fn raft_failed(group: &str, what: &impl ToString) -> StartError {
    StartError::Raft { group: group.to_owned(), what: what.to_string() }
}

fn raft_config(config: &GroupConfig) -> Result<openraft::Config, StartError> {
    let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let raft = openraft::Config {
        cluster_name: config.name.clone(),
        heartbeat_interval: ms(config.heartbeat),
        election_timeout_min: ms(config.election_min),
        election_timeout_max: ms(config.election_max),
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: hay_common::limits::LOG_ENTRIES_KEPT.min(config.snapshot_every_entries),
        // A purge makes a small file durable: not for every entry.
        purge_batch_size: 256.min(config.snapshot_every_entries),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|e| StartError::Config(format!("group {}: {e}", config.name)))
}
