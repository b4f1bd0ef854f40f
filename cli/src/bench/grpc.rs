//! Bare gRPC between two processes: what Haystore is compared with besides HTTP, because inside it everything crosses gRPC.
//! Large objects go as a stream of 1 MiB messages; small ones as the calls that a request needs inside: two for a read, of
//! which the second answers with the object, three for a write, of which the second carries it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use futures::future::{BoxFuture, Ready, ready};
use futures::stream::{self, Stream};
use hay_common::limits::RPC_BULK_PART_BYTES;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tonic::server::{ClientStreamingService, ServerStreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::content::Contents;
use super::load::{Load, LoadError};

const READ: &str = "/haystore.bench.Floor/Read";
const WRITE: &str = "/haystore.bench.Floor/Write";
const CALL: &str = "/haystore.bench.Floor/Call";
/// Calls of at most so many bytes are measured: above, Haystore streams too.
pub const CALL_BYTES_MAX: u64 = 1 << 20;
/// Windows that never stop the stream at loopback.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const FRAME_BYTES: u32 = 1 << 20;

/// Asks for the object, or for nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(bool, tag = "1")]
    object: bool,
    /// What a write carries.
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

/// A part of it.
#[derive(Clone, PartialEq, prost::Message)]
struct Part {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

type Parts = Pin<Box<dyn Stream<Item = Result<Part, Status>> + Send>>;

/// Streams an object from memory.
#[derive(Clone)]
struct FromMemory(Bytes);

impl ServerStreamingService<Ask> for FromMemory {
    type Response = Part;
    type ResponseStream = Parts;
    type Future = Ready<Result<Response<Parts>, Status>>;

    fn call(&mut self, _: Request<Ask>) -> Self::Future {
        let parts: Parts = Box::pin(stream::iter(parts_of(self.0.clone()).map(Ok)));
        ready(Ok(Response::new(parts)))
    }
}

/// Takes the parts of an object, and says that it has them.
struct IntoNothing;

impl ClientStreamingService<Part> for IntoNothing {
    type Response = Ask;
    type Future = BoxFuture<'static, Result<Response<Ask>, Status>>;

    fn call(&mut self, request: Request<Streaming<Part>>) -> Self::Future {
        Box::pin(async move {
            let mut parts = request.into_inner();
            while parts.message().await?.is_some() {}
            Ok(Response::new(Ask::default()))
        })
    }
}

impl UnaryService<Ask> for FromMemory {
    type Response = Part;
    type Future = Ready<Result<Response<Part>, Status>>;

    fn call(&mut self, request: Request<Ask>) -> Self::Future {
        let data = if request.get_ref().object { self.0.clone() } else { Bytes::new() };
        ready(Ok(Response::new(Part { data })))
    }
}

/// A bare gRPC server with `object` in memory.
pub async fn serve(listener: TcpListener, object: Bytes) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let object = object.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let object = FromMemory(object.clone());
                async move { Ok::<_, Infallible>(answer(object, request).await) }
            });
            // A connection that breaks is the client's to report.
            let _ = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(object: FromMemory, request: hyper::Request<Incoming>) -> hyper::Response<tonic::body::Body> {
    let parts = || tonic::server::Grpc::new(ProstCodec::<Part, Ask>::default());
    match request.uri().path() {
        READ => parts().server_streaming(object, request).await,
        CALL => parts().unary(object, request).await,
        _ => {
            let mut sink = tonic::server::Grpc::new(ProstCodec::<Ask, Part>::default());
            sink.client_streaming(IntoNothing, request).await
        }
    }
}

/// What is done over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// The object comes as a stream.
    ReadStream,
    /// It goes as one.
    WriteStream,
    /// Two calls, as a small read makes them.
    ReadCalls,
    /// Three, as a small write does.
    WriteCalls,
}

/// Exchanges the object over and over, each worker on a connection of its own; what comes is verified.
pub struct GrpcLoad {
    address: SocketAddr,
    contents: Contents,
    object: Bytes,
    exchange: Exchange,
}

impl GrpcLoad {
    /// Of object 0 of `contents`.
    pub fn new(address: SocketAddr, contents: Contents, exchange: Exchange) -> Self {
        let object = contents.whole(0);
        Self { address, contents, object, exchange }
    }

    async fn call(&self, grpc: &mut tonic::client::Grpc<Channel>, ask: Ask) -> Result<Part, LoadError> {
        grpc.ready().await.map_err(|e| LoadError::Broken(e.to_string()))?;
        let codec = ProstCodec::<Ask, Part>::default();
        let answer = grpc.unary(Request::new(ask), PathAndQuery::from_static(CALL), codec).await;
        Ok(answer.map_err(|s| broken(&s))?.into_inner())
    }

    async fn read_calls(&self, grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), LoadError> {
        self.call(grpc, Ask::default()).await?;
        let part = self.call(grpc, Ask { object: true, data: Bytes::new() }).await?;
        let mut verifier = self.contents.verifier(0);
        verifier.take(&part.data)?;
        Ok(verifier.finish()?)
    }

    async fn write_calls(&self, grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), LoadError> {
        self.call(grpc, Ask::default()).await?;
        self.call(grpc, Ask { object: false, data: self.object.clone() }).await?;
        self.call(grpc, Ask::default()).await.map(drop)
    }

    async fn read_stream(&self, grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), LoadError> {
        grpc.ready().await.map_err(|e| LoadError::Broken(e.to_string()))?;
        let codec = ProstCodec::<Ask, Part>::default();
        let path = PathAndQuery::from_static(READ);
        let response =
            grpc.server_streaming(Request::new(Ask::default()), path, codec).await.map_err(|s| broken(&s))?;
        let mut parts = response.into_inner();
        let mut verifier = self.contents.verifier(0);
        while let Some(part) = parts.message().await.map_err(|s| broken(&s))? {
            verifier.take(&part.data)?;
        }
        Ok(verifier.finish()?)
    }

    async fn write_stream(&self, grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), LoadError> {
        grpc.ready().await.map_err(|e| LoadError::Broken(e.to_string()))?;
        let codec = ProstCodec::<Part, Ask>::default();
        let path = PathAndQuery::from_static(WRITE);
        let request = Request::new(stream::iter(parts_of(self.object.clone())));
        grpc.client_streaming(request, path, codec).await.map(drop).map_err(|s| broken(&s))
    }
}

/// The messages of a stream.
fn parts_of(mut left: Bytes) -> impl Iterator<Item = Part> + Send {
    std::iter::from_fn(move || {
        let data = left.split_to(left.len().min(RPC_BULK_PART_BYTES));
        (!data.is_empty()).then_some(Part { data })
    })
}

fn broken(status: &Status) -> LoadError {
    LoadError::Broken(status.to_string())
}

impl Load for GrpcLoad {
    type Session = tonic::client::Grpc<Channel>;

    async fn open(&self) -> Result<Self::Session, LoadError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|e| LoadError::Start(e.to_string()))?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .tcp_nodelay(true);
        let channel =
            endpoint.connect().await.map_err(|e| LoadError::Connect(self.address, e.to_string()))?;
        Ok(tonic::client::Grpc::new(channel))
    }

    async fn once(&self, grpc: &mut Self::Session, _: u64) -> Result<(), LoadError> {
        match self.exchange {
            Exchange::ReadStream => self.read_stream(grpc).await,
            Exchange::WriteStream => self.write_stream(grpc).await,
            Exchange::ReadCalls => self.read_calls(grpc).await,
            Exchange::WriteCalls => self.write_calls(grpc).await,
        }
    }
}
