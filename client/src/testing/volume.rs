use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hay_common::clock::ManualClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::RPC_BULK_PART_BYTES;
use hay_proto::rpc::{BoxStream, DynVolume, direct_volume, to_status};
use hay_proto::v1::append_part::Part;
use hay_proto::v1::volume_server::Volume;
use hay_proto::v1::{
    AppendBatchReply, AppendBatchRequest, AppendPart, AppendReply, AppendResult, ReadBatchReply,
    ReadBatchRequest, ReadItem, ReadPart, ReadResult, VolumeStatusReply, VolumeStatusRequest,
};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

/// (volume, key, cookie)
type Name = (u32, Bytes, u32);

/// Needles in memory.
#[derive(Default)]
pub(crate) struct FakeVolume {
    pub needles: Mutex<HashMap<Name, Bytes>>,
    /// Sizes of the parts of the last streamed append.
    pub parts: Mutex<Vec<usize>>,
    pub unary: AtomicUsize,
    pub streamed: AtomicUsize,
    /// What every read answers.
    pub read_failure: Mutex<Option<ErrorCode>>,
    /// Calls wait as long as this is so.
    pub hangs: AtomicBool,
    /// Streams of parts fail after so many of them, where it is not 0.
    pub breaks_after: AtomicUsize,
    /// Bytes that reads leave out at their end.
    pub short_by: AtomicUsize,
}

impl FakeVolume {
    pub(crate) fn served(self: &Arc<Self>) -> DynVolume {
        direct_volume(self.clone(), super::guard(ManualClock::at(1)), super::gateway())
    }

    async fn answers(&self) {
        while self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn store(&self, name: Name, data: Bytes) -> Option<Failure> {
        let present = self.needles.lock().insert(name, data).is_some();
        present.then(|| Failure::new(ErrorCode::NeedleExists, "it is there"))
    }

    fn find(&self, item: &ReadItem) -> Result<Bytes, Failure> {
        if let Some(code) = *self.read_failure.lock() {
            return Err(Failure::new(code, "as told"));
        }
        let needles = self.needles.lock();
        let data = needles
            .get(&(item.volume, item.key.clone(), item.cookie))
            .ok_or_else(|| Failure::new(ErrorCode::NotFound, "no such needle"))?;
        let (from, to) = (item.offset as usize, (item.offset + item.length) as usize);
        Ok(data.slice(from..to - self.short_by.load(Ordering::SeqCst)))
    }
}

#[tonic::async_trait]
impl Volume for FakeVolume {
    async fn append_batch(
        &self,
        request: Request<AppendBatchRequest>,
    ) -> Result<Response<AppendBatchReply>, Status> {
        self.unary.fetch_add(1, Ordering::SeqCst);
        self.answers().await;
        let request = request.into_inner();
        assert_eq!(request.lease, "lease");
        let results = request.items.into_iter().map(|item| AppendResult {
            failure: self.store((item.volume, item.key, item.cookie), item.data).map(Into::into),
        });
        Ok(Response::new(AppendBatchReply { results: results.collect() }))
    }

    async fn append(&self, request: Request<Streaming<AppendPart>>) -> Result<Response<AppendReply>, Status> {
        self.streamed.fetch_add(1, Ordering::SeqCst);
        let mut parts = request.into_inner();
        let Some(Part::Head(head)) = parts.message().await?.and_then(|part| part.part) else {
            return Err(Status::invalid_argument("no head"));
        };
        assert_eq!(head.lease, "lease");
        let (mut data, mut sizes) = (BytesMut::new(), Vec::new());
        loop {
            match parts.message().await?.and_then(|part| part.part) {
                Some(Part::Data(part)) => {
                    sizes.push(part.len());
                    data.extend_from_slice(&part);
                }
                Some(Part::End(end)) => {
                    assert_eq!((end.length, end.crc32c), (head.length, crc32c::crc32c(&data)));
                    assert_eq!(data.len(), head.length as usize);
                    *self.parts.lock() = sizes;
                    let failure = self.store((head.volume, head.key, head.cookie), data.freeze());
                    return failure.map_or(Ok(Response::new(AppendReply {})), |f| Err(to_status(f)));
                }
                Some(Part::Head(_)) | None => return Err(Status::aborted("cut")),
            }
        }
    }

    async fn read_batch(
        &self,
        request: Request<ReadBatchRequest>,
    ) -> Result<Response<ReadBatchReply>, Status> {
        self.unary.fetch_add(1, Ordering::SeqCst);
        self.answers().await;
        // A real server has room for an inner message, less what it takes for itself; a client must not count on it.
        let long = request.get_ref().items.iter().any(|item| item.length as usize > RPC_BULK_PART_BYTES);
        if long {
            return Err(to_status(Failure::new(ErrorCode::TooLarge, "ask by Read")));
        }
        let results = request.get_ref().items.iter().map(|item| match self.find(item) {
            Ok(data) => ReadResult { data, ..ReadResult::default() },
            Err(failure) => ReadResult { failure: Some(failure.into()), ..ReadResult::default() },
        });
        Ok(Response::new(ReadBatchReply { results: results.collect() }))
    }

    type ReadStream = BoxStream<ReadPart>;

    async fn read(&self, request: Request<ReadItem>) -> Result<Response<BoxStream<ReadPart>>, Status> {
        self.streamed.fetch_add(1, Ordering::SeqCst);
        self.answers().await;
        let mut data = self.find(request.get_ref()).map_err(to_status)?;
        let breaks_after = self.breaks_after.load(Ordering::SeqCst);
        let parts = std::iter::from_fn(move || {
            let part = data.split_to(data.len().min(1 << 20));
            (!part.is_empty()).then_some(Ok(ReadPart { data: part, ..ReadPart::default() }))
        });
        if breaks_after > 0 {
            let broken = [Err(Status::unavailable("as told"))];
            return Ok(Response::new(futures::stream::iter(parts.take(breaks_after).chain(broken)).boxed()));
        }
        Ok(Response::new(futures::stream::iter(parts).boxed()))
    }

    async fn volume_status(
        &self,
        _: Request<VolumeStatusRequest>,
    ) -> Result<Response<VolumeStatusReply>, Status> {
        let reply = VolumeStatusReply {
            node: vec![3; 16].into(),
            free_bytes: 5,
            not_ready_reason: "volume 7 is being opened".into(),
            ..VolumeStatusReply::default()
        };
        Ok(Response::new(reply))
    }

    async fn replicate_batch(
        &self,
        _: Request<hay_proto::v1::ReplicateBatchRequest>,
    ) -> Result<Response<hay_proto::v1::ReplicateBatchReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn replicate(
        &self,
        _: Request<Streaming<hay_proto::v1::AppendPart>>,
    ) -> Result<Response<hay_proto::v1::ReplicateReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn list_needles(
        &self,
        _: Request<hay_proto::v1::ListNeedlesRequest>,
    ) -> Result<Response<hay_proto::v1::ListNeedlesReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}
