//! What the leader knows from heartbeats: who lives, what each server holds. Gone with the leadership, learned anew.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{HEARTBEAT_COMMAND_AGAIN, HEARTBEAT_TIMEOUT, VOLUME_AVOIDED};
use hay_common::model::{SizeClass, VolumeState, volumes_digest};
use tokio::sync::mpsc;

use crate::state::Node;

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
    /// Room on its disks.
    pub free_bytes: u64,
    /// The whole.
    pub total_bytes: u64,
    /// Over all that it has.
    pub digest: u64,
    /// Counts up.
    pub sequence: u64,
    /// Whether more of the same full report follows.
    pub partial: bool,
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
        /// Addresses, the primary first.
        replicas: Vec<String>,
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
    /// Room on its disks.
    pub free_bytes: u64,
    /// The whole.
    pub total_bytes: u64,
    /// What it holds.
    pub volumes: HashMap<VolumeId, VolumeReport>,
    /// Whether a full report of this stream has come.
    pub complete: bool,
    /// When a volume's command for an epoch was sent last: creating it for the first, sealing it for later ones.
    sent: HashMap<(VolumeId, Epoch), Duration>,
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
}

impl Live {
    /// Forgets everything: a leadership begins.
    pub fn begin(&mut self, now: Duration) {
        *self = Self { since: now, last_session: self.last_session, ..Self::default() };
    }

    /// A stream begins for a server; one before it no longer counts.
    pub fn connect(&mut self, node: NodeId, commands: mpsc::Sender<Down>, now: Duration) -> u64 {
        self.last_session += 1;
        let fresh = LiveNode {
            session: self.last_session,
            commands: Some(commands),
            heard: now,
            free_bytes: 0,
            total_bytes: 0,
            volumes: HashMap::new(),
            complete: false,
            sent: HashMap::new(),
        };
        self.nodes.insert(node, fresh);
        self.last_session
    }

    /// A stream ended. The server lives on until its time is over: it may come back at once.
    pub fn disconnect(&mut self, node: NodeId, session: u64) {
        if let Some(known) = self.nodes.get_mut(&node).filter(|known| known.session == session) {
            known.commands = None;
        }
    }

    /// Takes a report in.
    pub fn hear(&mut self, session: u64, report: Report, now: Duration) -> Heard {
        let Some(known) = self.nodes.get_mut(&report.node).filter(|known| known.session == session) else {
            return Heard::Replaced;
        };
        known.heard = now;
        known.free_bytes = report.free_bytes;
        known.total_bytes = report.total_bytes;
        if report.full {
            known.volumes.clear();
            known.complete = true;
        }
        known.volumes.extend(report.volumes.into_iter().map(|volume| (volume.id, volume)));
        report.removed.iter().for_each(|id| drop(known.volumes.remove(id)));
        let digest = volumes_digest(known.volumes.values().map(|v| (v.id, v.epoch, v.state)));
        if known.complete && (report.partial || digest == report.digest) {
            Heard::Known
        } else {
            Heard::AskFull
        }
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

    /// Sends a command; what finds no room is sent again later.
    pub fn send(&mut self, node: NodeId, down: Down, now: Duration) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        if let Down::Create { volume, epoch, .. } | Down::Seal { volume, epoch } = &down {
            known.sent.retain(|_, at| now.saturating_sub(*at) < HEARTBEAT_COMMAND_AGAIN);
            known.sent.insert((*volume, *epoch), now);
        }
        if let Some(commands) = &known.commands
            && let Err(error) = commands.try_send(down)
        {
            tracing::debug!(%node, %error, "a command to a volume server found no room");
        }
    }
}
