//! One volume on several servers: who has it, who may append, and how an append gets everywhere.
//!
//! The server that takes an append sends it to the other replicas in parallel with its own, and acknowledges when all have
//! synced it. One that does not answer stops the volume here: nothing is acknowledged any more, the masters hear of it and
//! seal the volume. A needle that only some replicas hold was never acknowledged, and harms nobody.

mod fan_out;
mod fill;
mod lane;
mod outcome;
pub(crate) mod standing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hay_client::Peers;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::FILLS_AT_ONCE;
use hay_common::model::VolumeState;
use hay_needle::State;
use hay_proto::rpc::DynVolume;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};

use crate::store::{AppendError, Store, StoreError, VolumeInfo};
use lane::Lane;
use standing::{Part, Standing, is_sole};

pub(crate) use fill::Fill;

/// A server of a volume and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub node: NodeId,
    pub address: String,
}

/// What a master says of one volume that this server has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirmation {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub state: VolumeState,
    pub part: Part,
    pub members: Vec<Member>,
}

#[derive(Default)]
struct Entry {
    standing: Standing,
    lanes: Vec<Arc<Lane>>,
    /// How it was filled.
    filled: outcome::Filled,
}

/// What this server knows of its volumes' replicas.
pub(crate) struct Replication {
    node: NodeId,
    store: Arc<Store>,
    peers: Peers,
    clock: SharedClock,
    entries: RwLock<HashMap<VolumeId, Arc<Mutex<Entry>>>>,
    /// Where servers are, by what masters have said since the start: a server may come back under another address.
    addresses: RwLock<HashMap<NodeId, String>>,
    /// When a master last answered, on the monotonic clock.
    heard: watch::Receiver<Option<Duration>>,
    /// The masters don't take this server for the one that it says it is.
    is_disowned: AtomicBool,
    /// Something that the masters should hear at once.
    pub news: Notify,
    fills: Arc<Semaphore>,
}

impl Replication {
    pub fn new(
        store: Arc<Store>,
        peers: Peers,
        clock: SharedClock,
        heard: watch::Receiver<Option<Duration>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: store.node(),
            store,
            peers,
            clock,
            entries: RwLock::default(),
            addresses: RwLock::default(),
            heard,
            is_disowned: AtomicBool::new(false),
            news: Notify::new(),
            fills: Arc::new(Semaphore::new(FILLS_AT_ONCE)),
        })
    }

    /// The volumes of this server.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn known(&self, id: VolumeId) -> Option<Arc<Mutex<Entry>>> {
        self.entries.read().get(&id).cloned()
    }

    fn entry(&self, id: VolumeId) -> Arc<Mutex<Entry>> {
        if let Some(known) = self.known(id) {
            return known;
        }
        self.entries.write().entry(id).or_default().clone()
    }

    /// Remembers where servers are.
    pub fn learn(&self, members: &[Member]) {
        let is_news = |m: &Member| self.addresses.read().get(&m.node) != Some(&m.address);
        for member in members.iter().filter(|m| is_news(m)) {
            self.addresses.write().insert(member.node, member.address.clone());
        }
    }

    /// Makes a volume as a master said; from then on it is confirmed. Blocks.
    pub fn create(
        &self,
        id: VolumeId,
        epoch: Epoch,
        class: hay_common::model::SizeClass,
        members: &[Member],
    ) -> Result<(), StoreError> {
        let nodes: Vec<NodeId> = match members {
            [only] if only.node == self.node => Vec::new(),
            members => members.iter().map(|member| member.node).collect(),
        };
        self.learn(members);
        self.store.create_replica(id, epoch, class, &nodes)?;
        self.entry(id).lock().standing.confirm(epoch, Part::Whole);
        Ok(())
    }

    /// Takes in what a master says, as far as that needs no disk; whether there is more to do. Until that is done a replica
    /// that was left behind is confirmed in an epoch that is not its own: it takes nothing, and calls nothing absent.
    pub fn hear(&self, confirmation: &Confirmation) -> bool {
        let Confirmation { volume, epoch, state, part, members } = confirmation;
        self.learn(members);
        let Some(own) = self.store.state(*volume) else { return false };
        if !is_sole(&own) || *part != Part::Whole {
            let entry = self.entry(*volume);
            let mut entry = entry.lock();
            entry.standing.confirm(*epoch, *part);
            if *state == VolumeState::Sealed {
                entry.lanes.clear();
            }
        }
        let is_behind = !own.filling && (own.epoch < *epoch || own.sealed.is_none());
        let is_replica = *state == VolumeState::Sealed && *part == Part::Whole;
        is_replica && (is_behind || self.is_fill_given_up(*volume, *epoch))
    }

    /// Whether a replica, in an epoch that a master has said, is still being filled here: the masters have given that up. One
    /// that was said before the fill began is of an earlier epoch.
    fn is_fill_given_up(&self, id: VolumeId, epoch: Epoch) -> bool {
        self.store.filling_in(id).is_some_and(|begun| begun <= epoch)
    }

    /// Takes in all that a master says. A replica that was away while its volume was sealed takes the epoch and the seal now,
    /// and one whose fill was given up is what it was before. Blocks where it does.
    pub fn confirm(&self, confirmation: &Confirmation) -> Result<(), StoreError> {
        if !self.hear(confirmation) {
            return Ok(());
        }
        let Confirmation { volume, epoch, .. } = *confirmation;
        if self.is_fill_given_up(volume, epoch) {
            self.store.abort_fill(volume)?;
            self.entry(volume).lock().filled = outcome::Filled::default();
            self.news.notify_one();
        }
        self.store.seal(volume, epoch)
    }

    /// The masters refuse this server: another process speaks as it, or it is another cluster's. What the map says of its
    /// volumes is said of the other one, so nothing is acknowledged here any more, not even where it was the only replica.
    /// What was confirmed before has to be confirmed anew.
    pub fn disown(&self) {
        self.is_disowned.store(true, Ordering::Release);
        self.entries.read().values().for_each(|entry| entry.lock().standing.unconfirm());
    }

    /// A master has taken this server's report.
    pub fn own_again(&self) {
        self.is_disowned.store(false, Ordering::Release);
    }

    /// Whether an append may be stored on a volume that no other server has.
    fn may_alone(&self, id: VolumeId) -> Result<(), AppendError> {
        if self.is_disowned.load(Ordering::Acquire) { Err(AppendError::Unconfirmed(id)) } else { Ok(()) }
    }

    /// Whether a writer's append may be stored here and everywhere.
    ///
    /// # Errors
    /// Why not.
    pub fn may_lead(&self, id: VolumeId, state: &State) -> Result<(), AppendError> {
        if is_sole(state) {
            return self.may_alone(id);
        }
        let now = self.clock.monotonic();
        match self.known(id) {
            Some(entry) => entry.lock().standing.may_lead(id, state, now),
            None => Err(AppendError::Unconfirmed(id)),
        }
    }

    /// Whether an append of `from` may be stored here.
    ///
    /// # Errors
    /// Why not.
    pub fn may_follow(&self, id: VolumeId, from: NodeId) -> Result<(), AppendError> {
        let state = self.store.state(id).ok_or(AppendError::NoVolume(id))?;
        if !state.members.contains(&from) {
            return Err(AppendError::Unconfirmed(id));
        }
        match self.known(id) {
            Some(entry) => entry.lock().standing.may_follow(id, &state),
            None => Err(AppendError::Unconfirmed(id)),
        }
    }

    /// How long ago a master last answered.
    fn heard_ago(&self) -> Option<Duration> {
        self.heard.borrow().map(|at| self.clock.monotonic().saturating_sub(at))
    }

    /// Whether a needle that is not held here is nowhere.
    pub fn may_say_absent(&self, id: VolumeId) -> bool {
        let Some(state) = self.store.state(id) else { return false };
        if is_sole(&state) {
            return self.may_alone(id).is_ok();
        }
        let heard = self.heard_ago();
        self.known(id).is_some_and(|entry| entry.lock().standing.may_say_absent(&state, heard))
    }

    /// Whether other servers may copy what is held here.
    pub fn may_list(&self, id: VolumeId) -> bool {
        let Some(state) = self.store.state(id) else { return false };
        let heard = self.heard_ago();
        match self.known(id) {
            Some(entry) => entry.lock().standing.may_list(&state, heard),
            None => Standing::default().may_list(&state, heard),
        }
    }

    /// Why nothing is acknowledged on a volume in `epoch`, because a replica has failed.
    fn stopped(&self, id: VolumeId, epoch: Epoch) -> Option<AppendError> {
        let now = self.clock.monotonic();
        let entry = self.known(id)?;
        let entry = entry.lock();
        let reason = entry.standing.stopped(epoch, now)?.reason.clone();
        Some(AppendError::ReplicaFailed { volume: id, reason })
    }

    /// Another replica did not take an append.
    fn stop(&self, id: VolumeId, epoch: Epoch, node: NodeId, reason: &str) {
        let now = self.clock.monotonic();
        if self.entry(id).lock().standing.stop(epoch, node, reason.to_owned(), now) {
            metrics::counter!("hay_volume_replica_failures_total").increment(1);
            tracing::warn!(volume = %id, %epoch, %node, reason, "nothing is acknowledged on the volume any more");
            self.news.notify_one();
        }
    }

    /// The volumes as the masters should hear of them.
    pub fn infos(&self) -> Vec<VolumeInfo> {
        let mut infos = self.store.infos();
        let now = self.clock.monotonic();
        let entries = self.entries.read();
        for info in &mut infos {
            let Some(entry) = entries.get(&info.id) else { continue };
            let entry = entry.lock();
            if info.state == VolumeState::Writable
                && let Some(stopped) = entry.standing.stopped(info.epoch, now)
            {
                info.read_only = info.read_only.take().or_else(|| Some(stopped.reason.clone()));
                info.failed_replica = Some(stopped.node);
            }
            info.fill_problem = entry.filled.problem.clone();
            info.fill_failures = entry.filled.own_failures;
        }
        infos
    }

    fn peer(&self, node: NodeId) -> Result<DynVolume, Failure> {
        let address = self.addresses.read().get(&node).cloned();
        let address = address.ok_or_else(|| {
            Failure::new(ErrorCode::Unavailable, format!("no master has said where server {node} is"))
        })?;
        self.peers.volume(&address)
    }

    fn named(&self, node: NodeId) -> String {
        match self.addresses.read().get(&node) {
            Some(address) => format!("{node} at {address}"),
            None => node.to_string(),
        }
    }
}
