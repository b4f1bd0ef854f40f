//! The listener: connections up to a limit, each with its time-outs, and an end that lets what is in flight finish.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hay_common::limits::{
    HTTP_HEADER_BYTES_MAX, HTTP_HEADER_TIMEOUT, HTTP_WRITE_STALL, HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_STREAMS_MAX,
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::service::serve;
use super::stall::{StallWatch, Watched};
use super::usage::Usage;
use crate::app::App;
use crate::ingest::body::STOPPING_PATIENCE;

/// The pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked at for a stalled client.
const STALL_LOOK: Duration = Duration::from_secs(15);
/// The same while the server is being stopped.
const STOPPING_LOOK: Duration = Duration::from_millis(500);

/// Serves until `shutdown`, then waits up to the grace for what is in flight.
pub(crate) async fn run(app: Arc<App>, listener: TcpListener, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(app.config.connections_max));
    let builder = Arc::new(builder(app.config.header_timeout));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection =
                    connection(Arc::clone(&app), Arc::clone(&builder), stream, permit, shutdown.clone());
                app.tasks.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    app.tasks.close();
    if tokio::time::timeout(app.config.shutdown_grace, app.tasks.wait()).await.is_err() {
        tracing::warn!(left = app.tasks.len(), "connections are cut: the grace of the shutdown is over");
    }
}

fn builder(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without a header_read_timeout of its own an idle connection would stay for ever.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    // Also the most that one connection buffers of a body; more than its 100 headers hyper refuses by itself.
    builder.http1().max_buf_size(HTTP_HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_STREAM_WINDOW_BYTES * 8)
        .max_header_list_size(HTTP_HEADER_BYTES_MAX as u32)
        .max_send_buf_size(HTTP_HEADER_BYTES_MAX)
        .keep_alive_interval(HTTP_HEADER_TIMEOUT);
    builder
}

enum Idleness {
    Fine,
    /// No request for long.
    Rested,
    /// No request ever: hyper has no timer of its own until it knows the version of HTTP.
    NeverUsed,
}

fn idleness(app: &App, usage: &Usage) -> Idleness {
    let idle = usage.idle_for();
    if !usage.had_requests() && idle >= app.config.header_timeout {
        Idleness::NeverUsed
    } else if idle >= app.config.idle_timeout {
        Idleness::Rested
    } else {
        Idleness::Fine
    }
}

async fn connection(
    app: Arc<App>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) {
    app.meters.connections.increment(1.0);
    // Small answers must not wait for the client's acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let watch = StallWatch::new(app.deps.clock.clone());
    let usage = Usage::new(app.heads.clone(), app.deps.clock.clone());
    let io = TokioIo::new(Watched::new(stream, watch.clone(), Arc::clone(&usage)));
    let service = service_fn({
        let (app, usage) = (Arc::clone(&app), Arc::clone(&usage));
        move |request| serve(Arc::clone(&app), usage.begin(), request)
    });
    let mut served = pin!(builder.serve_connection(io, service));
    let (mut ending, mut leaving) = (false, false);
    let look = STALL_LOOK.min(app.config.header_timeout);
    let ended = loop {
        tokio::select! {
            ended = served.as_mut() => break ended,
            () = shutdown.cancelled(), if !ending => {
                ending = true;
                served.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(if ending { STOPPING_LOOK } else { look }) => {
                let patience = if ending { STOPPING_PATIENCE } else { HTTP_WRITE_STALL };
                if watch.stalled_for() >= patience {
                    tracing::info!("a client takes nothing of its answer: the connection is cut");
                    break Ok(());
                }
                match idleness(&app, &usage) {
                    Idleness::Fine => leaving = false,
                    // HTTP/2 says goodbye first: a request may be under way.
                    Idleness::Rested if !leaving => {
                        leaving = true;
                        served.as_mut().graceful_shutdown();
                    }
                    Idleness::Rested | Idleness::NeverUsed => break Ok(()),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
    app.meters.connections.decrement(1.0);
    drop(permit);
}
