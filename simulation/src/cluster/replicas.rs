//! What volume servers answer to one another: counted, and where a rule is broken on purpose, changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, stream};
use hay_common::error::ErrorCode;
use hay_proto::rpc::{BoxStream, in_process};
use hay_proto::v1::volume_server::Volume;
use hay_proto::v1::{
    AppendBatchReply, AppendBatchRequest, AppendPart, AppendReply, AppendResult, Failure, ListNeedlesReply,
    ListNeedlesRequest, ReadBatchReply, ReadBatchRequest, ReadItem, ReadPart, ReplicateBatchReply,
    ReplicateBatchRequest, ReplicateReply, VolumeStatusReply, VolumeStatusRequest,
};
use hay_volume_server::VolumeServer;
use tonic::{Request, Response, Status, Streaming};

use super::World;
use super::sabotage::Sabotage;

/// So much later a hasty replica stores what it has acknowledged.
const HASTE: Duration = Duration::from_millis(200);

/// A volume server whose answers to others are seen.
pub struct Watched {
    pub inner: Arc<VolumeServer>,
    pub world: Arc<World>,
}

/// Whether a replica refuses because the volume is sealed there, or in a later epoch.
fn is_fenced(failure: &Failure) -> bool {
    match ErrorCode::parse(&failure.code) {
        Some(ErrorCode::StaleEpoch) => true,
        Some(ErrorCode::VolumeNotWritable) => failure.message.ends_with("is sealed"),
        _ => false,
    }
}

impl Watched {
    /// What is said in the place of `refusal`.
    fn seen(&self, refusal: Option<Failure>) -> Option<Failure> {
        if !refusal.as_ref().is_some_and(is_fenced) {
            return refusal;
        }
        self.world.history.fenced.fetch_add(1, Ordering::Relaxed);
        if self.world.sabotage == Some(Sabotage::Yielding) { None } else { refusal }
    }

    fn is_hasty(&self) -> bool {
        self.world.sabotage == Some(Sabotage::Hasty)
    }
}

#[tonic::async_trait]
impl Volume for Watched {
    type ReadStream = BoxStream<ReadPart>;

    async fn append_batch(
        &self,
        request: Request<AppendBatchRequest>,
    ) -> Result<Response<AppendBatchReply>, Status> {
        self.inner.append_batch(request).await
    }

    async fn append(&self, request: Request<Streaming<AppendPart>>) -> Result<Response<AppendReply>, Status> {
        self.inner.append(request).await
    }

    async fn read_batch(
        &self,
        request: Request<ReadBatchRequest>,
    ) -> Result<Response<ReadBatchReply>, Status> {
        self.inner.read_batch(request).await
    }

    async fn read(&self, request: Request<ReadItem>) -> Result<Response<Self::ReadStream>, Status> {
        self.inner.read(request).await
    }

    async fn replicate_batch(
        &self,
        request: Request<ReplicateBatchRequest>,
    ) -> Result<Response<ReplicateBatchReply>, Status> {
        if self.is_hasty() {
            let results = vec![AppendResult { failure: None }; request.get_ref().items.len()];
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HASTE).await;
                let _ = inner.replicate_batch(request).await;
            });
            return Ok(Response::new(ReplicateBatchReply { results }));
        }
        let mut reply = self.inner.replicate_batch(request).await?;
        for result in &mut reply.get_mut().results {
            result.failure = self.seen(result.failure.take());
        }
        Ok(reply)
    }

    async fn replicate(
        &self,
        request: Request<Streaming<AppendPart>>,
    ) -> Result<Response<ReplicateReply>, Status> {
        if self.is_hasty() {
            let (metadata, extensions, mut parts) = request.into_parts();
            let mut all = Vec::new();
            while let Some(part) = parts.next().await {
                all.push(part?);
            }
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HASTE).await;
                let parts = in_process(stream::iter(all.into_iter().map(Ok)));
                let _ = inner.replicate(Request::from_parts(metadata, extensions, parts)).await;
            });
            return Ok(Response::new(ReplicateReply { failure: None }));
        }
        let mut reply = self.inner.replicate(request).await?;
        let refusal = reply.get_mut().failure.take();
        reply.get_mut().failure = self.seen(refusal);
        Ok(reply)
    }

    async fn list_needles(
        &self,
        request: Request<ListNeedlesRequest>,
    ) -> Result<Response<ListNeedlesReply>, Status> {
        self.inner.list_needles(request).await
    }

    async fn volume_status(
        &self,
        request: Request<VolumeStatusRequest>,
    ) -> Result<Response<VolumeStatusReply>, Status> {
        self.inner.volume_status(request).await
    }
}
