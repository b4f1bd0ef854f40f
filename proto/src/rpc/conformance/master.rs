//! The master service.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use hay_common::error::ErrorCode;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::control::Control;
use super::shared::{CALLS_MAX, Subject, check, request};
use super::stage::{BINDINGS, Binding, Caller, Cluster, stage};
use crate::rpc::{BoxStream, DynMaster, Role, in_process, to_failure};
use crate::v1::heartbeat_command::Command;
use crate::v1::master_server::Master;
use crate::v1::{
    Acknowledge, ClusterStatusReply, ClusterStatusRequest, HeartbeatCommand, HeartbeatReport,
    LeaseWriteRequest, VolumeMapReply, VolumeMapRequest, VolumeRecord, WatchVolumeMapRequest, WriteLease,
};

/// Acknowledges each report, and publishes each as a new version of the map.
pub struct Core {
    control: Control,
    versions: broadcast::Sender<u64>,
}

impl Default for Core {
    fn default() -> Self {
        Self { control: Control::default(), versions: broadcast::Sender::new(16) }
    }
}

#[tonic::async_trait]
impl Master for Core {
    type HeartbeatStream = BoxStream<HeartbeatCommand>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatReport>>,
    ) -> Result<Response<BoxStream<HeartbeatCommand>>, Status> {
        self.control.enter(&request).await?;
        let versions = self.versions.clone();
        let commands = request.into_inner().map(move |report| {
            let sequence = report?.sequence;
            // Nobody may be watching.
            let _ = versions.send(sequence);
            let acknowledge = Acknowledge { sequence, ..Acknowledge::default() };
            Ok(HeartbeatCommand { command: Some(Command::Acknowledge(acknowledge)) })
        });
        Ok(Response::new(commands.boxed()))
    }

    async fn lease_write(&self, request: Request<LeaseWriteRequest>) -> Result<Response<WriteLease>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(WriteLease { ttl_ms: 60_000, ..WriteLease::default() }))
    }

    async fn volume_map(
        &self,
        request: Request<VolumeMapRequest>,
    ) -> Result<Response<VolumeMapReply>, Status> {
        self.control.enter(&request).await?;
        let volumes =
            request.get_ref().volumes.iter().map(|id| VolumeRecord { id: *id, ..VolumeRecord::default() });
        Ok(Response::new(VolumeMapReply { volumes: volumes.collect(), version: 1, more: false }))
    }

    type WatchVolumeMapStream = BoxStream<VolumeMapReply>;

    async fn watch_volume_map(
        &self,
        request: Request<WatchVolumeMapRequest>,
    ) -> Result<Response<BoxStream<VolumeMapReply>>, Status> {
        self.control.enter(&request).await?;
        let changes = stream::unfold(self.versions.subscribe(), |mut versions| async move {
            let version = versions.recv().await.ok()?;
            Some((Ok(VolumeMapReply { version, ..VolumeMapReply::default() }), versions))
        });
        Ok(Response::new(changes.boxed()))
    }

    async fn cluster_status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusReply>, Status> {
        self.control.enter(&request).await?;
        let cluster = self.control.padding().into();
        Ok(Response::new(ClusterStatusReply { cluster, ready: true, ..ClusterStatusReply::default() }))
    }

    async fn repair_volume(
        &self,
        _: Request<crate::v1::RepairVolumeRequest>,
    ) -> Result<Response<crate::v1::RepairVolumeReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn change_masters(
        &self,
        _: Request<crate::v1::ChangeMastersRequest>,
    ) -> Result<Response<crate::v1::ChangeMastersReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

stage!(Stage, Core, DynMaster, RemoteMaster, serve_master);

impl Subject for Stage {
    const FRIEND: Role = Role::Gateway;
    const STRANGER: Role = Role::VolumeServer;

    fn control(&self) -> &Control {
        &self.core.control
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// `LeaseWrite` where a stranger is to be refused: everybody may ask for the status.
    async fn ping(&self, caller: Caller, timeout: Option<Duration>) -> Result<(), Status> {
        let client = self.client(caller);
        if self.core.control.padding().is_empty() {
            client.lease_write(request(LeaseWriteRequest { avoid: vec![1] }, timeout)).await.map(drop)
        } else {
            client.cluster_status(request(ClusterStatusRequest {}, timeout)).await.map(drop)
        }
    }
}

/// Reports go up and commands come down one stream, each as it comes, for as long as both sides want.
async fn heartbeats_and_watchers(stage: &Stage) {
    let server = stage.client(Caller::Role(Role::VolumeServer));
    let (reports, received) = mpsc::channel(4);
    let upwards = in_process(ReceiverStream::new(received));
    let mut commands = server.heartbeat(Request::new(upwards)).await.unwrap().into_inner();
    let gateway = stage.client(Caller::Role(Role::Gateway));
    let watching = gateway.watch_volume_map(Request::new(WatchVolumeMapRequest::default())).await.unwrap();
    let mut changes = watching.into_inner();
    for sequence in 1..=5 {
        reports.send(Ok(HeartbeatReport { sequence, ..HeartbeatReport::default() })).await.unwrap();
        let command = commands.next().await.unwrap().unwrap().command;
        assert!(matches!(command, Some(Command::Acknowledge(a)) if a.sequence == sequence));
        assert_eq!(changes.next().await.unwrap().unwrap().version, sequence);
    }
    drop(reports);
    assert!(commands.next().await.is_none(), "the server's half ends with the client's");

    let upwards = in_process(stream::pending());
    let refused = gateway.heartbeat(Request::new(upwards)).await.err().unwrap();
    assert_eq!(to_failure(&refused).code, ErrorCode::Forbidden);
}

/// All that holds for a master service.
async fn conformance(binding: Binding) {
    let stage = Arc::new(Stage::new(binding, CALLS_MAX).await);
    check(stage.clone()).await;
    let client = stage.client(Caller::Role(Role::Filer));
    let asked = VolumeMapRequest { volumes: vec![3, 5], ..VolumeMapRequest::default() };
    let volumes = client.volume_map(Request::new(asked)).await.unwrap().into_inner().volumes;
    assert_eq!(volumes.iter().map(|v| v.id).collect::<Vec<_>>(), [3, 5]);
    heartbeats_and_watchers(&stage).await;
}

#[tokio::test]
async fn master_service_conforms_on_both_bindings() {
    for binding in BINDINGS {
        conformance(binding).await;
    }
}
