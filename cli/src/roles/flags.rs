//! Flags that roles have in common. Each can stand in the environment and in the file of --config as well.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::server::{DurabilityFlag, LogFormatFlag};
use crate::units::parse_size;

/// Flags of every role.
#[derive(Debug, Clone, clap::Args)]
pub struct ProcessFlags {
    /// A TOML file of these flags, as in `masters = ["10.0.0.1:7001"]`; flags and environment go before it
    #[arg(long, value_name = "FILE", env = "HAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// The cluster's key, which `hay cluster new-key` makes: the same file for every process of the cluster
    #[arg(long, value_name = "FILE", env = "HAY_CLUSTER_KEY")]
    pub cluster_key: PathBuf,
    /// Answer /healthz, /readyz and /metrics here. Needs no token: keep it from the world
    #[arg(long, value_name = "ADDR", env = "HAY_OPERATIONS")]
    pub operations: Option<SocketAddr>,
    /// Listen beyond loopback although there is no TLS yet: who is on the way reads and forges everything
    #[arg(long, env = "HAY_INSECURE_NO_TLS")]
    pub insecure_no_tls: bool,
    /// Threads that serve requests; 0 takes half the cores
    #[arg(long, value_name = "N", default_value_t = 0, env = "HAY_WORKERS")]
    pub workers: usize,
    /// How log lines look on stderr. HAY_LOG filters them, as in HAY_LOG=hay_filer=debug,info
    #[arg(long, value_enum, default_value = "text", env = "HAY_LOG_FORMAT")]
    pub log_format: LogFormatFlag,
}

/// Flags of the roles that other parts call.
#[derive(Debug, Clone, clap::Args)]
pub struct ServiceFlags {
    /// Where everything of this process is kept. Created where missing
    #[arg(long, value_name = "DIR", env = "HAY_DIR")]
    pub dir: PathBuf,
    /// The address by which others reach it, where that is not the one it listens on
    #[arg(long, value_name = "HOST:PORT", env = "HAY_ADVERTISE")]
    pub advertise: Option<String>,
    /// What acknowledged means: `sync` is on disk, `async` may lose the last seconds at a power loss
    #[arg(long, value_enum, default_value = "sync", env = "HAY_DURABILITY")]
    pub durability: DurabilityFlag,
}

/// Flags of the roles that keep what grows with what is stored. A master's state is small; it waits where a disk is full.
#[derive(Debug, Clone, clap::Args)]
pub struct StorageFlags {
    /// Below this much free space it takes no further writes
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size, env = "HAY_FREE_SPACE_RESERVE")]
    pub free_space_reserve: u64,
}
