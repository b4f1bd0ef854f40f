//! The volume service over the core: messages in, messages out.

mod append;
pub(crate) mod copy;
pub(crate) mod failure;
pub(crate) mod heartbeat;
mod read;
pub(crate) mod replicate;

use bytes::Bytes;
use hay_common::model::Durability;
use hay_proto::convert::WireId;
use hay_proto::rpc::{BoxStream, to_status};
use hay_proto::v1::volume_server::Volume;
use hay_proto::v1::{self, ReadPart};
use tonic::{Request, Response, Status, Streaming};

use crate::server::VolumeServer;

#[tonic::async_trait]
impl Volume for VolumeServer {
    type ReadStream = BoxStream<ReadPart>;

    async fn append_batch(
        &self,
        request: Request<v1::AppendBatchRequest>,
    ) -> Result<Response<v1::AppendBatchReply>, Status> {
        let results = self.append_items(request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(v1::AppendBatchReply { results: append_results(results) }))
    }

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendPart>>,
    ) -> Result<Response<v1::AppendReply>, Status> {
        self.append_stream(request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(v1::AppendReply {}))
    }

    async fn read_batch(
        &self,
        request: Request<v1::ReadBatchRequest>,
    ) -> Result<Response<v1::ReadBatchReply>, Status> {
        let results = self.read_items(request.into_inner().items).await.map_err(to_status)?;
        Ok(Response::new(v1::ReadBatchReply { results }))
    }

    async fn read(&self, request: Request<v1::ReadItem>) -> Result<Response<Self::ReadStream>, Status> {
        self.read_stream(request.get_ref()).await.map(Response::new).map_err(to_status)
    }

    async fn replicate_batch(
        &self,
        request: Request<v1::ReplicateBatchRequest>,
    ) -> Result<Response<v1::ReplicateBatchReply>, Status> {
        let from = replicate::sender(&request).map_err(to_status)?;
        let results = self.follow_items(from, request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(v1::ReplicateBatchReply { results: append_results(results) }))
    }

    async fn replicate(
        &self,
        request: Request<Streaming<v1::AppendPart>>,
    ) -> Result<Response<v1::ReplicateReply>, Status> {
        let from = replicate::sender(&request).map_err(to_status)?;
        let mut parts = request.into_inner();
        let stored = self.follow_stream(from, &mut parts).await;
        if stored.is_err() {
            // An answer before the end of what is sent may be lost with the stream.
            replicate::drain(&mut parts).await;
        }
        Ok(Response::new(v1::ReplicateReply { failure: stored.err().map(Into::into) }))
    }

    async fn list_needles(
        &self,
        request: Request<v1::ListNeedlesRequest>,
    ) -> Result<Response<v1::ListNeedlesReply>, Status> {
        self.list_names(request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn volume_status(
        &self,
        _: Request<v1::VolumeStatusRequest>,
    ) -> Result<Response<v1::VolumeStatusReply>, Status> {
        let ready = self.ready();
        let space = self.store.space();
        let volumes = self.replication.infos().into_iter().map(heartbeat::volume_report);
        let volumes = volumes.chain(self.store.broken().iter().map(broken_report)).collect();
        let durability = match self.store.durability() {
            Durability::Sync => "sync",
            Durability::Async => "async",
        };
        Ok(Response::new(v1::VolumeStatusReply {
            node: self.node().to_wire(),
            volumes,
            free_bytes: space.free,
            total_bytes: space.total,
            durability: durability.to_owned(),
            ready: ready.is_ok(),
            not_ready_reason: ready.err().unwrap_or_default(),
        }))
    }
}

fn append_results(results: Vec<Result<(), hay_common::error::Failure>>) -> Vec<v1::AppendResult> {
    results.into_iter().map(|result| v1::AppendResult { failure: result.err().map(Into::into) }).collect()
}

/// A volume that can't be opened shows in the status, with its reason; its class and incarnation are not known. The
/// masters do not hear of it: to them it is missing, which it is.
fn broken_report(broken: &crate::store::BrokenVolume) -> v1::VolumeReport {
    v1::VolumeReport {
        id: broken.id.0,
        class: v1::SizeClass::Small.into(),
        state: v1::VolumeState::Sealed.into(),
        read_only_reason: format!("it can't be opened: {}", broken.reason),
        incarnation: Bytes::from_static(&[0; 16]),
        ..v1::VolumeReport::default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
