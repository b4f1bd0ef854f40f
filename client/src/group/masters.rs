//! The masters of a cluster as one.

use std::sync::Arc;

use hay_common::clock::SharedClock;
use hay_common::limits::RAFT_CHANGE_TIMEOUT;
use hay_common::random::SharedRandom;
use hay_proto::rpc::{BoxStream, Credentials, DynMaster, remote_master};
use hay_proto::v1::master_server::Master;
use hay_proto::v1::{
    ChangeMastersReply, ChangeMastersRequest, ClusterStatusReply, ClusterStatusRequest, HeartbeatCommand,
    HeartbeatReport, LeaseWriteRequest, RepairVolumeReply, RepairVolumeRequest, VolumeMapReply,
    VolumeMapRequest, WatchVolumeMapRequest, WriteLease,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Group, Members};

type AnyMaster = dyn Master<HeartbeatStream = BoxStream<HeartbeatCommand>, WatchVolumeMapStream = BoxStream<VolumeMapReply>>;

/// The masters among `members` that lead, whichever they are.
pub fn masters(
    members: Members,
    credentials: &Credentials,
    clock: SharedClock,
    random: SharedRandom,
) -> DynMaster {
    let credentials = credentials.clone();
    let serve = move |channels| -> Arc<AnyMaster> { remote_master(channels, credentials.clone()) };
    Arc::new(Masters(members.into_group(serve, clock, random)))
}

pub(super) struct Masters(pub(super) Group<AnyMaster>);

#[tonic::async_trait]
impl Master for Masters {
    type HeartbeatStream = BoxStream<HeartbeatCommand>;
    type WatchVolumeMapStream = BoxStream<VolumeMapReply>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        self.0.ask_once(|master| master.heartbeat(request)).await
    }

    async fn lease_write(&self, request: Request<LeaseWriteRequest>) -> Result<Response<WriteLease>, Status> {
        self.0.ask_round(request, |master, request| master.lease_write(request)).await
    }

    async fn volume_map(
        &self,
        request: Request<VolumeMapRequest>,
    ) -> Result<Response<VolumeMapReply>, Status> {
        if request.get_ref().as_it_stands {
            // Who is asked need not lead, and who can't answer must not be waited for.
            return self.0.ask_any(request, |master, request| master.volume_map(request)).await;
        }
        self.0.ask(request, |master, request| master.volume_map(request)).await
    }

    async fn watch_volume_map(
        &self,
        request: Request<WatchVolumeMapRequest>,
    ) -> Result<Response<Self::WatchVolumeMapStream>, Status> {
        // Who watches tries again by itself.
        self.0.ask_once(|master| master.watch_volume_map(request)).await
    }

    async fn cluster_status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusReply>, Status> {
        self.0.ask_round(request, |master, request| master.cluster_status(request)).await
    }

    async fn repair_volume(
        &self,
        request: Request<RepairVolumeRequest>,
    ) -> Result<Response<RepairVolumeReply>, Status> {
        // Asked for again, it names the repair that is under way.
        self.0.ask_round(request, |master, request| master.repair_volume(request)).await
    }

    async fn change_masters(
        &self,
        request: Request<ChangeMastersRequest>,
    ) -> Result<Response<ChangeMastersReply>, Status> {
        self.0
            .ask_round_within(RAFT_CHANGE_TIMEOUT, request, |master, request| master.change_masters(request))
            .await
    }
}
