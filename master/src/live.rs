//! What the leader knows from heartbeats: who lives, what each server holds. Gone with the leadership, learned anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{
    DOUBTFUL_VOLUMES_MAX, GROWTH_CALM, GROWTH_PAUSE, GROWTH_PAUSE_MAX, HEARTBEAT_COMMAND_AGAIN,
    HEARTBEAT_GONE, HEARTBEAT_TIMEOUT, NODE_SUSPECTED, NODE_SUSPECTED_MAX, VOLUME_AVOIDED,
    VOLUME_CREATE_PATIENCE,
};
use hay_common::model::{SizeClass, VolumeState, volumes_digest};
use tokio::sync::mpsc;

use crate::state::{NewVolume, Node, Part, Peer};
use crate::suspicion::Suspicions;
use crate::terms::{Lengths, Terms};

/// One volume as one server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReport {
    /// Which volume.
    pub id: VolumeId,
    /// The highest epoch that the server has seen for it.
    pub epoch: Epoch,
    /// Which contents it takes.
    pub class: SizeClass,
    /// Whether it takes appends there.
    pub state: VolumeState,
    /// Why it takes none although it is not sealed.
    pub read_only_reason: Option<String>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Needles in it.
    pub needles: u64,
    /// Bytes that compaction would free.
    pub garbage_bytes: u64,
    /// It is not whole there yet.
    pub filling: bool,
    /// It may have lost needles there.
    pub incomplete: bool,
    /// What keeps it from being filled, or what the fill could not get.
    pub fill_problem: Option<String>,
    /// How often in a row the server itself failed to fill it.
    pub fill_failures: u32,
    /// The replica that did not take an append.
    pub failed_replica: Option<NodeId>,
}

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether `volumes` are all that the server has.
    pub full: bool,
    /// Which server.
    pub node: NodeId,
    /// What it says of itself.
    pub info: Node,
    /// What changed.
    pub volumes: Vec<VolumeReport>,
    /// What is gone.
    pub removed: Vec<VolumeId>,
    /// Free on its disk.
    pub free_bytes: u64,
    /// Of that, what it leaves free.
    pub reserve_bytes: u64,
    /// The whole.
    pub total_bytes: u64,
    /// Over all that it has.
    pub digest: u64,
    /// Counts up.
    pub sequence: u64,
    /// Whether more of the same full report follows.
    pub partial: bool,
    /// The run of the server; `None` where it does not say.
    pub instance: Option<u128>,
}

/// What the map says of a volume that a server has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// Which.
    pub volume: VolumeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it takes appends.
    pub state: VolumeState,
    /// What the server holds of it; `None`: it is no member.
    pub part: Option<Part>,
    /// The whole replicas, the primary first.
    pub members: Vec<Peer>,
    /// The map's version that says so.
    pub changed: u64,
}

/// What goes down to a volume server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// Create a volume, durably, then report it.
    Create {
        /// Which.
        volume: VolumeId,
        /// Its epoch.
        epoch: Epoch,
        /// Which contents it takes.
        class: SizeClass,
        /// The servers that get it, the primary first.
        members: Vec<Peer>,
    },
    /// What the map says of volumes that the server has.
    Confirm(Vec<Confirmed>),
    /// Copy what is lacking of a sealed volume, durably, then report it.
    Fill {
        /// Which.
        volume: VolumeId,
        /// Its epoch.
        epoch: Epoch,
        /// Which contents it takes.
        class: SizeClass,
        /// Who holds it whole.
        sources: Vec<Peer>,
        /// Who will be its members.
        members: Vec<Peer>,
    },
    /// Take the higher epoch, durably, and no further appends.
    Seal {
        /// Which.
        volume: VolumeId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Report everything.
    FullReport,
    /// A report was taken in.
    Acknowledge {
        /// Which.
        sequence: u64,
    },
}

/// A server that has been heard of since this master leads.
#[derive(Debug)]
pub struct LiveNode {
    /// The stream that speaks for it. A later one takes its place.
    pub session: u64,
    /// Where its commands go while it is connected.
    commands: Option<mpsc::Sender<Down>>,
    /// When it was last heard of.
    pub heard: Duration,
    /// Room for what is written: free on its disk above its own reserve.
    pub free_bytes: u64,
    /// That reserve.
    pub reserve_bytes: u64,
    /// Free on its disk, the reserve included.
    pub disk_free_bytes: u64,
    /// The whole.
    pub total_bytes: u64,
    /// What it holds.
    pub volumes: HashMap<VolumeId, VolumeReport>,
    /// Whether a full report of this stream has come, all of it.
    pub complete: bool,
    /// What a full report has named whose other parts are still to come: nothing is decided by what is in those.
    gathering: Option<HashSet<VolumeId>>,
    /// From when on it is believed what it says of others: not while it tells what it met before it came back.
    trusted_from: Duration,
    /// The run of the server that speaks.
    instance: Option<u128>,
    /// The map's version of each volume that it was told.
    confirmed: HashMap<VolumeId, u64>,
    /// When a volume's command for an epoch was sent last: creating it for the first, sealing it for later ones.
    sent: HashMap<(VolumeId, Epoch), Duration>,
    /// When it was first told to create a volume.
    asked: HashMap<VolumeId, Duration>,
}

impl LiveNode {
    /// What a report says of replicas that failed, where the one before did not: a failure that is told again is not a new
    /// one.
    fn new_failures<'r>(&self, report: &'r Report) -> impl Iterator<Item = (NodeId, &'r VolumeReport)> {
        let is_new = |volume: &&VolumeReport| {
            self.volumes.get(&volume.id).is_none_or(|before| before.failed_replica != volume.failed_replica)
        };
        let failed = |volume: &'r VolumeReport| volume.failed_replica.map(|node| (node, volume));
        report.volumes.iter().filter(is_new).filter_map(failed)
    }
}

/// The last that was said of a server that failed as a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accusation {
    /// Who says so.
    pub by: NodeId,
    /// In its words.
    pub reason: String,
    /// When.
    pub at: Duration,
}

/// For how long two servers are kept apart.
const RIFT: Lengths = Lengths { least: NODE_SUSPECTED, most: NODE_SUSPECTED_MAX, calm: GROWTH_PAUSE_MAX };

/// How long to wait after volumes that are likely to fail.
const PAUSE: Lengths = Lengths { least: GROWTH_PAUSE, most: GROWTH_PAUSE_MAX, calm: GROWTH_CALM };

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    if one <= other { (one, other) } else { (other, one) }
}

/// What to do after a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is taken in.
    Known,
    /// What is known of the server does not agree with what it has.
    AskFull,
    /// Another stream speaks for the server now.
    Replaced,
}

/// The leader's memory.
#[derive(Debug, Default)]
pub struct Live {
    /// Since when this master leads.
    since: Duration,
    nodes: BTreeMap<NodeId, LiveNode>,
    last_session: u64,
    /// Volumes that a writer could not write to although they look well, and until when they don't count.
    suspects: HashMap<VolumeId, Duration>,
    /// Servers that failed as replicas.
    suspicions: Suspicions,
    /// … and the last that was said of each.
    accusations: BTreeMap<NodeId, Accusation>,
    /// Volumes that servers were told to seal, lately.
    seals: HashMap<VolumeId, Duration>,
    /// Pairs of servers of which one has met a failure of the other on a volume that had never worked, whomever one believes:
    /// no new volumes on both.
    rifts: Terms<(NodeId, NodeId)>,
    /// Volumes that were made in spite of such doubts, and have not failed yet.
    doubtful: BTreeMap<VolumeId, (String, SizeClass)>,
    /// Tiers and classes of which such a volume has failed.
    pauses: Terms<(String, SizeClass)>,
    /// What changed in the map up to here was told to the servers that it concerns.
    told: u64,
}

impl Live {
    /// Forgets everything: a leadership begins.
    pub fn begin(&mut self, now: Duration) {
        *self = Self { since: now, last_session: self.last_session, ..Self::default() };
    }

    /// This leader was held up itself: what it has not heard meanwhile may still be on its way, and nobody is called dead
    /// for it.
    pub fn was_held_up(&mut self, now: Duration) {
        self.since = now;
    }

    /// A stream begins for a server; one before it no longer counts.
    pub fn connect(&mut self, node: NodeId, commands: mpsc::Sender<Down>, now: Duration) -> u64 {
        self.last_session += 1;
        let fresh = LiveNode {
            session: self.last_session,
            commands: Some(commands),
            heard: now,
            free_bytes: 0,
            reserve_bytes: 0,
            disk_free_bytes: 0,
            total_bytes: 0,
            volumes: HashMap::new(),
            complete: false,
            gathering: None,
            trusted_from: Duration::MAX,
            instance: None,
            confirmed: HashMap::new(),
            sent: HashMap::new(),
            asked: HashMap::new(),
        };
        self.nodes.insert(node, fresh);
        self.suspicions.acquit(node);
        self.rifts.end(|(one, other)| *one == node || *other == node, now);
        self.last_session
    }

    /// A stream ended. The server lives on until its time is over: it may come back at once.
    pub fn disconnect(&mut self, node: NodeId, session: u64) {
        if let Some(known) = self.nodes.get_mut(&node).filter(|known| known.session == session) {
            known.commands = None;
        }
    }

    /// Whether another run of the server speaks right now: two processes with one id.
    pub fn is_taken(&self, node: NodeId, instance: Option<u128>, now: Duration) -> bool {
        self.nodes.get(&node).is_some_and(|known| {
            known.commands.is_some()
                && now.saturating_sub(known.heard) < HEARTBEAT_GONE
                && known.instance.is_some()
                && instance.is_some()
                && known.instance != instance
        })
    }

    /// Takes a report in.
    pub fn hear(&mut self, session: u64, report: Report, now: Duration) -> Heard {
        let Some(known) = self.nodes.get_mut(&report.node).filter(|known| known.session == session) else {
            return Heard::Replaced;
        };
        if now.saturating_sub(known.heard) > HEARTBEAT_GONE && known.trusted_from <= now {
            // It was cut off: what has waited on its way, and the calls that are about to fail, are from then.
            known.trusted_from = now + HEARTBEAT_GONE;
        }
        known.heard = now;
        known.instance = report.instance.or(known.instance);
        let is_trusted = known.trusted_from <= now;
        // Of two that are told to seal, the first refuses what the other has under way: that is no failure.
        let seals = &self.seals;
        let failures: Vec<(NodeId, VolumeId, String)> = known
            .new_failures(&report)
            .filter(|(_, volume)| !seals.contains_key(&volume.id))
            .map(|(node, volume)| (node, volume.id, volume.read_only_reason.clone().unwrap_or_default()))
            .collect();
        known.free_bytes = report.free_bytes.saturating_sub(report.reserve_bytes);
        known.reserve_bytes = report.reserve_bytes;
        known.disk_free_bytes = report.free_bytes;
        known.total_bytes = report.total_bytes;
        if report.full {
            known.gathering = Some(HashSet::new());
        }
        if let Some(named) = &mut known.gathering {
            named.extend(report.volumes.iter().map(|volume| volume.id));
        }
        known.volumes.extend(report.volumes.into_iter().map(|volume| (volume.id, volume)));
        report.removed.iter().for_each(|id| drop(known.volumes.remove(id)));
        if !report.partial
            && let Some(named) = known.gathering.take()
        {
            known.volumes.retain(|id, _| named.contains(id));
            known.complete = true;
        }
        if known.complete && !report.partial {
            known.trusted_from = known.trusted_from.min(now + HEARTBEAT_GONE);
        }
        let digest = volumes_digest(known.volumes.values().map(|v| (v.id, v.epoch, v.state)));
        let is_known = match report.partial {
            true => known.complete || known.gathering.is_some(),
            false => known.complete && digest == report.digest,
        };
        let heard = if is_known { Heard::Known } else { Heard::AskFull };
        for (node, volume, reason) in failures {
            // One that has worked says nothing of the next one.
            let has_worked = self.has_worked(volume);
            if let Some(class) = self.doubtful.remove(&volume).filter(|_| !has_worked) {
                self.pauses.begin(class, PAUSE, now);
            }
            if is_trusted && !has_worked {
                self.rifts.begin(pair(report.node, node), RIFT, now);
            }
            if is_trusted {
                self.suspicions.accuse(report.node, node, now);
                self.accusations.insert(node, Accusation { by: report.node, reason, at: now });
            }
        }
        heard
    }

    /// The last that was said of a server that failed as a replica.
    pub fn accusation(&self, node: NodeId) -> Option<&Accusation> {
        self.accusations.get(&node)
    }

    /// Whether every server that has a volume has said that it holds needles of it.
    fn has_worked(&self, volume: VolumeId) -> bool {
        self.nodes.values().filter_map(|known| known.volumes.get(&volume)).all(|report| report.needles > 0)
    }

    /// Whether one of two servers has met a failure of the other, lately.
    pub fn are_apart(&self, one: NodeId, other: NodeId, now: Duration) -> bool {
        self.rifts.left(&pair(one, other), now).is_some()
    }

    /// Whether any of these servers has met a failure of another of them, lately.
    pub fn any_apart(&self, servers: &[NodeId], now: Duration) -> bool {
        let later = |at: usize| servers.iter().skip(at + 1);
        servers.iter().enumerate().any(|(at, one)| later(at).any(|other| self.are_apart(*one, *other, now)))
    }

    /// Whether a volume on these servers may be lost to its first append: they failed, or failed each other.
    pub fn is_doubtful(&self, servers: &[NodeId], now: Duration) -> bool {
        servers.iter().any(|node| !self.is_well(*node, now)) || self.any_apart(servers, now)
    }

    /// A volume is in the map now.
    pub fn made(&mut self, id: VolumeId, volume: &NewVolume, now: Duration) {
        if self.is_doubtful(&volume.nodes, now) {
            self.doubtful.insert(id, (volume.class.tier.clone(), volume.class.size));
        }
        while self.doubtful.len() > DOUBTFUL_VOLUMES_MAX {
            self.doubtful.pop_first();
        }
    }

    /// How long no more volumes are to be made in spite of doubts: the last ones have failed.
    pub fn growth_pause(&self, tier: &str, size: SizeClass, now: Duration) -> Option<Duration> {
        self.pauses.left(&(tier.to_owned(), size), now)
    }

    /// Whether a server failed as a replica, lately.
    pub fn failed(&self, node: NodeId, now: Duration) -> bool {
        self.suspicions.failed(node, now)
    }

    /// How many servers have met a failure of this one, lately.
    pub fn suspicion(&self, node: NodeId, now: Duration) -> usize {
        self.suspicions.weight(node, now)
    }

    /// Whether a server speaks, and did so just now. A stream that is open says nothing: that of a server that is paused
    /// or cut off is.
    pub fn stands(&self, node: NodeId, now: Duration) -> bool {
        let is_there = |known: &LiveNode| now.saturating_sub(known.heard) < HEARTBEAT_GONE;
        self.speaks(node, now) && self.nodes.get(&node).is_some_and(is_there)
    }

    /// Whether a server stands, and nobody has met a failure of it: new volumes are put there, and writers sent there first.
    pub fn is_well(&self, node: NodeId, now: Duration) -> bool {
        self.stands(node, now) && !self.failed(node, now)
    }

    /// Volumes that a server can't write to any more because of a fault there.
    pub fn failed_volumes(&self, node: NodeId) -> impl Iterator<Item = VolumeId> {
        let is_fault = move |v: &&VolumeReport| {
            v.read_only_reason.is_some() && v.failed_replica.is_none_or(|failed| failed == node) && !v.filling
        };
        let volumes = self.nodes.get(&node).into_iter().flat_map(|known| known.volumes.values());
        volumes.filter(is_fault).map(|volume| volume.id)
    }

    /// Up to which version of the map its changes were told.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// The changes up to `version` are told; a new leader's servers hear of everything as they report it.
    pub fn tell(&mut self, version: u64) {
        self.told = self.told.max(version);
    }

    /// Whether a server was told what the map's version `changed` says of a volume.
    pub fn was_told(&self, node: NodeId, volume: VolumeId, changed: u64) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|known| known.confirmed.get(&volume).is_some_and(|at| *at >= changed))
    }

    /// What is known of a server.
    pub fn node(&self, node: NodeId) -> Option<&LiveNode> {
        self.nodes.get(&node)
    }

    /// Whether a server is taken for living. Nobody is called dead before a full timeout of this leadership.
    pub fn alive(&self, node: NodeId, now: Duration) -> bool {
        let heard = self.nodes.get(&node).map_or(self.since, |known| known.heard.max(self.since));
        now.saturating_sub(heard) < HEARTBEAT_TIMEOUT
    }

    /// Whether a server has reported all that it has, lately.
    pub fn speaks(&self, node: NodeId, now: Duration) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.complete) && self.alive(node, now)
    }

    /// Whether a server has reported a volume, be it long ago.
    pub fn holds(&self, node: NodeId, volume: VolumeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.volumes.contains_key(&volume))
    }

    /// A volume as a living server reports it.
    pub fn report(&self, node: NodeId, volume: VolumeId, now: Duration) -> Option<&VolumeReport> {
        self.nodes.get(&node).filter(|_| self.speaks(node, now)).and_then(|known| known.volumes.get(&volume))
    }

    /// The servers that have been heard of.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &LiveNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// A writer could not write to a volume.
    pub fn suspect(&mut self, volume: VolumeId, now: Duration) {
        self.suspects.retain(|_, until| *until > now);
        self.suspects.insert(volume, now + VOLUME_AVOIDED);
    }

    /// Whether a writer could not write to a volume, lately.
    pub fn suspected(&self, volume: VolumeId, now: Duration) -> bool {
        self.suspects.get(&volume).is_some_and(|until| *until > now)
    }

    /// Whether a command for a volume may be sent to a connected server (again).
    pub fn due(&self, node: NodeId, volume: VolumeId, epoch: Epoch, now: Duration) -> bool {
        self.nodes.get(&node).is_some_and(|known| {
            known.complete
                && known.commands.is_some()
                && known
                    .sent
                    .get(&(volume, epoch))
                    .is_none_or(|at| now.saturating_sub(*at) >= HEARTBEAT_COMMAND_AGAIN)
        })
    }

    /// Since when a server has been told to create a volume, over this stream.
    pub fn asked_to_create(&self, node: NodeId, volume: VolumeId) -> Option<Duration> {
        self.nodes.get(&node).and_then(|known| known.asked.get(&volume).copied())
    }

    /// Sends a command; what finds no room is sent again later.
    pub fn send(&mut self, node: NodeId, down: Down, now: Duration) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        if let Down::Create { volume, epoch, .. }
        | Down::Seal { volume, epoch }
        | Down::Fill { volume, epoch, .. } = &down
        {
            known.sent.retain(|_, at| now.saturating_sub(*at) < HEARTBEAT_COMMAND_AGAIN);
            known.sent.insert((*volume, *epoch), now);
        }
        if let Down::Create { volume, .. } = &down {
            known.asked.retain(|_, at| now.saturating_sub(*at) < VOLUME_CREATE_PATIENCE * 2);
            known.asked.entry(*volume).or_insert(now);
        }
        if let Down::Seal { volume, .. } = &down {
            self.seals.retain(|_, at| now.saturating_sub(*at) < NODE_SUSPECTED);
            self.seals.insert(*volume, now);
        }
        let confirms: Vec<(VolumeId, u64)> = match &down {
            Down::Confirm(volumes) => volumes.iter().map(|c| (c.volume, c.changed)).collect(),
            _ => Vec::new(),
        };
        if let Some(commands) = &known.commands
            && let Err(error) = commands.try_send(down)
        {
            tracing::debug!(%node, %error, "a command to a volume server found no room");
            if !confirms.is_empty() {
                // Nothing repeats it but a report of everything, which is asked for at the next heartbeat.
                known.complete = false;
                known.confirmed.clear();
            }
            return;
        }
        known.confirmed.extend(confirms);
    }
}
