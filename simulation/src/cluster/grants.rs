//! Every lease that any master grants: in one epoch a volume has the same servers, whoever says so.

use std::sync::Arc;

use hay_common::ids::{Epoch, VolumeId};
use hay_master::MasterCore;
use hay_proto::rpc::BoxStream;
use hay_proto::v1::master_server::Master;
use hay_proto::v1::{
    ChangeMastersReply, ChangeMastersRequest, ClusterStatusReply, ClusterStatusRequest, HeartbeatCommand,
    HeartbeatReport, LeaseWriteRequest, RepairVolumeReply, RepairVolumeRequest, VolumeMapReply,
    VolumeMapRequest, WatchVolumeMapRequest, WriteLease,
};
use tonic::{Request, Response, Status, Streaming};

use super::World;

/// A master whose grants are noted.
pub struct Watched {
    pub inner: Arc<MasterCore>,
    pub world: Arc<World>,
    pub name: String,
}

impl Watched {
    fn note(&self, lease: &WriteLease) {
        let mut grants = self.world.history.grants.lock();
        for leased in &lease.volumes {
            let of = (VolumeId(leased.volume), Epoch(leased.epoch));
            let first = grants.entry(of).or_insert_with(|| {
                let (name, servers) = (&self.name, &leased.replicas);
                self.world
                    .trace
                    .note(format_args!("{name} leases volume {} epoch {} on {servers:?}", of.0, of.1));
                servers.clone()
            });
            if *first != leased.replicas {
                self.world.history.violation(format_args!(
                    "volume {} was leased in epoch {} on {first:?} and by {} on {:?}",
                    of.0, of.1, self.name, leased.replicas
                ));
            }
        }
    }
}

#[tonic::async_trait]
impl Master for Watched {
    type HeartbeatStream = BoxStream<HeartbeatCommand>;
    type WatchVolumeMapStream = BoxStream<VolumeMapReply>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        self.inner.heartbeat(request).await
    }

    async fn lease_write(&self, request: Request<LeaseWriteRequest>) -> Result<Response<WriteLease>, Status> {
        let granted = Master::lease_write(self.inner.as_ref(), request).await;
        if let Ok(lease) = &granted {
            self.note(lease.get_ref());
        }
        granted
    }

    async fn volume_map(
        &self,
        request: Request<VolumeMapRequest>,
    ) -> Result<Response<VolumeMapReply>, Status> {
        self.inner.volume_map(request).await
    }

    async fn watch_volume_map(
        &self,
        request: Request<WatchVolumeMapRequest>,
    ) -> Result<Response<Self::WatchVolumeMapStream>, Status> {
        self.inner.watch_volume_map(request).await
    }

    async fn cluster_status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusReply>, Status> {
        self.inner.cluster_status(request).await
    }

    async fn repair_volume(
        &self,
        request: Request<RepairVolumeRequest>,
    ) -> Result<Response<RepairVolumeReply>, Status> {
        self.inner.repair_volume(request).await
    }

    async fn change_masters(
        &self,
        request: Request<ChangeMastersRequest>,
    ) -> Result<Response<ChangeMastersReply>, Status> {
        Master::change_masters(self.inner.as_ref(), request).await
    }
}
