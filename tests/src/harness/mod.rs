//! Starts the real binary and talks to it: everything that the tests of the whole share.

mod api;
mod command;
mod content;
mod metrics;
mod raw;
mod server;
mod trees;
mod wait;

pub use api::{Answer, Api, encode_path};
pub use command::{Ran, hay, hay_binary, hay_with_input};
pub use content::{Pattern, etag_of, pattern_bytes, pattern_stream, seed, sha256_hex};
pub use metrics::Metrics;
pub use raw::{Raw, RawAnswer};
pub use server::{Server, Start, shared_server};
pub use trees::{Difference, TreeFile, compare_trees, regular_files};
pub use wait::{Stopwatch, eventually, eventually_async};

/// Held by tests that load the machine: two of them at once would only measure each other.
static HEAVY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits for the turn of a heavy test.
pub async fn heavy() -> tokio::sync::MutexGuard<'static, ()> {
    HEAVY.lock().await
}

/// A number from the environment, for `make soak`.
pub fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
