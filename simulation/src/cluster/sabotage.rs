//! Rules broken on purpose: a simulation that does not find these finds nothing.

use std::sync::Arc;

use hay_proto::rpc::{BoxStream, DynVolume};
use hay_proto::v1::volume_server::Volume;
use hay_proto::v1::{
    AppendBatchReply, AppendBatchRequest, AppendPart, AppendReply, AppendResult, ListNeedlesReply,
    ListNeedlesRequest, ReadBatchReply, ReadBatchRequest, ReadItem, ReadPart, ReplicateBatchReply,
    ReplicateBatchRequest, ReplicateReply, VolumeStatusReply, VolumeStatusRequest,
};
use hay_volume_server::VolumeServer;
use tonic::{Request, Response, Status, Streaming};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A replica says that it has stored what it has refused: what comes in an epoch that is over, too.
    Yielding,
    /// A replica says at once that it has stored a batch, and stores it only then: if nothing comes in between.
    Hasty,
    /// The disks of the volume servers say that they have synced, and have not.
    LyingServers,
    /// The disks of the masters do.
    LyingMasters,
}

impl Sabotage {
    pub const ALL: [(&str, Self); 4] = [
        ("yielding", Self::Yielding),
        ("hasty", Self::Hasty),
        ("lying-servers", Self::LyingServers),
        ("lying-masters", Self::LyingMasters),
    ];

    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|(known, _)| *known == name).expect("a sabotage of that name").1
    }

    /// The service of a volume server, with what is broken in it.
    pub fn of_server(self, core: Arc<VolumeServer>) -> DynVolume {
        match self {
            Self::Yielding | Self::Hasty => Arc::new(Broken { inner: core, how: self }),
            Self::LyingServers | Self::LyingMasters => core,
        }
    }
}

struct Broken {
    inner: Arc<VolumeServer>,
    how: Sabotage,
}

#[tonic::async_trait]
impl Volume for Broken {
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
        let results = vec![AppendResult { failure: None }; request.get_ref().items.len()];
        let all_is_well = Ok(Response::new(ReplicateBatchReply { results }));
        if self.how == Sabotage::Yielding {
            let _ = self.inner.replicate_batch(request).await;
        } else {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                let _ = inner.replicate_batch(request).await;
            });
        }
        all_is_well
    }

    async fn replicate(
        &self,
        request: Request<Streaming<AppendPart>>,
    ) -> Result<Response<ReplicateReply>, Status> {
        self.inner.replicate(request).await
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
