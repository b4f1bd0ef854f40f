//! The kernel's limit on open files, which is low where nobody raised it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to `wanted` or to the hard limit, whichever is lower, and returns what it is now.
pub fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    let reachable = wanted.min(limit.maximum.unwrap_or(u64::MAX));
    if now >= reachable {
        return now;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum: limit.maximum }) {
        Ok(()) => reachable,
        Err(error) => {
            tracing::warn!(%error, now, "the limit on open files could not be raised");
            now
        }
    }
}
