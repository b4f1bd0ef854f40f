//! The links between servers, and from the writers (the last number) to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hay_client::Peers;
use hay_common::clock::SystemClock;
use hay_common::ids::NodeId;
use hay_proto::rpc::{BoxStream, DynVolume, Guard, Peer, Role, direct_volume};
use hay_proto::v1::volume_server::Volume;
use hay_proto::v1::{self, ReadPart};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::{address, key};
use crate::VolumeServer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Refused before it arrives.
    Cut,
    /// It happens, and the answer is lost.
    Unheard,
    /// It happens later.
    Slow(Duration),
}

pub(super) struct Links {
    count: usize,
    cores: Mutex<Vec<Option<Arc<VolumeServer>>>>,
    fates: Mutex<HashMap<(usize, usize), Fate>>,
    /// Batches from server to server.
    pub batches: AtomicUsize,
    /// The same for each receiver.
    sent: Mutex<Vec<usize>>,
}

impl Links {
    pub fn between(count: usize) -> Arc<Self> {
        Arc::new(Self {
            count,
            cores: Mutex::new(vec![None; count]),
            fates: Mutex::default(),
            batches: AtomicUsize::new(0),
            sent: Mutex::new(vec![0; count]),
        })
    }

    pub fn place(&self, n: usize, core: Option<Arc<VolumeServer>>) {
        self.cores.lock()[n] = core;
    }

    pub fn core(&self, n: usize) -> Option<Arc<VolumeServer>> {
        self.cores.lock()[n].clone()
    }

    /// Batches from other servers to this one.
    pub fn sent_to(&self, n: usize) -> usize {
        self.sent.lock()[n]
    }

    pub fn set(&self, from: usize, to: usize, fate: Fate) {
        self.fates.lock().insert((from, to), fate);
    }

    pub fn heal(&self) {
        self.fates.lock().clear();
    }

    /// The other servers, as server `from` sees them.
    pub fn peers(self: &Arc<Self>, from: usize, node: NodeId) -> Peers {
        let peers = Peers::new(None);
        let guard = Arc::new(Guard::new(&key(), SystemClock::shared()));
        for to in (0..self.count).filter(|to| *to != from) {
            let peer = Peer { role: Role::VolumeServer, node };
            peers.register(&address(to), direct_volume(self.behind(from, to), guard.clone(), peer));
        }
        peers
    }

    pub fn behind(self: &Arc<Self>, from: usize, to: usize) -> Arc<Link> {
        Arc::new(Link { links: self.clone(), from, to })
    }
}

/// A server at the other end of a link.
pub(super) struct Link {
    links: Arc<Links>,
    from: usize,
    to: usize,
}

impl Link {
    async fn carry<R, F: Future<Output = Result<R, Status>>>(
        &self,
        call: impl FnOnce(Arc<VolumeServer>) -> F,
    ) -> Result<R, Status> {
        let fate = self.links.fates.lock().get(&(self.from, self.to)).copied();
        let away = || Status::unavailable("the test has cut this link");
        if let Some(Fate::Slow(by)) = fate {
            tokio::time::sleep(by).await;
        }
        let core = self.links.core(self.to).filter(|_| fate != Some(Fate::Cut)).ok_or_else(away)?;
        let reply = call(core).await;
        if fate == Some(Fate::Unheard) { Err(away()) } else { reply }
    }
}

pub(super) type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Volume for Link {
    type ReadStream = BoxStream<ReadPart>;

    async fn append_batch(&self, ask: Request<v1::AppendBatchRequest>) -> Answer<v1::AppendBatchReply> {
        self.carry(|core| async move { core.append_batch(ask).await }).await
    }

    async fn append(&self, ask: Request<Streaming<v1::AppendPart>>) -> Answer<v1::AppendReply> {
        self.carry(|core| async move { core.append(ask).await }).await
    }

    async fn read_batch(&self, ask: Request<v1::ReadBatchRequest>) -> Answer<v1::ReadBatchReply> {
        self.carry(|core| async move { core.read_batch(ask).await }).await
    }

    async fn read(&self, ask: Request<v1::ReadItem>) -> Answer<Self::ReadStream> {
        self.carry(|core| async move { core.read(ask).await }).await
    }

    async fn replicate_batch(
        &self,
        ask: Request<v1::ReplicateBatchRequest>,
    ) -> Answer<v1::ReplicateBatchReply> {
        self.links.sent.lock()[self.to] += 1;
        self.links.batches.fetch_add(1, Ordering::SeqCst);
        self.carry(|core| async move { core.replicate_batch(ask).await }).await
    }

    async fn replicate(&self, ask: Request<Streaming<v1::AppendPart>>) -> Answer<v1::ReplicateReply> {
        self.carry(|core| async move { core.replicate(ask).await }).await
    }

    async fn list_needles(&self, ask: Request<v1::ListNeedlesRequest>) -> Answer<v1::ListNeedlesReply> {
        self.carry(|core| async move { core.list_needles(ask).await }).await
    }

    async fn volume_status(&self, ask: Request<v1::VolumeStatusRequest>) -> Answer<v1::VolumeStatusReply> {
        self.carry(|core| async move { core.volume_status(ask).await }).await
    }
}

/// That a link is a volume server like any.
const _: fn(Arc<Link>) -> DynVolume = |link| link;
