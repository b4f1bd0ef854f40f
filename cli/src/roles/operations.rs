//! `/healthz`, `/readyz` and `/metrics` of a role that speaks no HTTP otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hay_common::limits::{HTTP_HEADER_TIMEOUT, OPERATIONS_CONNECTIONS_MAX};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::flags::ProcessFlags;

/// How often the histograms are folded, so that they stay small when nobody asks for them.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// After a failure to accept, which is about open files mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the role can do its work; else why not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Answers for the rest of the process's life, where the flags name an address.
pub async fn serve(
    flags: &ProcessFlags,
    role: &'static str,
    metrics: PrometheusHandle,
    ready: Ready,
) -> anyhow::Result<()> {
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    let Some(address) = flags.operations else { return Ok(()) };
    let listener = bind(address).await?;
    let answers = Answers { role, metrics, ready };
    tokio::spawn(accept(listener, answers));
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "health and metrics are answered beyond loopback, without token and TLS");
    }
    TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}: choose another address with --operations"))
}

#[derive(Clone)]
struct Answers {
    role: &'static str,
    metrics: PrometheusHandle,
    ready: Ready,
}

async fn accept(listener: TcpListener, answers: Answers) {
    let places = Arc::new(Semaphore::new(OPERATIONS_CONNECTIONS_MAX));
    loop {
        // Closed never: it lives as long as this loop.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    converse(stream, answers).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for health and metrics could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, answers: Answers) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.answer(request.method(), request.uri().path()).await) }
    });
    // One request a connection: nobody who hangs holds a place.
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(HTTP_HEADER_TIMEOUT * 2, connection).await {
        tracing::debug!(%error, "a connection for health and metrics broke off");
    }
}

impl Answers {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n".into()),
            (&Method::GET | &Method::HEAD, "/readyz") => self.readiness(),
            (&Method::GET | &Method::HEAD, "/metrics") => self.rendered().await,
            _ => text(StatusCode::NOT_FOUND, "only /healthz, /readyz and /metrics are here\n".into()),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reason = (self.ready)().err();
        let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let not_ready: Vec<_> = reason.iter().map(|reason| (self.role, reason)).collect();
        let body = serde_json::json!({ "ready": reason.is_none(), "not_ready": not_ready }).to_string();
        reply(status, "application/json", body)
    }

    async fn rendered(&self) -> Response<Full<Bytes>> {
        let metrics = self.metrics.clone();
        let rendering = tokio::task::spawn_blocking(move || {
            hay_common::process::observe();
            metrics.render()
        });
        match rendering.await {
            Ok(body) => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered\n".into()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    reply
}
