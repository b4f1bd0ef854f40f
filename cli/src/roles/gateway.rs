//! `hay gateway`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use hay_client::group::{Members, filers, masters};
use hay_client::{FilerClient, MasterClient, Peers, VolumeClient};
use hay_common::disk::{DirLock, Disk};
use hay_gateway::{Gateway, GatewayConfig, GatewayDeps};
use hay_proto::rpc::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::flags::ProcessFlags;
use super::operations;
use super::start::{Environment, only_one, run as run_role, until_stopped};
use crate::units::parse_size;

/// Flags of `hay gateway`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  hay gateway --cluster-key ./cluster.key --masters 127.0.0.1:7001 --filers 127.0.0.1:7003

It keeps nothing: as many as are wanted run side by side. /healthz and /readyz are on its HTTP port, and /metrics for
administrators; --operations answers all three without a token.")]
pub struct GatewayArgs {
    /// The address of the HTTP API; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "HAY_HTTP")]
    pub http: SocketAddr,
    /// The masters, all of them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, env = "HAY_MASTERS")]
    pub masters: Vec<String>,
    /// The filer: there can be only one so far
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, env = "HAY_FILERS")]
    pub filers: Vec<String>,
    /// Where bodies go that stall while others need the memory; without it slow ones lose their place instead. Nothing in
    /// it outlives the process
    #[arg(long, value_name = "DIR", env = "HAY_ASIDE_DIR")]
    pub aside_dir: Option<PathBuf>,
    /// Below this much free space there nothing is set aside
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size, env = "HAY_FREE_SPACE_RESERVE")]
    pub free_space_reserve: u64,
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
    only_one("--filers", &args.filers)?;
    let masters_at = Members::at(&args.masters).context("--masters")?;
    let filers_at = Members::at(&args.filers).context("--filers")?;
    let listener = TcpListener::bind(args.http)
        .await
        .with_context(|| format!("can't listen on {}: choose another address with --http", args.http))?;
    // It is emptied at the start: no other gateway may use it.
    let _aside = args.aside_dir.as_deref().map(|dir| hold(env.disk.as_ref(), dir)).transpose()?;
    let credentials = env.credentials(Role::Gateway, env.new_node());
    let (clock, random) = (env.clock.clone(), env.random.clone());
    let leases = MasterClient::start(
        masters(masters_at, &credentials, clock.clone(), random.clone()),
        clock.clone(),
        random.clone(),
    );
    let paths = FilerClient::patient(
        filers(filers_at, &credentials, clock.clone(), random.clone()),
        clock.clone(),
        random.clone(),
    );
    let deps = GatewayDeps {
        filer: paths,
        master: leases.clone(),
        volumes: VolumeClient::new(Peers::new(Some(credentials))),
        disk: env.disk.clone(),
        clock,
        random,
        metrics: env.metrics.clone(),
        // Filer and masters are asked anyway.
        ready: Vec::new(),
    };
    let metrics = env.metrics;
    let config = GatewayConfig {
        allow_plain_beyond_loopback: args.process.insecure_no_tls,
        aside_dir: args.aside_dir.as_ref().map(|dir| dir.join("aside")),
        free_space_reserve_bytes: args.free_space_reserve,
        ..GatewayConfig::default()
    };
    let gateway = Gateway::start(config, deps, listener, CancellationToken::new())
        .await
        .context("the gateway did not start")?;
    let ready = leases.clone();
    operations::serve(&args.process, "gateway", metrics, Arc::new(move || ready.ready())).await?;
    let mut out = std::io::stdout();
    // Whoever started it may have closed stdout; it goes on.
    let _ = writeln!(out, "listening on http://{}", gateway.address()).and_then(|()| out.flush());
    until_stopped(env.stop, std::future::pending(), async {
        gateway.shutdown().await;
        leases.shutdown().await;
    })
    .await
}

fn hold(disk: &dyn Disk, dir: &Path) -> anyhow::Result<Box<dyn DirLock>> {
    disk.create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
    disk.lock(&dir.join("lock")).with_context(|| {
        format!("{} is in use by another gateway: name another directory with --aside-dir", dir.display())
    })
}
