//! One HTTP/1 connection, as bare as hyper gives it: the load client must cost little next to the server.

use std::net::SocketAddr;

use http_body_util::BodyExt;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::content::{ObjectBody, Verifier};
use super::load::LoadError;

/// An open connection that is used for one request after the other.
pub struct Connection {
    sender: SendRequest<ObjectBody>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, LoadError> {
        let stream =
            TcpStream::connect(address).await.map_err(|e| LoadError::Connect(address, e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| LoadError::Connect(address, e.to_string()))?;
        let (sender, driver) = Builder::new()
            .max_buf_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| LoadError::Connect(address, e.to_string()))?;
        tokio::spawn(driver);
        Ok(Self { sender })
    }

    /// Sends a request; the answer's head comes back, or what the server said instead of success.
    async fn send(&mut self, request: Request<ObjectBody>) -> Result<Response<Incoming>, LoadError> {
        self.sender.ready().await.map_err(|e| LoadError::Broken(e.to_string()))?;
        let response =
            self.sender.send_request(request).await.map_err(|e| LoadError::Broken(e.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http_body_util::Limited::new(response.into_body(), 64 << 10).collect().await;
        let body =
            body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Err(LoadError::Refused(status.as_u16(), body))
    }

    /// Sends a request and reads the answer to its end.
    pub async fn write(&mut self, request: Request<ObjectBody>) -> Result<(), LoadError> {
        let mut body = self.send(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|e| LoadError::Broken(e.to_string()))?;
        }
        Ok(())
    }

    /// Sends a request and compares the answer's body.
    pub async fn read(
        &mut self,
        request: Request<ObjectBody>,
        mut verifier: Verifier,
    ) -> Result<(), LoadError> {
        let mut body = self.send(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| LoadError::Broken(e.to_string()))?;
            if let Some(data) = frame.data_ref() {
                verifier.take(data)?;
            }
        }
        Ok(verifier.finish()?)
    }
}
