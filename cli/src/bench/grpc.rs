//! A bare gRPC stream of an object in 1 MiB messages, between two processes: what large reads are compared with
//! besides HTTP, because inside Haystore they cross gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use futures::future::{Ready, ready};
use futures::stream::{self, Stream};
use hay_common::limits::RPC_BULK_PART_BYTES;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tonic::server::ServerStreamingService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::content::Contents;
use super::load::{Load, LoadError};

const PATH: &str = "/haystore.bench.Floor/Read";
/// Windows that never stop the stream at loopback.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const FRAME_BYTES: u32 = 1 << 20;

/// Asks for the object.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {}

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
        let mut left = self.0.clone();
        let parts = std::iter::from_fn(move || {
            let data = left.split_to(left.len().min(RPC_BULK_PART_BYTES));
            (!data.is_empty()).then_some(Ok(Part { data }))
        });
        let parts: Parts = Box::pin(stream::iter(parts));
        ready(Ok(Response::new(parts)))
    }
}

/// A bare gRPC server: streams `object` to whoever asks.
pub async fn serve(listener: TcpListener, object: Bytes) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let object = object.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let object = object.clone();
                async move {
                    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Part, Ask>::default());
                    Ok::<_, Infallible>(grpc.server_streaming(FromMemory(object), request).await)
                }
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

/// Reads the object over and over, each worker on a connection of its own, and verifies it.
pub struct GrpcLoad {
    address: SocketAddr,
    contents: Contents,
}

impl GrpcLoad {
    /// Reads object 0 of `contents`.
    pub fn new(address: SocketAddr, contents: Contents) -> Self {
        Self { address, contents }
    }
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
        grpc.ready().await.map_err(|e| LoadError::Broken(e.to_string()))?;
        let path = PathAndQuery::from_static(PATH);
        let codec = ProstCodec::<Ask, Part>::default();
        let response =
            grpc.server_streaming(Request::new(Ask {}), path, codec).await.map_err(|s| broken(&s))?;
        let mut parts = response.into_inner();
        let mut verifier = self.contents.verifier(0);
        while let Some(part) = parts.message().await.map_err(|s| broken(&s))? {
            verifier.take(&part.data)?;
        }
        Ok(verifier.finish()?)
    }
}
