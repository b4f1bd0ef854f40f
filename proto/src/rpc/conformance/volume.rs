//! The volume service.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt};
use hay_common::error::{ErrorCode, Failure};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::control::{Control, until};
use super::shared::{CALLS_MAX, Subject, check, request};
use super::stage::{BINDINGS, Binding, Caller, Cluster, stage};
use crate::rpc::{BoxStream, DynVolume, MESSAGE_BYTES_MAX, Role, in_process, to_failure, to_status};
use crate::v1::append_part::Part;
use crate::v1::volume_server::Volume;
use crate::v1::{
    AppendBatchReply, AppendBatchRequest, AppendEnd, AppendHead, AppendItem, AppendPart, AppendReply,
    AppendResult, ReadBatchReply, ReadBatchRequest, ReadItem, ReadPart, ReadResult, VolumeStatusReply,
    VolumeStatusRequest,
};

/// Needles in memory.
#[derive(Default)]
pub struct Core {
    control: Control,
    needles: Mutex<HashMap<(Bytes, u32), Bytes>>,
}

impl Core {
    fn store(&self, key: Bytes, cookie: u32, data: Bytes) -> Result<(), Failure> {
        match self.needles.lock().insert((key, cookie), data) {
            None => Ok(()),
            Some(_) => Err(Failure::new(ErrorCode::NeedleExists, "it is there already")),
        }
    }

    fn find(&self, item: &ReadItem) -> Result<Bytes, Failure> {
        let needles = self.needles.lock();
        let found = needles.get(&(item.key.clone(), item.cookie)).cloned();
        found.ok_or_else(|| Failure::new(ErrorCode::NotFound, "no such needle"))
    }

    async fn receive(&self, parts: &mut Streaming<AppendPart>) -> Result<(AppendHead, Bytes), Failure> {
        let cut = || Failure::new(ErrorCode::IncompleteBody, "the stream was cut");
        let mut head = None;
        let mut data = BytesMut::new();
        loop {
            match parts.message().await.map_err(|status| to_failure(&status))?.and_then(|part| part.part) {
                Some(Part::Head(first)) => head = Some(first),
                Some(Part::Data(more)) => data.extend_from_slice(&more),
                Some(Part::End(end))
                    if end.length as usize == data.len() && end.crc32c == crc32c::crc32c(&data) =>
                {
                    return Ok((head.ok_or_else(cut)?, data.freeze()));
                }
                Some(Part::End(_)) | None => return Err(cut()),
            }
        }
    }
}

#[tonic::async_trait]
impl Volume for Core {
    async fn append_batch(
        &self,
        request: Request<AppendBatchRequest>,
    ) -> Result<Response<AppendBatchReply>, Status> {
        self.control.enter(&request).await?;
        let items = request.into_inner().items.into_iter();
        let results = items.map(|item| AppendResult {
            failure: self.store(item.key, item.cookie, item.data).err().map(Into::into),
        });
        Ok(Response::new(AppendBatchReply { results: results.collect() }))
    }

    async fn append(&self, request: Request<Streaming<AppendPart>>) -> Result<Response<AppendReply>, Status> {
        self.control.enter(&request).await?;
        match self.receive(&mut request.into_inner()).await {
            Ok((head, data)) => {
                self.store(head.key, head.cookie, data).map_err(to_status)?;
                Ok(Response::new(AppendReply {}))
            }
            Err(failure) => {
                self.control.cut.fetch_add(1, Ordering::SeqCst);
                Err(to_status(failure))
            }
        }
    }

    async fn read_batch(
        &self,
        request: Request<ReadBatchRequest>,
    ) -> Result<Response<ReadBatchReply>, Status> {
        self.control.enter(&request).await?;
        let results = request.get_ref().items.iter().map(|item| match self.find(item) {
            Ok(data) => ReadResult { data, ..ReadResult::default() },
            Err(failure) => ReadResult { failure: Some(failure.into()), ..ReadResult::default() },
        });
        Ok(Response::new(ReadBatchReply { results: results.collect() }))
    }

    type ReadStream = BoxStream<ReadPart>;

    /// The needle in parts of 1 MiB. Key `hang` never comes to its end.
    async fn read(&self, request: Request<ReadItem>) -> Result<Response<BoxStream<ReadPart>>, Status> {
        self.control.enter(&request).await?;
        let hangs = request.get_ref().key.as_ref() == b"hang";
        let mut data = if hangs {
            Bytes::from_static(b"begun")
        } else {
            self.find(request.get_ref()).map_err(to_status)?
        };
        let parts = std::iter::from_fn(move || {
            let part = data.split_to(data.len().min(1 << 20));
            (!part.is_empty()).then_some(Ok(ReadPart { data: part, ..ReadPart::default() }))
        });
        let parts = stream::iter(parts);
        let parts = if hangs { parts.chain(stream::pending()).boxed() } else { parts.boxed() };
        Ok(Response::new(parts))
    }

    async fn volume_status(
        &self,
        request: Request<VolumeStatusRequest>,
    ) -> Result<Response<VolumeStatusReply>, Status> {
        self.control.enter(&request).await?;
        let node = self.control.padding().into();
        Ok(Response::new(VolumeStatusReply { node, ready: true, ..VolumeStatusReply::default() }))
    }

    async fn replicate_batch(
        &self,
        _: Request<crate::v1::ReplicateBatchRequest>,
    ) -> Result<Response<crate::v1::ReplicateBatchReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn replicate(
        &self,
        _: Request<Streaming<crate::v1::AppendPart>>,
    ) -> Result<Response<crate::v1::ReplicateReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn list_needles(
        &self,
        _: Request<crate::v1::ListNeedlesRequest>,
    ) -> Result<Response<crate::v1::ListNeedlesReply>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}

stage!(Stage, Core, DynVolume, RemoteVolume, serve_volume);

impl Subject for Stage {
    const FRIEND: Role = Role::Filer;
    const STRANGER: Role = Role::Master;

    fn control(&self) -> &Control {
        &self.core.control
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    async fn ping(&self, caller: Caller, timeout: Option<Duration>) -> Result<(), Status> {
        self.client(caller).volume_status(request(VolumeStatusRequest {}, timeout)).await.map(drop)
    }
}

impl Stage {
    fn gateway(&self) -> DynVolume {
        self.client(Caller::Role(Role::Gateway))
    }

    fn stored(&self) -> usize {
        self.core.needles.lock().len()
    }
}

fn item(key: &'static [u8], data: Bytes) -> AppendItem {
    AppendItem { key: Bytes::from_static(key), data, ..AppendItem::default() }
}

fn read_item(key: &'static [u8]) -> ReadItem {
    ReadItem { key: Bytes::from_static(key), ..ReadItem::default() }
}

async fn append(client: &DynVolume, items: Vec<AppendItem>) -> Result<Vec<Option<ErrorCode>>, Status> {
    let reply = client.append_batch(Request::new(AppendBatchRequest { lease: Bytes::new(), items })).await?;
    let failures = reply.into_inner().results.into_iter().map(|r| r.failure);
    Ok(failures.map(|f| f.map(|f| Failure::from(f).code)).collect())
}

fn head(key: &'static [u8]) -> AppendPart {
    AppendPart {
        part: Some(Part::Head(AppendHead { key: Bytes::from_static(key), ..AppendHead::default() })),
    }
}

fn data(bytes: Bytes) -> AppendPart {
    AppendPart { part: Some(Part::Data(bytes)) }
}

fn end(all: &[u8]) -> AppendPart {
    AppendPart { part: Some(Part::End(AppendEnd { length: all.len() as u32, crc32c: crc32c::crc32c(all) })) }
}

async fn send<S>(client: &DynVolume, parts: S) -> Result<(), ErrorCode>
where
    S: Stream<Item = Result<AppendPart, Status>> + Send + Unpin + 'static,
{
    let sent = client.append(Request::new(in_process(parts))).await;
    sent.map(drop).map_err(|status| to_failure(&status).code)
}

async fn small_calls(stage: &Stage) {
    let client = stage.gateway();
    let bytes = Bytes::from(vec![7; 4096]);
    let items = vec![item(b"a", bytes.clone()), item(b"b", bytes.clone()), item(b"a", bytes.clone())];
    assert_eq!(append(&client, items).await.unwrap(), [None, None, Some(ErrorCode::NeedleExists)]);
    let request = ReadBatchRequest { items: vec![read_item(b"a"), read_item(b"absent")] };
    let results = client.read_batch(Request::new(request)).await.unwrap().into_inner().results;
    assert_eq!(results[0].data, bytes);
    assert_eq!(Failure::from(results[1].failure.clone().unwrap()).code, ErrorCode::NotFound);
    if stage.binding == Binding::Direct {
        assert_eq!(results[0].data.as_ptr(), bytes.as_ptr(), "a direct call copies nothing, there and back");
    }
    let huge = item(b"huge", Bytes::from(vec![0; MESSAGE_BYTES_MAX]));
    assert_eq!(to_failure(&append(&client, vec![huge]).await.unwrap_err()).code, ErrorCode::TooLarge);
}

async fn streams(stage: &Stage) {
    let client = stage.gateway();
    let whole: Bytes = (0..5u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<_>>().into();
    let pieces: Vec<_> = whole.chunks(1 << 20).map(|piece| data(whole.slice_ref(piece))).collect();
    let parts: Vec<_> = [head(b"large")].into_iter().chain(pieces).chain([end(&whole)]).map(Ok).collect();
    send(&client, stream::iter(parts)).await.unwrap();
    let parts = client.read(Request::new(read_item(b"large"))).await.unwrap().into_inner();
    let parts: Vec<Bytes> = parts.map(|part| part.unwrap().data).collect().await;
    assert_eq!(parts.len(), 5);
    assert_eq!(parts.concat(), whole);
    let absent = client.read(Request::new(read_item(b"absent"))).await.err().unwrap();
    assert_eq!(to_failure(&absent).code, ErrorCode::NotFound);
}

/// However a client stream ends without its end message: nothing is stored, and the sender is told where it still
/// listens.
async fn cut_streams(stage: &Stage) {
    let client = stage.gateway();
    let before = stage.stored();
    let bytes = Bytes::from(vec![1; 1 << 20]);
    let begun = || stream::iter(vec![Ok(head(b"cut")), Ok(data(bytes.clone()))]);
    let cut = |count: usize| async move {
        until("the cut", async || stage.core.control.cut.load(Ordering::SeqCst) == count).await;
        assert_eq!(stage.stored(), before);
    };

    assert_eq!(send(&client, begun()).await, Err(ErrorCode::IncompleteBody), "it closes without an end");
    cut(1).await;
    let wrong = begun().chain(stream::iter([Ok(end(b"something else"))]));
    assert_eq!(send(&client, wrong).await, Err(ErrorCode::IncompleteBody), "the end is another's");
    cut(2).await;
    let broken = begun().chain(stream::iter([Err(Status::unavailable("the client went away"))]));
    assert_eq!(send(&client, broken).await, Err(ErrorCode::Unavailable), "the sender's own stream fails");
    cut(3).await;
    let cancelled = begun().chain(stream::iter([Err(Status::cancelled("the client went away"))]));
    assert!(send(&client, cancelled).await.is_err(), "the sender's own stream is cancelled");
    cut(4).await;
    let oversized = begun().chain(stream::iter([Ok(data(vec![0; MESSAGE_BYTES_MAX].into())), Ok(end(b""))]));
    assert_eq!(send(&client, oversized).await, Err(ErrorCode::TooLarge), "a part is beyond the limit");
    cut(5).await;

    // The sender is dropped in the middle. Over the wire the handler sees a cut; a direct one is dropped with it.
    let entered = stage.core.control.entered.load(Ordering::SeqCst);
    let endless = begun().chain(stream::pending());
    let sender = {
        let client = client.clone();
        tokio::spawn(async move { send(&client, endless).await })
    };
    until("the handler", async || stage.core.control.entered.load(Ordering::SeqCst) > entered).await;
    sender.abort();
    assert!(sender.await.unwrap_err().is_cancelled());
    if stage.binding == Binding::Wire {
        cut(6).await;
    }
    assert_eq!(stage.stored(), before);
}

async fn hanging_streams(stage: &Stage) {
    let client = stage.gateway();
    let short = Some(Duration::from_millis(100));
    let mut parts = client.read(request(read_item(b"hang"), short)).await.unwrap().into_inner();
    assert_eq!(parts.next().await.unwrap().unwrap().data, "begun");
    assert_eq!(to_failure(&parts.next().await.unwrap().unwrap_err()).code, ErrorCode::DeadlineExceeded);
    assert!(parts.next().await.is_none());

    // A stream is in work until it is dropped.
    let mut open = Vec::new();
    for _ in 0..CALLS_MAX {
        open.push(client.read(Request::new(read_item(b"hang"))).await.unwrap());
    }
    let refused = stage.ping(Caller::Role(Role::Filer), None).await.unwrap_err();
    assert_eq!(to_failure(&refused).code, ErrorCode::Overloaded);
    drop(open);
    until("free places", async || stage.ping(Caller::Role(Role::Filer), None).await.is_ok()).await;
}

/// All that holds for a volume service.
async fn conformance(binding: Binding) {
    let stage = Arc::new(Stage::new(binding, CALLS_MAX).await);
    check(stage.clone()).await;
    small_calls(&stage).await;
    streams(&stage).await;
    cut_streams(&stage).await;
    until("free places", async || stage.ping(Caller::Role(Role::Filer), None).await.is_ok()).await;
    hanging_streams(&stage).await;
}

#[tokio::test]
async fn volume_service_conforms_on_both_bindings() {
    for binding in BINDINGS {
        conformance(binding).await;
    }
}
