//! `hay server`: every role in one process.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Flags of `hay server`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where everything is kept. Created where missing
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub dir: PathBuf,
    /// The address of the HTTP API
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// What acknowledged means: `sync` is on disk, `async` may lose the last seconds at a power loss
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: DurabilityFlag,
    /// How log lines look on stderr
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
    anyhow::bail!("this build has no server to put into {}", args.dir.display())
}
