//! Starts the real binary and talks to it: everything that the tests of the whole share.

mod api;
mod cluster;
mod command;
mod content;
mod endpoint;
mod failure;
mod metrics;
mod ports;
mod raw;
mod server;
mod trees;
mod wait;

pub use api::{Api, encode_path};
pub use cluster::{Cluster, Link, START_WITHIN, Shape, Way};
pub use command::{Ran, hay, hay_binary, hay_with_input, hay_within};
pub use content::{Pattern, etag_of, pattern_bytes, pattern_stream, seed, sha256_hex};
pub use endpoint::Endpoint;
pub use metrics::Metrics;
pub use ports::free_address;
pub use raw::{Raw, RawAnswer};
pub use server::{Server, Start, shared_server};
pub use trees::{compare_trees, regular_files, same_bytes};
pub use wait::{Stopwatch, eventually, eventually_async};

/// What the machine can bear at once: clusters of many processes that mostly wait.
const CLUSTERS_AT_ONCE: u32 = 2;
static MACHINE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(CLUSTERS_AT_ONCE as usize);

/// Held by tests that load the machine: two of them at once would only measure each other.
pub async fn heavy() -> tokio::sync::SemaphorePermit<'static> {
    MACHINE.acquire_many(CLUSTERS_AT_ONCE).await.expect("never closed")
}

/// Held by tests with a cluster that waits more than it works. Whoever soaks reads the times, and has each alone.
pub async fn cluster_turn() -> tokio::sync::SemaphorePermit<'static> {
    MACHINE.acquire_many(if soaking() { CLUSTERS_AT_ONCE } else { 1 }).await.expect("never closed")
}

/// Whether the whole number of rounds is asked for: `make soak`.
pub fn soaking() -> bool {
    std::env::var_os("HAY_SOAK").is_some_and(|value| value != "0")
}

/// How much of something a test does: `name` from the environment, else by whether it is a soak.
pub fn amount(name: &str, in_test: u64, in_soak: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) if soaking() => in_soak,
        Err(_) => in_test,
    }
}
