//! The gateway: streaming HTTP in front of the inner services. Stateless.
//!
//! A request is admitted, gets an id and a span (`server`), finds its route and shows its token (`routes`, `auth`), is
//! parsed and checked (`request`), and then moves bytes in (`ingest`) or out (`download`) within the budgets of
//! `memory`. What the gateway knows of files it asks the filer, request by request: it caches no decision.

mod app;
mod auth;
mod config;
mod download;
#[cfg(test)]
mod faults;
mod ingest;
mod memory;
mod meters;
mod reply;
mod request;
mod routes;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use memory::aside::AsideRoom;

pub use config::{GatewayConfig, GatewayDeps, ReadyCheck};

/// How often the histograms are folded, so that they stay small when nobody asks for them.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener has no address.
    #[error("the HTTP listener can't be used: {0}")]
    Listener(#[from] std::io::Error),
    /// The directory for bodies that are set aside can't be used.
    #[error("{0} can't be used to set bodies aside: {1}")]
    Aside(PathBuf, std::io::Error),
    /// It would speak in the clear to the world.
    #[error(
        "{0} is reachable from other machines and the gateway speaks no TLS: listen on 127.0.0.1, or allow it with --insecure-no-tls"
    )]
    BeyondLoopback(SocketAddr),
}

/// A running gateway.
pub struct Gateway {
    address: SocketAddr,
    app: Arc<app::App>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Serves HTTP on `listener` until `shutdown` is cancelled. The metrics recorder must be installed before.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        config: GatewayConfig,
        deps: GatewayDeps,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            if !config.allow_plain_beyond_loopback {
                return Err(StartError::BeyondLoopback(address));
            }
            tracing::warn!(
                %address,
                "HTTP WITHOUT TLS BEYOND LOOPBACK: tokens and files travel in the clear, whoever is on the way reads them"
            );
        }
        let aside = aside_room(&config, &deps).await?;
        let app = app::App::new(config, deps, aside, shutdown.clone());
        let upkeep = upkeep(app.deps.metrics.clone(), shutdown.clone());
        let serving = server::accept::run(Arc::clone(&app), listener, shutdown.clone());
        let task = tokio::spawn(async move {
            tokio::join!(serving, upkeep);
        });
        tracing::info!(%address, "the gateway serves HTTP");
        Ok(Self { address, app, shutdown, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether every role behind it can do its work.
    ///
    /// # Errors
    /// Names the roles that can't, and why.
    pub async fn ready(&self) -> Result<(), String> {
        let reasons = routes::operations::reasons(&self.app).await;
        if reasons.is_empty() {
            return Ok(());
        }
        Err(reasons
            .into_iter()
            .map(|(role, reason)| format!("{role}: {reason}"))
            .collect::<Vec<_>>()
            .join("; "))
    }

    /// Stops accepting and finishes what is in flight, within the grace.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the gateway's task ended badly");
        }
    }
}

async fn aside_room(config: &GatewayConfig, deps: &GatewayDeps) -> Result<Option<AsideRoom>, StartError> {
    let Some(dir) = config.aside_dir.clone() else { return Ok(None) };
    let (disk, reserve) = (deps.disk.clone(), config.free_space_reserve_bytes);
    let room = tokio::task::spawn_blocking({
        let dir = dir.clone();
        move || AsideRoom::open(disk, dir, reserve)
    });
    let opened = room.await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)));
    opened.map(Some).map_err(|error| StartError::Aside(dir, error))
}

async fn upkeep(metrics: metrics_exporter_prometheus::PrometheusHandle, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(METRICS_UPKEEP) => metrics.run_upkeep(),
        }
    }
}
