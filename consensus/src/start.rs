//! Starting a member of a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hay_common::clock::{SharedClock, SystemClock};
use hay_common::disk::{DirLock, SharedDisk};
use hay_common::ids::MemberId;
use hay_common::limits::{LOG_ENTRIES_KEPT, PROPOSALS_WAITING_MAX, RAFT_PEERS_MAX, READS_WAITING_MAX};
use hay_common::model::Durability;
use hay_common::random::{Random, SharedRandom, SystemRandom};
use hay_common::work;
use openraft::BasicNode;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::apply::Applier;
use crate::barrier::confirm_reads;
use crate::config::GroupConfig;
use crate::due::Due;
use crate::error::StartError;
use crate::formation::{Formation, FormationId, Formed, Forming};
use crate::group::{Group, Inner, stop_owners, sync_now_and_then};
use crate::leadership::Leadership;
use crate::log::{LogHandle, LogStore};
use crate::machine::StateMachine;
use crate::members::Members;
use crate::network::{Contacts, Network};
use crate::open::{Opened, open};
use crate::proposer::{ProposalCounters, Proposer};
use crate::receive::{Places, Receiver};
use crate::snapshot::Snapshots;
use crate::transport::{Acks, CallKind, Envelope, Parts, SharedTransport, Transport, TransportError};
use crate::types::Raft;

/// What a member of a group needs from outside.
#[derive(Clone)]
pub struct GroupDeps {
    /// Where its directory is.
    pub disk: SharedDisk,
    /// Draws ids, and pauses.
    pub random: SharedRandom,
    /// Tells when members were last heard.
    pub clock: SharedClock,
    /// Reaches the other members.
    pub transport: SharedTransport,
}

/// A member's parts, before it is put together.
struct Foundations {
    member: MemberId,
    raft: Raft,
    log: LogHandle,
    applier: Applier,
    lock: Box<dyn DirLock>,
    formed: Arc<Formed>,
    snapshots: Arc<Snapshots>,
    network: Network,
    contacts: Contacts,
    empty: bool,
}

/// Opens the directory and starts the consensus; nothing is formed yet.
async fn bring_up(
    config: &GroupConfig,
    machine: Box<dyn StateMachine>,
    deps: &GroupDeps,
) -> Result<Foundations, StartError> {
    let raft_config = Arc::new(raft_config(config)?);
    let opened = {
        let (config, disk, random) = (config.clone(), deps.disk.clone(), deps.random.clone());
        let draw = move || draw_member(random.as_ref());
        let on = disk.clone();
        work::blocking(on.as_ref(), move || open(&config, machine, disk, draw)).await
    };
    let opened = opened.map_err(|e| raft_failed(&config.name, &e))??;
    let Opened { lock, log, applier, member, formed, snapshots, empty } = opened;
    let (formed, contacts) = (Arc::new(formed), Contacts::default());
    let network = Network {
        cluster: config.cluster,
        group: config.name.clone(),
        member,
        formed: formed.clone(),
        transport: deps.transport.clone(),
        random: deps.random.clone(),
        clock: deps.clock.clone(),
        contacts: contacts.clone(),
    };
    let store = LogStore { log: log.clone(), reached: Some(applier.reached()) };
    match Raft::new(member.0, raft_config, network.clone(), store, applier.clone()).await {
        Ok(raft) => {
            Ok(Foundations { member, raft, log, applier, lock, formed, snapshots, network, contacts, empty })
        }
        Err(error) => {
            stop_owners(log, applier).await;
            Err(raft_failed(&config.name, &error))
        }
    }
}

/// 52 bits: no two are alike, and every program that reads JSON can hold them. 0 to 2^16 are left for people and tests.
fn draw_member(random: &dyn Random) -> MemberId {
    loop {
        let id = random.u64() >> 12;
        if id > 1 << 16 {
            return MemberId(id);
        }
    }
}

impl Group {
    /// Opens the group in `config.dir`, or makes it with this member alone, and waits until this member leads and has
    /// caught up. Takes milliseconds and the time to replay what no snapshot holds. Others can't join it: see
    /// [`Group::open`].
    ///
    /// # Errors
    /// Another's or a damaged directory, one in use, a failing disk or state machine.
    pub async fn start(
        config: GroupConfig,
        machine: Box<dyn StateMachine>,
        disk: SharedDisk,
    ) -> Result<Group, StartError> {
        let random = SystemRandom::shared().map_err(|source| StartError::Io {
            what: "no randomness for",
            path: config.dir.clone(),
            source,
        })?;
        let deps = GroupDeps { disk, random, clock: SystemClock::shared(), transport: Arc::new(Alone) };
        let parts = bring_up(&config, machine, &deps).await?;
        let empty = parts.empty;
        let group = assemble(&config, parts, watch::channel(None).1, None);
        let begun = if empty { group.form_alone(&config).await } else { group.check_alone().await };
        let begun = match begun {
            Ok(()) => group.lead_alone().await,
            Err(error) => Err(error),
        };
        group.or_end(begun).await
    }

    /// Opens a member that others can reach. With an empty list of peers a new one forms its group alone, and waits until
    /// it leads. With a list it comes back at once, and finds its group by itself: hand it the messages of the others
    /// (see [`crate::RaftEndpoint`]), and wait for [`Group::leading`] or look at [`Group::status`]. A member that has
    /// belonged to a group before goes on in it, whatever the list says.
    ///
    /// # Errors
    /// Another's or a damaged directory, one in use, a failing disk or state machine, a list that can't be right.
    pub async fn open(
        config: GroupConfig,
        machine: Box<dyn StateMachine>,
        deps: GroupDeps,
    ) -> Result<Group, StartError> {
        check_peers(&config)?;
        let parts = bring_up(&config, machine, &deps).await?;
        let peers: Vec<String> =
            config.peers.iter().filter(|peer| **peer != config.address).cloned().collect();
        let (news_tx, news) = watch::channel(None);
        let forming = Forming {
            me: parts.member,
            address: config.address.clone(),
            listed: config.peers.contains(&config.address),
            formed: parts.formed.clone(),
            network: parts.network.clone(),
            raft: parts.raft.clone(),
            random: deps.random.clone(),
            news: news_tx,
            peers,
        };
        let (formed, empty, alone) = (parts.formed.clone(), parts.empty, forming.peers.is_empty());
        // One that forms its group alone, or did so before formations had ids.
        let settle = (alone && empty) || (!empty && formed.id().is_none());
        let forming = (!alone).then_some(forming);
        let group = assemble(&config, parts, news, forming);
        if settle {
            let members = BTreeMap::from([(group.inner.member.0, config.address.clone())]);
            let formation = Formation { id: FormationId(deps.random.u128()), members };
            let mut record = formed.lock().await;
            let kept = formed.keep(&mut record, formation).await;
            drop(record);
            let kept = kept.map_err(|e| raft_failed(&config.name, &e));
            group.clone().or_end(kept).await?;
        }
        let begun = async {
            if alone && empty {
                group.form_alone(&config).await?;
            }
            if group.is_only_voter().await? { group.lead_alone().await } else { Ok(()) }
        };
        let begun = begun.await;
        group.or_end(begun).await
    }

    async fn form_alone(&self, config: &GroupConfig) -> Result<(), StartError> {
        let node = BasicNode::new(&config.address);
        let made = self.inner.raft.initialize(BTreeMap::from([(self.inner.member.0, node)])).await;
        made.map_err(|error| raft_failed(&self.inner.name, &error))
    }

    /// Asks the consensus itself: what it publishes may not be there yet.
    async fn is_only_voter(&self) -> Result<bool, StartError> {
        let me = self.inner.member.0;
        let asked = self.inner.raft.with_raft_state(move |state| {
            let mut voters = state.membership_state.effective().voter_ids();
            voters.next() == Some(me) && voters.next().is_none()
        });
        asked.await.map_err(|error| raft_failed(&self.inner.name, &error))
    }

    async fn check_alone(&self) -> Result<(), StartError> {
        if self.is_only_voter().await? {
            return Ok(());
        }
        let text = "this member belongs to a group of several: start it with the addresses of the others";
        Err(StartError::Config(format!("group {}: {text}", self.inner.name)))
    }

    /// The only voter need not wait for an election timeout.
    async fn lead_alone(&self) -> Result<(), StartError> {
        let inner = &self.inner;
        if !inner.raft.server_metrics().borrow().state.is_leader() {
            inner.raft.trigger().elect().await.map_err(|error| raft_failed(&inner.name, &error))?;
        }
        let mut ready = inner.ready.clone();
        if ready.wait_for(Option::is_some).await.is_err() || self.stopped().is_some() {
            let why = self.stopped().unwrap_or_else(|| "it ended".to_owned());
            return Err(raft_failed(&inner.name, &why));
        }
        Ok(())
    }

    async fn or_end(self, begun: Result<(), StartError>) -> Result<Self, StartError> {
        match begun {
            Ok(()) => Ok(self),
            Err(error) => {
                self.end().await;
                Err(error)
            }
        }
    }
}

fn check_peers(config: &GroupConfig) -> Result<(), StartError> {
    if config.peers.len() > RAFT_PEERS_MAX {
        let text = format!(
            "group {}: {} peers; at most {RAFT_PEERS_MAX} are allowed",
            config.name,
            config.peers.len()
        );
        return Err(StartError::Config(text));
    }
    if !config.peers.is_empty() && config.address.is_empty() {
        let text = format!("group {}: a member with peers needs an address of its own", config.name);
        return Err(StartError::Config(text));
    }
    Ok(())
}

fn assemble(
    config: &GroupConfig,
    parts: Foundations,
    news: watch::Receiver<Option<String>>,
    forming: Option<Forming>,
) -> Group {
    let Foundations { member, raft, log, applier, lock, formed, snapshots, contacts, network, .. } = parts;
    let name = config.name.clone();
    let counters = Arc::new(ProposalCounters::default());
    let (ready_tx, ready) = watch::channel(None);
    let (proposals, proposal_queue) = mpsc::channel(PROPOSALS_WAITING_MAX);
    let (reads, read_queue) = mpsc::channel(READS_WAITING_MAX);
    let members = Members {
        group: name.clone(),
        member,
        raft: raft.clone(),
        contacts: contacts.clone(),
        clock: network.clock,
        election_max: config.election_max,
    };
    let proposer = Proposer { group: name.clone(), raft: raft.clone(), counters: counters.clone() };
    let due = Due {
        group: name.clone(),
        raft: raft.clone(),
        log: log.clone(),
        every_bytes: config.snapshot_every_bytes,
    };
    let leadership = Leadership {
        group: name.clone(),
        raft: raft.clone(),
        members: members.clone(),
        address: config.address.clone(),
        // Long enough for a few heartbeats; over before another member can have been elected, whoever that is: the
        // shortest range of all decides, not this member's own.
        silence_max: config.heartbeat * 4,
        ready: ready_tx,
    };
    let receiver = Receiver {
        cluster: config.cluster,
        group: name.clone(),
        member,
        address: config.address.clone(),
        peers: config.peers.iter().cloned().collect(),
        formed,
        raft: raft.clone(),
        members: members.clone(),
        snapshots,
        places: Places::default(),
    };
    let proposer = tokio::spawn(proposer.run(proposal_queue));
    let mut helpers = vec![
        tokio::spawn(confirm_reads(name.clone(), raft.clone(), ready.clone(), read_queue)),
        tokio::spawn(leadership.watch()),
        tokio::spawn(due.watch()),
    ];
    helpers.extend(forming.map(|forming| tokio::spawn(forming.run())));
    if config.durability == Durability::Async {
        helpers.push(tokio::spawn(sync_now_and_then(log.clone())));
    }
    let inner = Inner {
        name,
        member,
        raft,
        log,
        applier,
        counters,
        ready,
        news,
        members,
        contacts,
        receiver: Arc::new(receiver),
        proposals: Mutex::new(Some(proposals)),
        reads: Mutex::new(Some(reads)),
        proposer: Mutex::new(Some(proposer)),
        helpers,
        lock: Mutex::new(Some(lock)),
    };
    Group { inner: Arc::new(inner) }
}

pub(crate) fn raft_failed(group: &str, what: &impl ToString) -> StartError {
    StartError::Raft { group: group.to_owned(), what: what.to_string() }
}

fn raft_config(config: &GroupConfig) -> Result<openraft::Config, StartError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let raft = openraft::Config {
        cluster_name: config.name.clone(),
        heartbeat_interval: ms(config.heartbeat),
        election_timeout_min: ms(config.election_min),
        election_timeout_max: ms(config.election_max),
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: LOG_ENTRIES_KEPT.min(config.snapshot_every_entries),
        // A purge makes a small file durable: not for every entry.
        purge_batch_size: 256.min(config.snapshot_every_entries),
        ..openraft::Config::default()
    };
    raft.validate().map_err(|e| StartError::Config(format!("group {}: {e}", config.name)))
}

/// The transport of a group that has one member.
struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        address: &str,
        _kind: CallKind,
        _envelope: Envelope,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<bytes::Bytes, TransportError>> {
        let why = format!("{address:?} can't be reached: this server keeps its group alone");
        std::future::ready(Err(TransportError::Unreachable(why))).boxed()
    }

    fn snapshot(&self, address: &str, _parts: Parts) -> BoxFuture<'static, Result<Acks, TransportError>> {
        let why = format!("{address:?} can't be reached: this server keeps its group alone");
        std::future::ready(Err(TransportError::Unreachable(why))).boxed()
    }
}
