//! HTTP load (the same for server and floor), and the floor itself: a bare hyper server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::connection::Connection;
use super::content::{Contents, ObjectBody};
use super::load::{Load, LoadError};

/// Objects of one stored directory.
const OBJECTS_PER_DIRECTORY: u64 = 1_000;

/// Which object a read asks for.
#[derive(Debug, Clone, Copy)]
pub enum Reads {
    /// One of the first `stored`, in no order that a cache would like.
    Stored { stored: u64, seed: u64 },
    /// The one that the floor holds in memory.
    First,
}

/// What is asked of a server.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// PUT of a new object.
    Write,
    /// GET, verified.
    Read(Reads),
}

/// Requests to one server.
pub struct HttpLoad {
    address: SocketAddr,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    prefix: String,
    contents: Contents,
    ask: Ask,
}

impl HttpLoad {
    /// Requests below `prefix`, a path that is escaped already and ends in a slash.
    pub fn new(
        address: SocketAddr,
        authorization: Option<HeaderValue>,
        prefix: &str,
        contents: Contents,
        ask: Ask,
    ) -> Self {
        // An address is always a valid header.
        let host =
            HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("localhost"));
        Self { address, host, authorization, prefix: format!("/api/nfs/files/{prefix}"), contents, ask }
    }

    fn request(
        &self,
        method: Method,
        object: u64,
        body: ObjectBody,
    ) -> Result<Request<ObjectBody>, LoadError> {
        let uri = format!("{}{}/{object}", self.prefix, object / OBJECTS_PER_DIRECTORY);
        let mut request = Request::builder().method(method).uri(uri).header(HOST, &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(body).map_err(|e| LoadError::Start(e.to_string()))
    }
}

impl Load for HttpLoad {
    type Session = Connection;

    async fn open(&self) -> Result<Connection, LoadError> {
        Connection::open(self.address).await
    }

    async fn once(&self, connection: &mut Connection, number: u64) -> Result<(), LoadError> {
        match self.ask {
            Ask::Write => {
                let request = self.request(Method::PUT, number, self.contents.body(number))?;
                connection.write(request).await
            }
            Ask::Read(reads) => {
                let object = match reads {
                    Reads::Stored { stored, seed } => scatter(number, seed) % stored.max(1),
                    Reads::First => 0,
                };
                let request = self.request(Method::GET, object, ObjectBody::empty())?;
                connection.read(request, self.contents.verifier(object)).await
            }
        }
    }
}

fn scatter(number: u64, seed: u64) -> u64 {
    let value = (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value ^ (value >> 32)
}

/// A bare HTTP server: answers every GET with `object` from memory, swallows every PUT.
pub async fn serve(listener: TcpListener, object: Bytes) -> std::io::Result<()> {
    let object = Arc::new(object);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let object = Arc::clone(&object);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Bytes::clone(&object)));
            // A connection that breaks is the client's to report.
            let _ = http1::Builder::new()
                .max_buf_size(1 << 20)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, object: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        let mut response = Response::new(Full::new(object));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        return Ok(response);
    }
    let mut body = request.into_body();
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::CREATED;
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
    }
    Ok(response)
}
