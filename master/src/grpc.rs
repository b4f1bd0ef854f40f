//! The generated service over the core. Wire types stop here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, Epoch, NodeId, VolumeId};
use hay_common::limits::{FREE_SPACE_RESERVE_BYTES, HEARTBEAT_VOLUMES_MAX};
use hay_common::model::Durability;
use hay_consensus::GroupMember;
use hay_proto::convert::{ConvertError, WireId, optional, size_class, volume_state};
use hay_proto::rpc::{self, BoxStream, to_status, with_leader};
use hay_proto::v1::{self, heartbeat_command, master_server};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::core::MasterCore;
use crate::heartbeat::Session;
use crate::info::{ClusterStatus, MapPage, NodeInfo, VolumeInfo, WriteLease};
use crate::live::{Confirmed, Down, Report, VolumeReport};
use crate::members::{MastersChange, MastersChanged};
use crate::plan::Repair;
use crate::state::{Node, Part, Peer, State};

#[tonic::async_trait]
impl master_server::Master for MasterCore {
    type HeartbeatStream = BoxStream<v1::HeartbeatCommand>;
    type WatchVolumeMapStream = BoxStream<v1::VolumeMapReply>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        if !self.leads() {
            let text = "this master does not lead; the leader takes the heartbeats";
            return Err(self.refuse(Failure::new(ErrorCode::NotLeader, text)));
        }
        let peer = request.extensions().get::<rpc::Peer>().copied();
        let core = self.shared_self()?;
        let (session, commands) = Session::new(core.clone(), peer);
        let (failures, failed) = mpsc::channel(1);
        // A task of its own: the stream outlives this call, and in one process it would run on the caller's task.
        tokio::spawn(listen(core, session, request.into_inner(), failures));
        Ok(Response::new(Box::pin(command_stream(self, commands, failed))))
    }

    async fn lease_write(
        &self,
        request: Request<v1::LeaseWriteRequest>,
    ) -> Result<Response<v1::WriteLease>, Status> {
        let avoid: Vec<VolumeId> = request.into_inner().avoid.into_iter().map(VolumeId).collect();
        let lease = self.lease_write(&avoid).await.map_err(|e| self.refuse(e.into()))?;
        Ok(Response::new(wire_lease(lease)))
    }

    async fn volume_map(
        &self,
        request: Request<v1::VolumeMapRequest>,
    ) -> Result<Response<v1::VolumeMapReply>, Status> {
        let request = request.into_inner();
        let page = if request.as_it_stands {
            self.map_as_it_stands(VolumeId(request.after), request.limit as usize)
        } else if request.volumes.is_empty() {
            self.map(VolumeId(request.after), request.limit as usize).await
        } else {
            let ids: Vec<VolumeId> = request.volumes.into_iter().map(VolumeId).collect();
            self.volumes(&ids).await
        };
        page.map(|page| Response::new(wire_page(page))).map_err(|e| self.refuse(e.into()))
    }

    async fn watch_volume_map(
        &self,
        request: Request<v1::WatchVolumeMapRequest>,
    ) -> Result<Response<Self::WatchVolumeMapStream>, Status> {
        // What a follower knows of servers is nothing.
        if !self.leads() {
            let text = "this master does not lead; the leader tells of the map's changes";
            return Err(self.refuse(Failure::new(ErrorCode::NotLeader, text)));
        }
        let asked = request.into_inner().after_version;
        let now = *self.shared.version.borrow();
        // 0 asks for changes from now on; a version that is not reached yet is another master's or another cluster's.
        let from = if asked == 0 || asked > now { now } else { asked };
        Ok(Response::new(Box::pin(changes(self.shared_self()?, from))))
    }

    async fn repair_volume(
        &self,
        request: Request<v1::RepairVolumeRequest>,
    ) -> Result<Response<v1::RepairVolumeReply>, Status> {
        let request = request.into_inner();
        let plan = self.repair(VolumeId(request.volume), request.dry_run).await;
        let plan = plan.map_err(|error| self.refuse(error.into()))?;
        Ok(Response::new(wire_repair(plan, &self.shared.state.read())))
    }

    async fn change_masters(
        &self,
        request: Request<v1::ChangeMastersRequest>,
    ) -> Result<Response<v1::ChangeMastersReply>, Status> {
        let request = request.into_inner();
        let change = match request.change() {
            v1::MastersChange::Add => MastersChange::Add,
            v1::MastersChange::Remove => MastersChange::Remove,
            v1::MastersChange::Unspecified => {
                let text = "change_masters.change is not known here: is the caller newer?";
                return Err(to_status(Failure::new(ErrorCode::InvalidArgument, text)));
            }
        };
        let changed = self.change_masters(&request.master, change, request.dry_run).await;
        Ok(Response::new(wire_changed(changed.map_err(|error| self.refuse(error.into()))?)))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusReply>, Status> {
        if self.is_led_by_another() {
            let text = "this master does not lead; the leader knows how the cluster is";
            return Err(self.refuse(Failure::new(ErrorCode::NotLeader, text)));
        }
        Ok(Response::new(wire_status(self.status())))
    }
}

impl MasterCore {
    /// The status of a failure. One that says that this master does not lead names who does, where that is known.
    fn refuse(&self, failure: Failure) -> Status {
        let leader = (failure.code == ErrorCode::NotLeader).then(|| self.group.leader_address()).flatten();
        let status = to_status(failure);
        match leader {
            Some(address) => with_leader(status, &address),
            None => status,
        }
    }

    fn shared_self(&self) -> Result<Arc<Self>, Status> {
        let gone = || to_status(Failure::new(ErrorCode::Unavailable, "this master is closing"));
        self.this.upgrade().ok_or_else(gone)
    }
}

/// Hears reports until the server ends the stream, fails, or the master closes.
async fn listen(
    core: Arc<MasterCore>,
    mut session: Session,
    mut reports: Streaming<v1::HeartbeatReport>,
    failures: mpsc::Sender<Status>,
) {
    let mut closing = core.closing.subscribe();
    let mut leading = core.group.leading();
    loop {
        let report = tokio::select! {
            report = reports.message() => report,
            _ = closing.wait_for(|closing| *closing) => return,
            // A client half that went away: nobody reads the commands any more.
            () = failures.closed() => return,
            _ = leading.wait_for(Option::is_none) => Err(core.refuse(Failure::new(ErrorCode::NotLeader, "this master leads no more"))),
        };
        let heard = match report {
            Ok(None) => return,
            Ok(Some(report)) => match read_report(report) {
                Ok((cluster, report)) => {
                    session.hear(cluster, report).await.map_err(|e| core.refuse(e.into()))
                }
                Err(error) => Err(error.into()),
            },
            Err(status) => Err(status),
        };
        if let Err(status) = heard {
            tracing::info!(message = status.message(), "a heartbeat stream ends");
            // Whoever reads the commands may be gone.
            let _ = failures.try_send(status);
            return;
        }
    }
}

/// Commands as they come; a failure of the listener ends them, as does the master's closing.
fn command_stream(
    core: &MasterCore,
    commands: mpsc::Receiver<Down>,
    failed: mpsc::Receiver<Status>,
) -> impl futures::Stream<Item = Result<v1::HeartbeatCommand, Status>> + Send + use<> {
    let lease_key = Bytes::copy_from_slice(&core.key.public().0);
    let parts = (commands, Some(failed), core.closing.subscribe());
    futures::stream::unfold(parts, move |(mut commands, failed, mut closing)| {
        let lease_key = lease_key.clone();
        async move {
            let mut failed = failed?;
            let next = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return None,
                status = failed.recv() => Err(status),
                down = commands.recv() => Ok(down),
            };
            match next {
                Ok(Some(down)) => {
                    Some((Ok(wire_command(down, lease_key)), (commands, Some(failed), closing)))
                }
                // The listener has ended: with a failure, or as the server ended its half.
                Ok(None) => {
                    let status = failed.recv().await?;
                    Some((Err(status), (commands, None, closing)))
                }
                Err(status) => status.map(|status| (Err(status), (commands, None, closing))),
            }
        }
    })
}

/// Changes of the map after `from`, for as long as the master leads.
fn changes(
    core: Arc<MasterCore>,
    from: u64,
) -> impl futures::Stream<Item = Result<v1::VolumeMapReply, Status>> + Send {
    let (version, closing) = (core.shared.version.clone(), core.closing.subscribe());
    let parts = (core, version, closing, from);
    let pages = futures::stream::unfold(parts, |(core, mut version, mut closing, from)| async move {
        let mut leading = core.group.leading();
        loop {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return None,
                _ = leading.wait_for(Option::is_none) => return None,
                reached = version.wait_for(|version| *version > from) => if reached.is_err() { return None },
            }
            let page = core.changes(from);
            if !page.volumes.is_empty() {
                let next = page.version;
                return Some((page, (core, version, closing, next)));
            }
        }
    });
    pages.map(|page| Ok(wire_page(page)))
}

fn read_report(report: v1::HeartbeatReport) -> Result<(ClusterId, Report), ConvertError> {
    let cluster = ClusterId::from_wire("heartbeat_report.cluster", &report.cluster)?;
    let partial = report.volumes.len() == HEARTBEAT_VOLUMES_MAX;
    let node = NodeId::from_wire("heartbeat_report.node", &report.node)?;
    let info = Node { address: report.address, rack: report.rack, zone: report.zone, tier: report.tier };
    let volumes = report.volumes.into_iter().map(read_volume).collect::<Result<_, _>>()?;
    let report = Report {
        full: report.full,
        node,
        info,
        volumes,
        removed: report.removed.into_iter().map(VolumeId).collect(),
        free_bytes: report.free_bytes,
        reserve_bytes: report.free_space_reserve_bytes.unwrap_or(FREE_SPACE_RESERVE_BYTES),
        total_bytes: report.total_bytes,
        digest: report.digest,
        sequence: report.sequence,
        partial,
        instance: <[u8; 16]>::try_from(report.instance.as_ref()).ok().map(u128::from_be_bytes),
    };
    Ok((cluster, report))
}

fn read_volume(report: v1::VolumeReport) -> Result<VolumeReport, ConvertError> {
    Ok(VolumeReport {
        id: VolumeId(report.id),
        epoch: Epoch(report.epoch),
        class: size_class("volume_report.class", report.class)?,
        state: volume_state("volume_report.state", report.state)?,
        read_only_reason: (!report.read_only_reason.is_empty()).then_some(report.read_only_reason),
        size_bytes: report.size_bytes,
        needles: report.needles,
        garbage_bytes: report.garbage_bytes,
        filling: report.filling,
        incomplete: report.incomplete,
        fill_problem: (!report.fill_problem.is_empty()).then_some(report.fill_problem),
        fill_failures: report.fill_failures,
        failed_replica: optional("volume_report.failed_replica", &report.failed_replica)?,
    })
}

fn wire_command(down: Down, lease_key: Bytes) -> v1::HeartbeatCommand {
    use heartbeat_command::Command;
    let command = match down {
        Down::Create { volume, epoch, class, members } => Command::Create(v1::CreateVolume {
            volume: volume.0,
            epoch: epoch.0,
            class: v1::SizeClass::from(class).into(),
            replicas: members.iter().map(|peer| peer.address.clone()).collect(),
            members: wire_peers(members),
        }),
        Down::Confirm(volumes) => Command::Confirm(v1::ConfirmVolumes {
            volumes: volumes.into_iter().map(wire_confirmed).collect(),
        }),
        Down::Fill { volume, epoch, class, sources, members } => Command::Fill(v1::FillVolume {
            volume: volume.0,
            epoch: epoch.0,
            class: v1::SizeClass::from(class).into(),
            sources: wire_peers(sources),
            members: wire_peers(members),
        }),
        Down::Seal { volume, epoch } => Command::Seal(v1::SealVolume { volume: volume.0, epoch: epoch.0 }),
        Down::FullReport => Command::FullReport(v1::FullReport {}),
        Down::Acknowledge { sequence } => Command::Acknowledge(v1::Acknowledge { sequence, lease_key }),
    };
    v1::HeartbeatCommand { command: Some(command) }
}

fn wire_peers(peers: Vec<Peer>) -> Vec<v1::VolumePeer> {
    peers
        .into_iter()
        .map(|peer| v1::VolumePeer { node: peer.node.to_wire(), address: peer.address })
        .collect()
}

fn wire_confirmed(confirmed: Confirmed) -> v1::ConfirmedVolume {
    v1::ConfirmedVolume {
        volume: confirmed.volume.0,
        epoch: confirmed.epoch.0,
        state: v1::VolumeState::from(confirmed.state).into(),
        stranger: confirmed.part.is_none(),
        filling: matches!(confirmed.part, Some(Part::Filling | Part::Completing)),
        members: wire_peers(confirmed.members),
    }
}

fn wire_repair(plan: Repair, state: &State) -> v1::RepairVolumeReply {
    let steps = plan.steps.into_iter().map(|step| v1::RepairStep {
        target: step.target.to_wire(),
        target_address: state.peer(step.target).address,
        replaces: step.replaces.map(|node| node.to_wire()).unwrap_or_default(),
        running: step.running,
        in_place: step.in_place,
        problem: step.problem.unwrap_or_default(),
    });
    let cancelled = plan.cancel.into_iter().map(|cancelled| v1::RepairCancelled {
        target: cancelled.target.to_wire(),
        target_address: state.peer(cancelled.target).address,
        reason: cancelled.reason,
        stays: cancelled.stays,
    });
    v1::RepairVolumeReply {
        steps: steps.collect(),
        cancelled: cancelled.collect(),
        whole: u32::try_from(plan.whole).unwrap_or(u32::MAX),
        wanted: u32::try_from(plan.wanted).unwrap_or(u32::MAX),
        unsure: plan.unsure,
    }
}

fn wire_lease(lease: WriteLease) -> v1::WriteLease {
    v1::WriteLease {
        volumes: lease.volumes.into_iter().map(Into::into).collect(),
        token: lease.token,
        ttl_ms: u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX),
    }
}

fn wire_page(page: MapPage) -> v1::VolumeMapReply {
    let volumes = page.volumes.into_iter().map(wire_volume).collect();
    v1::VolumeMapReply { volumes, version: page.version, more: page.more }
}

fn wire_volume(volume: VolumeInfo) -> v1::VolumeRecord {
    let members = volume.members.into_iter().map(|member| v1::VolumeMember {
        node: member.node.to_wire(),
        address: member.address,
        filling: member.filling,
        alive: member.alive,
        incomplete: member.incomplete,
        completing: member.completing,
        problem: member.problem.unwrap_or_default(),
    });
    v1::VolumeRecord {
        id: volume.id.0,
        epoch: volume.epoch.0,
        class: v1::SizeClass::from(volume.size).into(),
        state: v1::VolumeState::from(volume.state).into(),
        members: members.collect(),
        size_bytes: volume.size_bytes,
        needles: volume.needles,
        garbage_bytes: volume.garbage_bytes,
        collection: volume.collection,
        tier: volume.tier,
        read_only_reason: volume.read_only_reason,
    }
}

fn wire_changed(changed: MastersChanged) -> v1::ChangeMastersReply {
    let count = |voters: usize| u32::try_from(voters).unwrap_or(u32::MAX);
    v1::ChangeMastersReply {
        voters_before: count(changed.voters_before),
        voters_after: count(changed.voters_after),
        master: Some(wire_member(changed.master, changed.led)),
    }
}

fn wire_member(member: GroupMember, leader: bool) -> v1::MemberStatus {
    let ms = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    v1::MemberStatus {
        id: member.id.0,
        address: member.address,
        leader,
        voter: member.voter,
        lag: member.lag,
        heard_ms_ago: member.heard_ago.map(ms),
        problem: member.problem.unwrap_or_default(),
    }
}

fn wire_status(status: ClusterStatus) -> v1::ClusterStatusReply {
    let masters_problem = status.group.problem().unwrap_or_default();
    let leader = status.group.leader;
    let masters = status.group.members.into_iter().map(|member| {
        let leads = leader == Some(member.id);
        wire_member(member, leads)
    });
    let (creating, writable, sealed) = status.volumes;
    v1::ClusterStatusReply {
        cluster: status.cluster.to_wire(),
        masters: masters.collect(),
        nodes: status.nodes.into_iter().map(wire_node).collect(),
        volumes_writable: writable,
        volumes_sealed: sealed,
        volumes_creating: creating,
        raft_term: status.group.term,
        raft_applied: status.group.applied.map_or(0, |at| at.index),
        ready: status.not_ready.is_none(),
        not_ready_reason: status.not_ready.unwrap_or_default(),
        durability: match status.durability {
            Durability::Sync => "sync",
            Durability::Async => "async",
        }
        .to_owned(),
        masters_problem,
        servers_unknown: status.servers_unknown,
        replicas: status.replicas.into(),
        volumes_lacking: u32::try_from(status.survey.lacking).unwrap_or(u32::MAX),
        lacking: status.survey.lacking_first.into_iter().map(|id| id.0).collect(),
        warnings: status.warnings,
    }
}

fn wire_node(node: NodeInfo) -> v1::NodeStatus {
    let ago = node.heard_ago.map_or(u64::MAX, |ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
    v1::NodeStatus {
        node: node.id.to_wire(),
        address: node.info.address,
        rack: node.info.rack,
        zone: node.info.zone,
        tier: node.info.tier,
        alive: node.alive,
        last_heard_ms_ago: ago,
        free_bytes: node.free_bytes,
        total_bytes: node.total_bytes,
        volumes: u32::try_from(node.volumes).unwrap_or(u32::MAX),
        no_new_volumes: node.no_new_volumes.unwrap_or_default(),
        free_space_reserve_bytes: node.reserve_bytes,
    }
}
