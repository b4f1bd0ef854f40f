//! One volume server's heartbeat stream.

use std::sync::Arc;

use hay_common::ids::{ClusterId, NodeId, VolumeId};
use hay_common::limits::{HEARTBEAT_COMMANDS_WAITING_MAX, HEARTBEAT_VOLUMES_MAX};
use hay_proto::rpc::Peer;
use tokio::sync::mpsc;

use crate::core::MasterCore;
use crate::error::HeartbeatError;
use crate::live::{Down, Heard, Report};
use crate::plan::confirm;
use crate::state::{Command, Node};

/// The master's end of a stream.
pub(crate) struct Session {
    core: Arc<MasterCore>,
    peer: Option<Peer>,
    commands: mpsc::Sender<Down>,
    speaking: Option<(NodeId, u64)>,
}

impl Session {
    /// A stream that has not said whose it is, and where its commands come out.
    pub(crate) fn new(core: Arc<MasterCore>, peer: Option<Peer>) -> (Self, mpsc::Receiver<Down>) {
        let (commands, out) = mpsc::channel(HEARTBEAT_COMMANDS_WAITING_MAX);
        (Self { core, peer, commands, speaking: None }, out)
    }

    /// Takes a report in; the duties look at what is new.
    pub(crate) async fn hear(&mut self, cluster: ClusterId, report: Report) -> Result<(), HeartbeatError> {
        let core = &self.core;
        if !core.leads() {
            return Err(HeartbeatError::NotLeader);
        }
        let node = report.node;
        self.check(cluster, &report)?;
        let now = core.clock.monotonic();
        let session = match self.speaking {
            Some((_, session)) => session,
            None => {
                if core.live.lock().is_taken(node, report.instance, now) {
                    let address =
                        core.shared.state.read().nodes.get(&node).map(|known| known.address.clone());
                    return Err(HeartbeatError::Twin { node, address: address.unwrap_or_default() });
                }
                self.register(node, &report.info).await?;
                let session = core.live.lock().connect(node, self.commands.clone(), now);
                self.speaking = Some((node, session));
                tracing::info!(%node, address = report.info.address, "a volume server reports");
                session
            }
        };
        let known = core.shared.state.read().nodes.get(&node).is_some_and(|known| *known == report.info);
        if !known {
            self.register(node, &report.info).await?;
        }
        let sequence = report.sequence;
        let reported: Vec<VolumeId> = report.volumes.iter().map(|volume| volume.id).collect();
        let heard = {
            let state = core.shared.state.read();
            let mut live = core.live.lock();
            let heard = live.hear(session, report, now);
            match heard {
                Heard::Known => live.send(node, Down::Acknowledge { sequence }, now),
                Heard::AskFull => live.send(node, Down::FullReport, now),
                Heard::Replaced => return Err(HeartbeatError::Replaced),
            }
            let news = confirm(&core.view(&state, &live), node, reported);
            if !news.is_empty() {
                live.send(node, Down::Confirm(news), now);
            }
            heard
        };
        tracing::trace!(%node, sequence, ?heard, "heartbeat");
        core.tell();
        Ok(())
    }

    fn check(&self, cluster: ClusterId, report: &Report) -> Result<(), HeartbeatError> {
        if cluster != self.core.key.cluster() {
            return Err(HeartbeatError::OtherCluster(cluster));
        }
        if let Some(peer) = self.peer.filter(|peer| peer.node != report.node) {
            return Err(HeartbeatError::OtherNode { peer: peer.node, node: report.node });
        }
        if self.speaking.is_some_and(|(node, _)| node != report.node) {
            return Err(HeartbeatError::SecondNode(report.node));
        }
        let volumes = report.volumes.len().max(report.removed.len());
        if volumes > HEARTBEAT_VOLUMES_MAX { Err(HeartbeatError::TooMany(volumes)) } else { Ok(()) }
    }

    async fn register(&self, node: NodeId, info: &Node) -> Result<(), HeartbeatError> {
        let known = self.core.shared.state.read().nodes.get(&node).cloned();
        if known.as_ref() == Some(info) {
            return Ok(());
        }
        self.core.change(&Command::Register { node, info: info.clone() }).await?;
        if known.is_none() {
            self.core.warn_of_replicas();
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((node, session)) = self.speaking {
            self.core.live.lock().disconnect(node, session);
        }
    }
}
