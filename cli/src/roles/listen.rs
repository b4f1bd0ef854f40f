//! The gRPC port of a role.

use std::net::SocketAddr;

use anyhow::Context;
use hay_common::limits::ROLE_STOP_GRACE;
use hay_proto::rpc::transport::Channels;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

use super::connection::Connection;
use super::flags::ProcessFlags;

/// A port that is held, not yet served.
pub struct Port {
    listener: TcpListener,
    /// By which others reach it.
    pub address: String,
}

impl Port {
    /// Takes `listen`. `advertise`: how others reach it, where they can't by that address.
    pub async fn take(
        listen: SocketAddr,
        advertise: Option<&str>,
        flags: &ProcessFlags,
    ) -> anyhow::Result<Self> {
        if !listen.ip().is_loopback() {
            anyhow::ensure!(
                flags.insecure_no_tls,
                "{listen} is reachable from other machines and there is no TLS yet: listen on 127.0.0.1, or allow it \
                 with --insecure-no-tls on a network that nobody else is on"
            );
            tracing::warn!(address = %listen, "GRPC WITHOUT TLS BEYOND LOOPBACK: who is on the way reads and forges everything");
        }
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("can't listen on {listen}: choose another address with --listen"))?;
        let bound = listener.local_addr().context("the listener has no address")?;
        let address = match advertise {
            Some(address) => {
                Channels::lazy(address).context("--advertise")?;
                address.to_owned()
            }
            None => {
                anyhow::ensure!(
                    !bound.ip().is_unspecified(),
                    "others can't call {bound}: say with --advertise HOST:PORT how they reach it"
                );
                bound.to_string()
            }
        };
        Ok(Self { listener, address })
    }

    /// Serves `services` from now on.
    pub fn serve(self, services: Router) -> Serving {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let incoming = Connection::accepted(self.listener, cut.clone());
        let stopped = stop.clone().cancelled_owned();
        let gone = CancellationToken::new();
        let ending = gone.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _ending = ending;
            if let Err(error) = services.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "the gRPC port failed");
            }
        });
        Serving { stop, cut, gone, task }
    }
}

/// A port that is served.
pub struct Serving {
    stop: CancellationToken,
    /// Ends the connections, whatever is in flight on them.
    cut: CancellationToken,
    /// Nobody serves it any more, for whatever reason.
    gone: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    /// Resolves when the port is no longer served: a process without it must not look as if it could work.
    pub fn gone(&self) -> impl Future<Output = &'static str> + use<> {
        let gone = self.gone.clone();
        async move {
            gone.cancelled().await;
            "the gRPC port is no longer served"
        }
    }

    /// Takes no further calls and finishes those in flight. Streams that last as long as their connection are cut after
    /// [`ROLE_STOP_GRACE`].
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(ROLE_STOP_GRACE, &mut self.task).await.is_err() {
            self.cut.cancel();
        }
    }
}
