use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream;
use hay_common::clock::ManualClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::VOLUMES_AVOIDED_MAX;
use hay_proto::rpc::{BoxStream, DynMaster, direct_master, to_status, with_leader};
use hay_proto::v1::master_server::Master;
use hay_proto::v1::{
    ClusterStatusReply, ClusterStatusRequest, HeartbeatCommand, HeartbeatReport, LeaseWriteRequest,
    LeasedVolume, SizeClass, VolumeMapReply, VolumeMapRequest, VolumeMember, VolumeRecord, VolumeState,
    WatchVolumeMapRequest, WriteLease,
};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status, Streaming};

/// A volume map: each volume with its servers, commas between them; even ids for small contents.
pub(crate) struct FakeMaster {
    pub volumes: Mutex<BTreeMap<u32, String>>,
    pub ttl_ms: AtomicU64,
    pub leases: AtomicUsize,
    pub fetches: AtomicUsize,
    pub watchers: AtomicUsize,
    pub failure: Mutex<Option<ErrorCode>>,
    /// Whom it names as leader with a failure.
    pub leader: Mutex<Option<String>>,
    /// It leads nobody: it grants nothing, tells of no changes, and confirms nothing, which takes for ever.
    pub is_alone: AtomicBool,
    /// Maps are never answered.
    pub hangs: AtomicBool,
    /// Of the map.
    pub version: AtomicU64,
    changes: Mutex<broadcast::Sender<u32>>,
}

impl FakeMaster {
    pub(crate) fn new(volumes: impl IntoIterator<Item = u32>) -> Arc<Self> {
        Arc::new(Self {
            volumes: Mutex::new(volumes.into_iter().map(|id| (id, "here:1".to_owned())).collect()),
            ttl_ms: AtomicU64::new(60_000),
            leases: AtomicUsize::new(0),
            fetches: AtomicUsize::new(0),
            watchers: AtomicUsize::new(0),
            failure: Mutex::default(),
            leader: Mutex::default(),
            is_alone: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            version: AtomicU64::new(1),
            changes: Mutex::new(broadcast::Sender::new(16)),
        })
    }

    pub(crate) fn served(self: &Arc<Self>) -> DynMaster {
        direct_master(self.clone(), super::guard(ManualClock::at(1)), super::gateway())
    }

    /// Puts the volume on the server `moved-{id}:1`, and says so.
    pub(crate) fn move_away(&self, id: u32) {
        self.volumes.lock().insert(id, moved(id));
        let _ = self.changes.lock().send(id);
    }

    /// Ends all watches.
    pub(crate) fn cut_watches(&self) {
        *self.changes.lock() = broadcast::Sender::new(16);
    }

    fn may(&self) -> Result<(), Status> {
        let Some(code) = *self.failure.lock() else { return Ok(()) };
        let status = to_status(Failure::new(code, "as told"));
        Err(match &*self.leader.lock() {
            Some(leader) => with_leader(status, leader),
            None => status,
        })
    }

    fn leads(&self) -> Result<(), Status> {
        self.may()?;
        match self.is_alone.load(Ordering::SeqCst) {
            true => Err(to_status(Failure::new(ErrorCode::NotLeader, "no majority answers"))),
            false => Ok(()),
        }
    }

    fn reply(&self, ids: impl Iterator<Item = u32>) -> VolumeMapReply {
        let volumes = self.volumes.lock();
        let records = ids.filter_map(|id| volumes.get(&id).map(|address| record(id, address)));
        let version = self.version.load(Ordering::SeqCst);
        VolumeMapReply { volumes: records.collect(), version, more: false }
    }
}

fn moved(id: u32) -> String {
    format!("moved-{id}:1")
}

fn class(id: u32) -> SizeClass {
    if id.is_multiple_of(2) { SizeClass::Small } else { SizeClass::Large }
}

fn record(id: u32, address: &str) -> VolumeRecord {
    let member = VolumeMember {
        node: vec![1; 16].into(),
        address: address.to_owned(),
        alive: true,
        ..VolumeMember::default()
    };
    let filling = VolumeMember { address: "filling:1".into(), filling: true, ..member.clone() };
    let silent = VolumeMember { address: "silent:1".into(), alive: false, ..member.clone() };
    VolumeRecord {
        id,
        class: class(id).into(),
        state: VolumeState::Writable.into(),
        members: vec![silent, filling, member],
        ..VolumeRecord::default()
    }
}

#[tonic::async_trait]
impl Master for FakeMaster {
    type HeartbeatStream = BoxStream<HeartbeatCommand>;

    async fn heartbeat(
        &self,
        _: Request<Streaming<HeartbeatReport>>,
    ) -> Result<Response<BoxStream<HeartbeatCommand>>, Status> {
        Err(Status::unimplemented("nobody reports to this one"))
    }

    async fn lease_write(&self, request: Request<LeaseWriteRequest>) -> Result<Response<WriteLease>, Status> {
        self.leases.fetch_add(1, Ordering::SeqCst);
        self.leads()?;
        let avoid = &request.get_ref().avoid;
        assert!(avoid.len() <= VOLUMES_AVOIDED_MAX);
        let volumes = self.volumes.lock();
        let leased = volumes.iter().filter(|(id, _)| !avoid.contains(id)).map(|(id, address)| LeasedVolume {
            volume: *id,
            epoch: 1,
            class: class(*id).into(),
            replicas: address.split(',').map(str::to_owned).collect(),
        });
        let reply = WriteLease {
            volumes: leased.collect(),
            token: "lease".into(),
            ttl_ms: self.ttl_ms.load(Ordering::SeqCst),
        };
        Ok(Response::new(reply))
    }

    async fn volume_map(
        &self,
        request: Request<VolumeMapRequest>,
    ) -> Result<Response<VolumeMapReply>, Status> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.may()?;
        tokio::task::yield_now().await;
        let request = request.into_inner();
        let waits_for_others = self.is_alone.load(Ordering::SeqCst) && !request.as_it_stands;
        if waits_for_others || self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if request.volumes.is_empty() {
            let all: Vec<_> = self.volumes.lock().keys().copied().collect();
            let page = all.into_iter().filter(|id| *id > request.after).take(request.limit as usize);
            return Ok(Response::new(self.reply(page)));
        }
        Ok(Response::new(self.reply(request.volumes.into_iter())))
    }

    type WatchVolumeMapStream = BoxStream<VolumeMapReply>;

    async fn watch_volume_map(
        &self,
        _: Request<WatchVolumeMapRequest>,
    ) -> Result<Response<BoxStream<VolumeMapReply>>, Status> {
        self.leads()?;
        let changes = self.changes.lock().subscribe();
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let changes = stream::unfold(changes, |mut changes| async move {
            let id = changes.recv().await.ok()?;
            let reply =
                VolumeMapReply { volumes: vec![record(id, &moved(id))], version: u64::from(id), more: false };
            Some((Ok(reply), changes))
        });
        Ok(Response::new(changes.boxed()))
    }

    async fn cluster_status(
        &self,
        _: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusReply>, Status> {
        self.may()?;
        let reply =
            ClusterStatusReply { cluster: vec![1; 16].into(), ready: true, ..ClusterStatusReply::default() };
        Ok(Response::new(reply))
    }

    async fn repair_volume(
        &self,
        _: Request<hay_proto::v1::RepairVolumeRequest>,
    ) -> Result<Response<hay_proto::v1::RepairVolumeReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn change_masters(
        &self,
        _: Request<hay_proto::v1::ChangeMastersRequest>,
    ) -> Result<Response<hay_proto::v1::ChangeMastersReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}
