//! Inner services that fail on demand, in ways that real processes can't be made to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::MIB;
use hay_proto::rpc::{BoxStream, to_status};
use hay_proto::v1::command::Op;
use hay_proto::v1::filer_server::Filer;
use hay_proto::v1::master_server::Master;
use hay_proto::v1::put_file::Content;
use hay_proto::v1::volume_server::Volume;
use hay_proto::v1::{self, SizeClass, VolumeState};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status, Streaming};

use crate::memory::gauge::BufferGauge;

type Answer<T> = Result<Response<T>, Status>;

/// What the services hold and what they are to say next.
#[derive(Default)]
pub(super) struct World {
    /// (volume, cookie) → bytes.
    pub(super) needles: BTreeMap<(u32, u32), Bytes>,
    /// path → content as it was committed.
    pub(super) files: BTreeMap<Vec<u8>, Content>,
    /// manifest → references in their order.
    pub(super) manifests: BTreeMap<Vec<u8>, Vec<v1::ChunkRef>>,
    pub(super) abandoned: Vec<Vec<u8>>,
    /// What the gateway held in buffers whenever a manifest was given up, if it is to be looked at.
    pub(super) held_at_abandon: Vec<u64>,
    pub(super) buffers: Option<BufferGauge>,
    /// Hashes that the tenant is said to own.
    pub(super) owned: Vec<Vec<u8>>,
    pub(super) append_failures: VecDeque<ErrorCode>,
    pub(super) commit_failures: VecDeque<ErrorCode>,
    pub(super) read_failures: VecDeque<ErrorCode>,
    pub(super) calls: Vec<&'static str>,
    /// Whether the caller is the administrator.
    pub(super) administrator: bool,
    /// What the filer says of itself; nothing, it does not say.
    pub(super) filer_status: Option<v1::FilerStatusReply>,
}

#[derive(Clone, Default)]
pub(super) struct Inner(pub(super) Arc<Mutex<World>>);

fn failure(code: ErrorCode) -> Failure {
    Failure::new(code, "as the test wants it")
}

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("no test asks for it"))
}

fn good_token() -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(b"t"))
}

impl Inner {
    fn commit(&self, op: Op) -> v1::Outcome {
        let mut world = self.0.lock();
        world.calls.push(match &op {
            Op::PutFile(_) => "put",
            Op::AddReferences(_) => "add",
            Op::AbandonManifest(_) => "abandon",
            Op::ReportDamaged(_) => "report",
            _ => "other",
        });
        if let Op::AbandonManifest(abandon) = &op {
            world.abandoned.push(abandon.manifest.to_vec());
            let held = world.buffers.as_ref().map(BufferGauge::held);
            world.held_at_abandon.extend(held);
            return v1::Outcome::default();
        }
        if let Some(code) = world.commit_failures.pop_front() {
            return v1::Outcome { failure: Some(failure(code).into()), ..Default::default() };
        }
        match op {
            Op::PutFile(put) => {
                let content = put.content.clone().expect("a commit names its content");
                let entry = entry(&put, &content);
                let created = world.files.insert(put.path.to_vec(), content).is_none();
                v1::Outcome { entry: Some(entry), created, ..Default::default() }
            }
            Op::AddReferences(add) => {
                let references = world.manifests.entry(add.manifest.to_vec()).or_default();
                assert_eq!(references.len(), add.first_number as usize, "references come in order");
                let offset: u64 = references.iter().map(|r| u64::from(r.chunk.as_ref().unwrap().size)).sum();
                assert_eq!(offset, add.first_offset);
                references.extend(add.chunks);
                v1::Outcome::default()
            }
            _ => v1::Outcome::default(),
        }
    }
}

fn entry(put: &v1::PutFile, content: &Content) -> v1::Entry {
    let (size, hash, manifest, chunk_count) = match content {
        Content::Empty(_) => (0, Bytes::from_static(&[0; 32]), Bytes::new(), 0),
        Content::Chunk(chunk) => {
            let chunk = chunk.chunk.clone().unwrap();
            (u64::from(chunk.size), chunk.hash, Bytes::new(), 1)
        }
        Content::Manifest(m) => (m.size, m.root_hash.clone(), m.id.clone(), m.chunk_count),
    };
    v1::Entry {
        id: put.entry_id.clone(),
        path: put.path.clone(),
        kind: v1::EntryKind::File.into(),
        size,
        content_hash: hash,
        modified_ms: 1,
        manifest,
        chunk_count,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Filer for Inner {
    async fn whoami(&self, request: Request<v1::WhoamiRequest>) -> Answer<v1::WhoamiReply> {
        self.0.lock().calls.push("whoami");
        if request.get_ref().caller.as_ref().is_none_or(|c| c.token_hash != good_token()) {
            return Err(to_status(failure(ErrorCode::Unauthenticated)));
        }
        let id = Bytes::from_static(&[2; 16]);
        let administrator = self.0.lock().administrator;
        Ok(Response::new(v1::WhoamiReply {
            principal: id.clone(),
            tenant: id,
            administrator,
            ..Default::default()
        }))
    }
    async fn begin(&self, _: Request<v1::BeginRequest>) -> Answer<v1::BeginReply> {
        self.0.lock().calls.push("begin");
        Ok(Response::new(v1::BeginReply { tenant: Bytes::from_static(&[1; 16]), finished: None }))
    }
    async fn commit_batch(&self, request: Request<v1::CommitBatchRequest>) -> Answer<v1::CommitBatchReply> {
        let commands = request.into_inner().commands;
        let outcomes = commands.into_iter().map(|c| self.commit(c.op.unwrap())).collect();
        Ok(Response::new(v1::CommitBatchReply { outcomes }))
    }
    async fn resolve_batch(&self, _: Request<v1::ResolveBatchRequest>) -> Answer<v1::ResolveBatchReply> {
        not_here()
    }
    async fn read_manifest(&self, _: Request<v1::ReadManifestRequest>) -> Answer<v1::ReadManifestReply> {
        not_here()
    }
    async fn find_own(&self, request: Request<v1::FindOwnRequest>) -> Answer<v1::FindOwnReply> {
        let world = self.0.lock();
        let owned = request.into_inner().hashes.iter().map(|h| world.owned.contains(&h.to_vec())).collect();
        Ok(Response::new(v1::FindOwnReply { owned }))
    }
    async fn list(&self, _: Request<v1::ListRequest>) -> Answer<v1::ListReply> {
        not_here()
    }
    async fn open_sessions(&self, _: Request<v1::OpenSessionsRequest>) -> Answer<v1::OpenSessionsReply> {
        Ok(Response::new(v1::OpenSessionsReply { ttl_ms: 3_600_000 }))
    }
    async fn filer_status(&self, _: Request<v1::FilerStatusRequest>) -> Answer<v1::FilerStatusReply> {
        self.0.lock().filer_status.clone().map_or_else(not_here, |status| Ok(Response::new(status)))
    }
}

#[tonic::async_trait]
impl Volume for Inner {
    type ReadStream = BoxStream<v1::ReadPart>;

    async fn append_batch(&self, request: Request<v1::AppendBatchRequest>) -> Answer<v1::AppendBatchReply> {
        let mut world = self.0.lock();
        let mut results = Vec::new();
        for item in request.into_inner().items {
            world.calls.push("append");
            let failure = world.append_failures.pop_front().map(|code| failure(code).into());
            if failure.is_none() {
                world.needles.insert((item.volume, item.cookie), item.data);
            }
            results.push(v1::AppendResult { failure });
        }
        Ok(Response::new(v1::AppendBatchReply { results }))
    }
    async fn append(&self, _: Request<Streaming<v1::AppendPart>>) -> Answer<v1::AppendReply> {
        not_here()
    }
    async fn read_batch(&self, request: Request<v1::ReadBatchRequest>) -> Answer<v1::ReadBatchReply> {
        let mut world = self.0.lock();
        if let Some(code) = world.read_failures.pop_front() {
            return Err(to_status(failure(code)));
        }
        let read = |item: &v1::ReadItem| {
            let (from, length) = (item.offset as usize, item.length as usize);
            let data = world.needles.get(&(item.volume, item.cookie)).unwrap().slice(from..from + length);
            v1::ReadResult { data, codec: 0, failure: None, crc32c: None }
        };
        let results = request.get_ref().items.iter().map(read).collect();
        Ok(Response::new(v1::ReadBatchReply { results }))
    }
    async fn read(&self, request: Request<v1::ReadItem>) -> Answer<Self::ReadStream> {
        let mut world = self.0.lock();
        world.calls.push("read");
        let item = request.into_inner();
        let range = item.offset as usize..(item.offset + item.length) as usize;
        let data = world.needles.get(&(item.volume, item.cookie)).unwrap().slice(range);
        let parts: Vec<_> = data
            .chunks(MIB)
            .map(|p| Ok(v1::ReadPart { data: data.slice_ref(p), ..Default::default() }))
            .collect();
        Ok(Response::new(Box::pin(stream::iter(parts))))
    }
    async fn volume_status(&self, _: Request<v1::VolumeStatusRequest>) -> Answer<v1::VolumeStatusReply> {
        not_here()
    }

    async fn replicate_batch(
        &self,
        _: Request<v1::ReplicateBatchRequest>,
    ) -> Result<Response<v1::ReplicateBatchReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn replicate(
        &self,
        _: Request<Streaming<v1::AppendPart>>,
    ) -> Result<Response<v1::ReplicateReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn list_needles(
        &self,
        _: Request<v1::ListNeedlesRequest>,
    ) -> Result<Response<v1::ListNeedlesReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

/// Where the one volume server is.
pub(super) const ADDRESS: &str = "in-process";

#[tonic::async_trait]
impl Master for Inner {
    type HeartbeatStream = BoxStream<v1::HeartbeatCommand>;
    type WatchVolumeMapStream = BoxStream<v1::VolumeMapReply>;

    async fn heartbeat(&self, _: Request<Streaming<v1::HeartbeatReport>>) -> Answer<Self::HeartbeatStream> {
        not_here()
    }
    async fn lease_write(&self, request: Request<v1::LeaseWriteRequest>) -> Answer<v1::WriteLease> {
        let avoid = request.into_inner().avoid;
        let volume = |volume: u32, class: SizeClass| v1::LeasedVolume {
            volume,
            epoch: 1,
            class: class.into(),
            replicas: vec![ADDRESS.into()],
        };
        let class = |n: u32| if n.is_multiple_of(2) { SizeClass::Small } else { SizeClass::Large };
        let volumes = (1..).filter(|n| !avoid.contains(n)).take(8).map(|n| volume(n, class(n))).collect();
        Ok(Response::new(v1::WriteLease { volumes, token: Bytes::from_static(b"lease"), ttl_ms: 60_000 }))
    }
    async fn volume_map(&self, request: Request<v1::VolumeMapRequest>) -> Answer<v1::VolumeMapReply> {
        let record = |id: u32| v1::VolumeRecord {
            id,
            epoch: 1,
            class: SizeClass::Small.into(),
            state: VolumeState::Writable.into(),
            members: vec![v1::VolumeMember {
                node: Bytes::from_static(&[1; 16]),
                address: ADDRESS.into(),
                alive: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        let after = request.get_ref().after;
        let volumes = (after + 1..after + 10).map(record).collect();
        Ok(Response::new(v1::VolumeMapReply { volumes, version: 1, more: false }))
    }
    async fn watch_volume_map(
        &self,
        _: Request<v1::WatchVolumeMapRequest>,
    ) -> Answer<Self::WatchVolumeMapStream> {
        Ok(Response::new(Box::pin(stream::pending())))
    }
    async fn cluster_status(&self, _: Request<v1::ClusterStatusRequest>) -> Answer<v1::ClusterStatusReply> {
        not_here()
    }

    async fn repair_volume(
        &self,
        _: Request<v1::RepairVolumeRequest>,
    ) -> Result<Response<v1::RepairVolumeReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn change_masters(
        &self,
        _: Request<v1::ChangeMastersRequest>,
    ) -> Result<Response<v1::ChangeMastersReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

const _: () = assert!(MIB > 300_000, "the chunks of these tests go as one message");
