//! `hay server`: every role in one process.

pub(crate) mod directory;
mod open_files;
pub(crate) mod process;
mod roles;
pub(crate) mod signals;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use hay_common::clock::{SharedClock, SystemClock};
use hay_common::disk::{RealDisk, SharedDisk};
use hay_common::model::Durability;
use hay_common::random::SystemRandom;
use hay_proto::rpc::credential::ClusterKey;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;

use crate::units::parse_size;
use directory::{Credentials, DataDirectory};
use roles::Roles;

/// The tenant that the first start makes.
pub(crate) const FIRST_TENANT: &str = "default";

/// Flags of `hay server`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where everything is kept. Created where missing
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub dir: PathBuf,
    /// The address of the HTTP API; port 0 takes a free one. There is no TLS yet: keep it on loopback
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// What acknowledged means: `sync` is on disk, `async` may lose the last seconds at a power loss
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: DurabilityFlag,
    /// Below this much free space writes are refused (507), reads and deletes go on
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub free_space_reserve: u64,
    /// Memory for the path index's block cache, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub cache_size_mb: usize,
    /// Threads that serve requests; 0 takes one for every core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub workers: usize,
    /// Write a new administrator's token where DIR/credentials.toml was lost. Older tokens stay good
    #[arg(long)]
    pub new_token: bool,
    /// How log lines look on stderr. HAY_LOG filters them, as in HAY_LOG=hay_filer=debug,info
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormatFlag,
    /// What started it, for messages that say how to change a flag
    #[arg(long, hide = true, value_name = "COMMAND")]
    pub started_by: Option<String>,
}

/// `--durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DurabilityFlag {
    /// `fdatasync` before every acknowledgement.
    Sync,
    /// Written, not synced.
    Async,
}

impl From<DurabilityFlag> for Durability {
    fn from(flag: DurabilityFlag) -> Self {
        match flag {
            DurabilityFlag::Sync => Self::Sync,
            DurabilityFlag::Async => Self::Async,
        }
    }
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormatFlag {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs every role until it is told to stop.
///
/// # Errors
/// Names what could not be started.
pub fn run(args: Args) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if args.workers == 0 { cores } else { args.workers };
    process::run(args.log_format, workers, serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let stop = signals::Stop::listen(clock.clone()).context("signals can't be received")?;
    stop.early()?.or(serve_until(args, clock, stop)).await
}

async fn serve_until(args: Args, clock: SharedClock, mut stop: signals::Stop) -> anyhow::Result<()> {
    // The port first: a server that can't be reached should not touch its data.
    let listener = TcpListener::bind(args.http).await.map_err(|error| busy(&args, &error))?;
    let address = listener.local_addr().context("the HTTP listener has no address")?;
    let server = format!("http://{address}");

    let disk: SharedDisk = RealDisk::shared();
    let random = SystemRandom::shared().context("the kernel gives no randomness")?;
    let mut directory = DataDirectory::open(disk.as_ref(), &args.dir)?;
    let key_path = directory.join("cluster.key");
    let key = match ClusterKey::load(disk.as_ref(), &key_path)? {
        Some(key) => key,
        None if directory.is_new() => ClusterKey::load_or_create(disk.as_ref(), &key_path, random.as_ref())?,
        None => anyhow::bail!("{} is missing: put it back from a backup", key_path.display()),
    };
    let credentials =
        Credentials::of_directory(disk.as_ref(), &directory, &server, args.new_token, random.as_ref())?;

    let metrics = PrometheusBuilder::new().install_recorder().context("metrics can't be recorded")?;
    let env = roles::Environment { disk: disk.clone(), clock, random, key: Arc::new(key), metrics };
    let roles =
        Roles::start(&args, &directory, env, listener, hay_filer::TokenHash(credentials.token_hash()))
            .await?;
    directory.complete(disk.as_ref())?;

    let mut out = std::io::stdout();
    // Whoever started it may have closed stdout; the server goes on.
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
    let signal = tokio::select! {
        signal = stop.wait() => signal,
        what = roles.gone() => anyhow::bail!("{what}: see the log; the next start recovers"),
    };
    tracing::info!(signal, "stopping: finishing what is in flight");
    tokio::select! {
        () = roles.shutdown() => Ok(()),
        signal = stop.wait() => anyhow::bail!("{signal} came again: stopped at once; the next start recovers"),
    }
}

fn busy(args: &Args, error: &std::io::Error) -> anyhow::Error {
    let way_out = match args.started_by.as_deref() {
        Some(command) => {
            format!("choose another with `{command} HTTP=127.0.0.1:9000` (the server's flag is --http)")
        }
        None => "choose another with --http, as in --http 127.0.0.1:9000".to_owned(),
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!("{} is in use: {way_out}", args.http),
        _ => anyhow::anyhow!("can't listen on {}: {error}; {way_out}", args.http),
    }
}
