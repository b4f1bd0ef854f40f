//! The master's core: what its handlers and its duties share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hay_common::clock::SharedClock;
use hay_common::ids::{Epoch, VolumeId};
use hay_common::limits::{
    LEASE_GRANT_WAIT, RPC_BATCH_ITEMS_MAX, VOLUME_MAP_PAGE_MAX, VOLUMES_AVOIDED_MAX, WRITE_LEASE_TTL,
};
use hay_common::model::{Durability, LeasedVolume};
use hay_consensus::{Group, GroupConfig, GroupDeps};
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::lease::LeaseToken;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{MasterConfig, MasterDeps, MasterNetwork};
use crate::duties;
use crate::error::{ChangeError, LeaseError, MapError, RepairError, StartError};
use crate::info::{MapPage, MemberInfo, VolumeInfo, WriteLease};
use crate::live::Live;
use crate::machine::{Machine, SharedState};
use crate::plan::{Cancelled, Policy, Repair, Survey, View, covers_all, repair, select, shortage};
use crate::state::{Command, Configuration, Outcome, Part, State, Volume};

/// Starts masters.
pub struct Master;

impl Master {
    /// Opens or makes the master in `config.dir`, and waits until it leads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: MasterConfig, deps: MasterDeps) -> Result<Arc<MasterCore>, StartError> {
        let (machine, shared) = Machine::new(deps.disk.clone());
        let group_config = GroupConfig {
            address: config.address.clone(),
            ..sized(&config, GroupConfig::sole("master", &config.dir, deps.key.cluster()))
        };
        let group = Group::start(group_config, Box::new(machine), deps.disk.clone()).await?;
        let core = assemble(&config, deps, shared, group);
        if let Err(error) = core.configure().await {
            core.shutdown().await;
            return Err(error.into());
        }
        *core.duties.lock() = Some(tokio::spawn(duties::run(core.clone())));
        Ok(core)
    }

    /// Opens or makes a master that others reach. With no peer but itself it forms its group alone and comes back when it
    /// leads; with peers it comes back at once: add [`MasterCore::group`] to the process's
    /// [`hay_consensus::RaftEndpoint`], and it finds the others.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn join(
        config: MasterConfig,
        deps: MasterDeps,
        network: MasterNetwork,
    ) -> Result<Arc<MasterCore>, StartError> {
        let (machine, shared) = Machine::new(deps.disk.clone());
        let MasterNetwork { peers, random, transport } = network;
        let cluster = deps.key.cluster();
        let group_config = GroupConfig::member_of("master", &config.dir, cluster, &config.address, &peers);
        let group_deps = GroupDeps { disk: deps.disk.clone(), random, clock: deps.clock.clone(), transport };
        let group = Group::open(sized(&config, group_config), Box::new(machine), group_deps).await?;
        let core = assemble(&config, deps, shared, group);
        *core.duties.lock() = Some(tokio::spawn(duties::run(core.clone())));
        Ok(core)
    }
}

fn sized(config: &MasterConfig, group: GroupConfig) -> GroupConfig {
    let snapshot_every_entries = config.snapshot_every_entries;
    let (election_min, election_max) = config.election.unwrap_or((group.election_min, group.election_max));
    let durability = config.durability;
    GroupConfig { durability, snapshot_every_entries, election_min, election_max, ..group }
}

fn assemble(config: &MasterConfig, deps: MasterDeps, shared: SharedState, group: Group) -> Arc<MasterCore> {
    let core = Arc::new_cyclic(|this| MasterCore {
        this: this.clone(),
        group,
        shared,
        live: Mutex::new(Live::default()),
        news: watch::Sender::new(0),
        closing: watch::Sender::new(false),
        clock: deps.clock,
        key: deps.key,
        policy: config.policy,
        replicas: config.replicas,
        replaced: Mutex::new(None),
        durability: config.durability,
        surveyed: Mutex::new(None),
        turn: AtomicUsize::new(0),
        duties: Mutex::new(None),
    });
    core.live.lock().begin(core.clock.monotonic());
    core
}

/// A running master. Implements the generated service trait.
pub struct MasterCore {
    /// For streams that outlive the call which opened them.
    pub(crate) this: Weak<MasterCore>,
    pub(crate) group: Group,
    pub(crate) shared: SharedState,
    pub(crate) live: Mutex<Live>,
    /// Counts what may change a plan or a lease: whoever waits looks again.
    pub(crate) news: watch::Sender<u64>,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) clock: SharedClock,
    pub(crate) key: Arc<ClusterKey>,
    pub(crate) policy: Policy,
    /// What the configuration asks for; set by whoever leads.
    replicas: Option<u8>,
    /// What the cluster had instead when this master began to lead.
    pub(crate) replaced: Mutex<Option<u8>>,
    pub(crate) durability: Durability,
    /// When all volumes were looked at last, and what was seen.
    pub(crate) surveyed: Mutex<Option<(Duration, Survey)>>,
    turn: AtomicUsize,
    duties: Mutex<Option<JoinHandle<()>>>,
}

impl MasterCore {
    pub(crate) fn view<'a>(&'a self, state: &'a State, live: &'a Live) -> View<'a> {
        View { state, live, now: self.clock.monotonic(), policy: &self.policy }
    }

    /// The group, for the endpoint that other masters reach, and for changing its members.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Records what this master's configuration asks for, where the cluster has something else.
    pub(crate) async fn configure(&self) -> Result<(), ChangeError> {
        let (before, is_new) = {
            let state = self.shared.state.read();
            (state.configuration.replicas, state.nodes.is_empty())
        };
        if let Some(replicas) = self.replicas.filter(|replicas| *replicas != before) {
            self.change(&Command::Configure(Configuration { replicas })).await?;
            // At first there is nothing that anybody has set.
            if !is_new {
                tracing::warn!(
                    replicas,
                    before,
                    "a new volume is kept on another number of servers now: if nobody changed --replicas, it is not the same for \
                     all masters"
                );
                *self.replaced.lock() = Some(before);
            }
        }
        self.warn_of_replicas();
        Ok(())
    }

    /// Whether this master leads and has caught up.
    pub fn leads(&self) -> bool {
        self.group.leading().borrow().is_some()
    }

    /// Makes a change durable on a majority.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(&self, command: &Command) -> Result<Outcome, ChangeError> {
        let answer = self.group.propose(command.encode()?).await?;
        match Outcome::decode(&answer)? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Ok(outcome),
        }
    }

    pub(crate) fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A short list of writable volumes with a token. What the caller could not write to is left out; where that
    /// leaves a class without any, others are made, and waited for a little.
    ///
    /// # Errors
    /// See [`LeaseError`]. A lease that covers one class only is no error.
    pub async fn lease_write(&self, avoid: &[VolumeId]) -> Result<WriteLease, LeaseError> {
        if avoid.len() > VOLUMES_AVOIDED_MAX {
            return Err(LeaseError::TooMany(avoid.len()));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut news = self.news.subscribe();
        let mut leading = self.group.leading();
        let waited = tokio::time::timeout(LEASE_GRANT_WAIT, async {
            let mut told = false;
            loop {
                if !self.leads() {
                    return Err(LeaseError::NotLeader);
                }
                news.mark_unchanged();
                leading.mark_unchanged();
                let volumes = self.leasable(avoid, turn);
                if covers_all(&volumes) {
                    return Ok(volumes);
                }
                if !std::mem::replace(&mut told, true) {
                    self.suspect(avoid);
                }
                tokio::select! {
                    // The sender lives as long as self.
                    _ = news.changed() => {}
                    changed = leading.changed() => if changed.is_err() { return Err(LeaseError::NotLeader) },
                }
            }
        });
        let volumes = match waited.await {
            Ok(volumes) => volumes?,
            Err(_) => self.leasable(avoid, turn),
        };
        // Another may lead by now, and what this master knows be out of date.
        if !self.leads() {
            return Err(LeaseError::NotLeader);
        }
        if volumes.is_empty() {
            let (state, live) = (self.shared.state.read(), self.live.lock());
            let short = shortage(&self.view(&state, &live), &volumes);
            return Err(LeaseError::Short(short.unwrap_or(crate::plan::Shortage::NoServers)));
        }
        Ok(self.grant(volumes))
    }

    fn leasable(&self, avoid: &[VolumeId], turn: usize) -> Vec<LeasedVolume> {
        let (state, live) = (self.shared.state.read(), self.live.lock());
        select(&self.view(&state, &live), avoid, turn)
    }

    /// Volumes that a writer can't use don't count as ready for a while, so that others are made.
    fn suspect(&self, avoid: &[VolumeId]) {
        let now = self.clock.monotonic();
        let known: Vec<VolumeId> = {
            let state = self.shared.state.read();
            avoid.iter().copied().filter(|id| state.volumes.contains_key(id)).collect()
        };
        {
            let mut live = self.live.lock();
            known.iter().for_each(|id| live.suspect(*id, now));
        }
        if !known.is_empty() {
            self.tell();
        }
    }

    fn grant(&self, volumes: Vec<LeasedVolume>) -> WriteLease {
        let ttl_ms = u64::try_from(WRITE_LEASE_TTL.as_millis()).unwrap_or(u64::MAX);
        let token = LeaseToken {
            cluster: self.key.cluster(),
            volumes: volumes.iter().map(|leased| (leased.volume, leased.epoch)).collect(),
            expires_ms: self.clock.wall_ms().saturating_add(ttl_ms),
        };
        metrics::counter!("hay_master_leases_total").increment(1);
        WriteLease { token: token.sign(&self.key), volumes, ttl: WRITE_LEASE_TTL }
    }

    /// The named volumes, those that there are.
    ///
    /// # Errors
    /// See [`MapError`].
    pub async fn volumes(&self, ids: &[VolumeId]) -> Result<MapPage, MapError> {
        if ids.len() > RPC_BATCH_ITEMS_MAX {
            return Err(MapError::TooMany(ids.len()));
        }
        self.group.read_barrier().await?;
        let (state, live) = (self.shared.state.read(), self.live.lock());
        let found = ids.iter().filter_map(|id| state.volumes.get(id).map(|volume| (*id, volume)));
        let volumes = found.map(|(id, volume)| self.describe(&state, &live, id, volume)).collect();
        Ok(MapPage { volumes, version: state.version, more: false })
    }

    /// A page of the whole map in the order of ids; `limit` 0 takes the usual.
    ///
    /// # Errors
    /// See [`MapError`].
    pub async fn map(&self, after: VolumeId, limit: usize) -> Result<MapPage, MapError> {
        self.group.read_barrier().await?;
        Ok(self.page(after, limit))
    }

    /// The same as this master has it, which nobody confirms: for readers while no majority answers. What is out of date in
    /// it is harmless to them.
    ///
    /// # Errors
    /// `Nothing`: one that has just come may know of no volume yet, which is no answer.
    pub fn map_as_it_stands(&self, after: VolumeId, limit: usize) -> Result<MapPage, MapError> {
        let page = self.page(after, limit);
        if page.version == 0 { Err(MapError::Nothing) } else { Ok(page) }
    }

    fn page(&self, after: VolumeId, limit: usize) -> MapPage {
        let limit = if limit == 0 { VOLUME_MAP_PAGE_MAX } else { limit.min(VOLUME_MAP_PAGE_MAX) };
        let (state, live) = (self.shared.state.read(), self.live.lock());
        let later = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let mut rest = state.volumes.range(later);
        let page = rest.by_ref().take(limit);
        let volumes = page.map(|(id, volume)| self.describe(&state, &live, *id, volume)).collect();
        MapPage { volumes, version: state.version, more: rest.next().is_some() }
    }

    /// What changed after `version`, oldest change first: at most a page.
    pub fn changes(&self, version: u64) -> MapPage {
        let (state, live) = (self.shared.state.read(), self.live.lock());
        let mut changed = state.changed_after(version);
        let page: Vec<_> = changed.by_ref().take(VOLUME_MAP_PAGE_MAX).collect();
        let more = changed.next().is_some();
        let version = page.last().map_or(version, |(_, volume)| volume.changed);
        let volumes = page.into_iter().map(|(id, volume)| self.describe(&state, &live, id, volume)).collect();
        MapPage { volumes, version, more }
    }

    /// Begins to bring a sealed volume back to its number of copies, or with `dry_run` says what would be done.
    ///
    /// # Errors
    /// See [`RepairError`].
    pub async fn repair(&self, id: VolumeId, dry_run: bool) -> Result<Repair, RepairError> {
        if !self.leads() {
            return Err(RepairError::NotLeader);
        }
        let planned = |core: &Self| {
            let (state, live) = (core.shared.state.read(), core.live.lock());
            let epoch = state.volumes.get(&id).map(|volume| volume.epoch).unwrap_or_default();
            let plan = repair(&core.view(&state, &live), id);
            plan.map(|plan| (plan, epoch)).map_err(|error| RepairError::Irreparable(id, error))
        };
        let (plan, epoch) = planned(self)?;
        if dry_run {
            return Ok(plan);
        }
        for Cancelled { target, reason, .. } in &plan.cancel {
            tracing::info!(volume = %id, %target, reason, "a fill is given up");
            self.change(&Command::CancelFill { volume: id, target: *target }).await?;
        }
        let mut epoch = epoch;
        for step in plan.steps.iter().filter(|step| !step.running) {
            let (target, replaces) = (step.target, step.replaces);
            let command = match step.in_place {
                true => Command::Complete { volume: id, epoch, target },
                false => Command::Repair { volume: id, epoch, target, replaces },
            };
            self.change(&command).await?;
            // Each step raises it by one; whoever came in between makes the next step fail, and the whole is asked again.
            epoch = Epoch(epoch.0.saturating_add(1));
        }
        self.tell();
        Ok(plan)
    }

    fn describe(&self, state: &State, live: &Live, id: VolumeId, volume: &Volume) -> VolumeInfo {
        let now = self.clock.monotonic();
        // Only who leads hears the servers. Another calls none of them dead.
        let leads = self.leads();
        let reports = || volume.members.iter().filter_map(|member| live.report(member.node, id, now));
        let members = volume.members.iter().map(|member| MemberInfo {
            node: member.node,
            address: state.nodes.get(&member.node).map(|node| node.address.clone()).unwrap_or_default(),
            filling: member.part == Part::Filling,
            completing: member.part == Part::Completing,
            alive: !leads || live.alive(member.node, now),
            incomplete: live.report(member.node, id, now).is_some_and(|report| report.incomplete),
            problem: live
                .report(member.node, id, now)
                .and_then(|report| report.fill_problem.clone().or_else(|| report.read_only_reason.clone())),
        });
        VolumeInfo {
            id,
            epoch: volume.epoch,
            size: volume.class.size,
            state: volume.state,
            members: members.collect(),
            size_bytes: reports().map(|report| report.size_bytes).max().unwrap_or(0),
            needles: reports().map(|report| report.needles).max().unwrap_or(0),
            garbage_bytes: reports().map(|report| report.garbage_bytes).max().unwrap_or(0),
            collection: volume.class.collection.clone(),
            tier: volume.class.tier.clone(),
            read_only_reason: reports()
                .find_map(|report| report.read_only_reason.clone())
                .unwrap_or_default(),
        }
    }

    /// Its state, for inspection.
    pub fn state(&self) -> Arc<RwLock<State>> {
        self.shared.state.clone()
    }

    /// Ends streams and duties, finishes what is proposed, and closes the directory.
    pub async fn shutdown(&self) {
        self.closing.send_replace(true);
        let duties = self.duties.lock().take();
        if let Some(duties) = duties
            && let Err(error) = duties.await
        {
            tracing::error!(%error, "the master's duties failed");
        }
        if let Err(error) = self.group.shutdown().await {
            tracing::error!(%error, "the masters' group did not end cleanly");
        }
    }
}
