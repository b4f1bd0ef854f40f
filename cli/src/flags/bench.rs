//! Flags of `hay bench`.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::units::{parse_duration, parse_size};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Storing new objects.
    Write,
    /// Reading them, each verified.
    Read,
}

/// `hay bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  hay bench --size 4KiB --count 100000 --concurrency 16
  hay bench --role filer=127.0.0.1:7181 --role master-1=127.0.0.1:7151 --role volume-server-1=127.0.0.1:7161
  hay bench --size 64MiB --count 60 --concurrency 4 --json

Work and floor alternate in slices of at most 5 s. The floors are what the same machine can do without a store, in the
same run, with the same load client:
  read   a bare HTTP server that answers the same sizes from memory
  write  the slower of a bare HTTP sink, and as many writers whose bytes are written and synced in groups into a
         prewritten file in --floor-dir
  both   beside these, bare gRPC between two processes: two calls for a read and three for a write of up to 1 MiB
         (grpc_calls_ratio), a stream from 8 MiB on (grpc_stream_ratio)
The ratio is the median over the pairs; a pair during which the host took more than 10 % of the CPU time away (steal) is
repeated. Objects are random, all different, and removed at the end unless --keep.")]
pub struct BenchArgs {
    /// Bytes of an object
    #[arg(long, default_value = "4KiB", value_parser = parse_size, value_name = "SIZE")]
    pub size: u64,
    /// Objects to store, and to read; at least one for each worker in each pair
    #[arg(long, default_value = "100000", value_name = "N")]
    pub count: NonZeroU64,
    /// Requests in work at once, each on a connection of its own
    #[arg(long, default_value = "16", value_name = "N")]
    pub concurrency: NonZeroUsize,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "write,read", value_name = "MODES")]
    pub mode: Vec<Mode>,
    /// Pairs of work and floor, at least 5
    #[arg(long, default_value = "5", value_name = "N", value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub pairs: u32,
    /// The longest slice, at most 5s
    #[arg(long, default_value = "5s", value_parser = parse_duration, value_name = "TIME")]
    pub slice: Duration,
    /// A directory on the file system of the server's data. Default: that of the credentials file
    #[arg(long, value_name = "DIR")]
    pub floor_dir: Option<PathBuf>,
    /// Threads of the load client. Default: half of the CPUs
    #[arg(long, value_name = "N")]
    pub client_threads: Option<NonZeroUsize>,
    /// The stored directory for the objects. Default: a new one in the root
    #[arg(long, value_name = "PATH")]
    pub prefix: Option<String>,
    /// The operations port of another process of the cluster: its CPU and its syncs count too
    #[arg(long, value_name = "NAME=ADDR", value_parser = parse_role)]
    pub role: Vec<NamedRole>,
    /// Leave the objects there
    #[arg(long)]
    pub keep: bool,
}

/// A process of a cluster and where it tells its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRole {
    /// What it is called in the report.
    pub name: String,
    /// Its `--operations`.
    pub operations: SocketAddr,
}

fn parse_role(text: &str) -> Result<NamedRole, String> {
    let bad = || format!("{text:?} is not NAME=ADDRESS, as in filer=127.0.0.1:7181");
    let (name, operations) = text.split_once('=').ok_or_else(bad)?;
    Ok(NamedRole { name: name.to_owned(), operations: operations.parse().map_err(|_| bad())? })
}

/// Which floor a process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloorKind {
    /// A bare HTTP server: GET from memory, PUT into nothing.
    Http,
    /// A bare gRPC server: calls and streams, from memory and into nothing.
    Grpc,
    /// Writers, pwrite and fdatasync in groups.
    Sync,
}

/// `hay bench-floor`, started by `hay bench`. Tells its address on stdout, ends when stdin does.
#[derive(Debug, Clone, Args)]
pub struct FloorArgs {
    /// Which floor.
    #[arg(value_enum)]
    pub kind: FloorKind,
    /// Bytes of an object.
    #[arg(long)]
    pub size: u64,
    /// The seed of the contents.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Server threads.
    #[arg(long, default_value = "1")]
    pub threads: NonZeroUsize,
    /// Writers (sync).
    #[arg(long, default_value = "1")]
    pub writers: NonZeroUsize,
    /// Where the prewritten file goes (sync).
    #[arg(long)]
    pub dir: Option<PathBuf>,
}
