//! `hay gateway`.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use hay_client::group::{Members, filers, masters};
use hay_client::{FilerClient, MasterClient, Peers, VolumeClient};
use hay_gateway::{Gateway, GatewayConfig, GatewayDeps};
use hay_proto::rpc::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::flags::ProcessFlags;
use super::start::{Environment, run as run_role, until_stopped};

/// Flags of `hay gateway`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  hay gateway --cluster-key ./cluster.key --masters 127.0.0.1:7001 --filers 127.0.0.1:7003

It keeps nothing: as many as are wanted run side by side. /healthz, /readyz and /metrics are on its HTTP port.")]
pub struct GatewayArgs {
    /// The address of the HTTP API; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "HAY_HTTP")]
    pub http: SocketAddr,
    /// The masters, all of them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, env = "HAY_MASTERS")]
    pub masters: Vec<String>,
    /// The filers, all of them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, env = "HAY_FILERS")]
    pub filers: Vec<String>,
    /// Flags of every role.
    #[command(flatten)]
    pub process: ProcessFlags,
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// Names what could not be started.
pub fn run(args: GatewayArgs) -> anyhow::Result<()> {
    let flags = args.process.clone();
    run_role(&flags, |env| serve(args, env))
}

async fn serve(args: GatewayArgs, env: Environment) -> anyhow::Result<()> {
    let masters_at = Members::at(&args.masters).context("--masters")?;
    let filers_at = Members::at(&args.filers).context("--filers")?;
    let listener = TcpListener::bind(args.http)
        .await
        .with_context(|| format!("can't listen on {}: choose another address with --http", args.http))?;
    let credentials = env.credentials(Role::Gateway, env.new_node());
    let (clock, random) = (env.clock.clone(), env.random.clone());
    let leases = MasterClient::start(
        masters(masters_at, &credentials, clock.clone(), random.clone()),
        clock.clone(),
        random.clone(),
    );
    let paths = FilerClient::new(
        filers(filers_at, &credentials, clock.clone(), random.clone()),
        clock.clone(),
        random.clone(),
    );
    let deps = GatewayDeps {
        filer: paths,
        master: leases.clone(),
        volumes: VolumeClient::new(Peers::new(Some(credentials))),
        clock,
        random,
        metrics: env.metrics,
        // Filer and masters are asked anyway.
        ready: Vec::new(),
    };
    let config = GatewayConfig {
        allow_plain_beyond_loopback: args.process.insecure_no_tls,
        ..GatewayConfig::default()
    };
    let gateway = Gateway::start(config, deps, listener, CancellationToken::new())
        .await
        .context("the gateway did not start")?;
    let mut out = std::io::stdout();
    // Whoever started it may have closed stdout; it goes on.
    let _ = writeln!(out, "listening on http://{}", gateway.address()).and_then(|()| out.flush());
    until_stopped(env.stop, async {
        gateway.shutdown().await;
        leases.shutdown().await;
    })
    .await
}
