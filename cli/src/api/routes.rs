//! Where things are in the HTTP API (docs/http-api.md).

use crate::remote::{RemotePath, encode_query};

/// A whole file, or with a slash at the end a directory.
pub fn file(path: &RemotePath) -> String {
    format!("/api/nfs/files/{}", path.encoded())
}

/// The removal of a file or directory.
pub fn removal(path: &RemotePath, recursive: bool) -> String {
    let flag = if recursive { "?recursive=true" } else { "" };
    format!("{}{flag}", file(path))
}

/// One page of a listing.
pub fn list(directory: &RemotePath, recursive: bool, limit: usize, after: Option<&str>) -> String {
    let inner = directory.encoded();
    let inner = inner.trim_end_matches('/');
    let after = after.map(|after| format!("&after={}", encode_query(after))).unwrap_or_default();
    format!("/api/nfs/list/{inner}?recursive={recursive}&limit={limit}{after}")
}

/// What the masters know of the cluster.
pub const CLUSTER: &str = "/api/nfs/cluster";
/// All volumes, paged by `after`.
pub const VOLUMES: &str = "/api/nfs/volumes";
/// A change of the masters: `add` or `remove`.
pub fn masters(change: &str, name: &str, dry_run: bool) -> String {
    format!("/api/nfs/masters/{change}?master={}&dry_run={dry_run}", encode_query(name))
}

/// Bytes and objects of the tenant.
pub const USAGE: &str = "/api/nfs/usage";
/// Whether every role can do its work.
pub const READY: &str = "/readyz";
/// Figures for Prometheus.
pub const METRICS: &str = "/metrics";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_cursors_are_escaped() {
        let dir = RemotePath::parse("/a b/").unwrap();
        assert_eq!(
            list(&dir, true, 10, Some("x/y&z")),
            "/api/nfs/list/a%20b?recursive=true&limit=10&after=x%2Fy%26z"
        );
        assert_eq!(file(&dir), "/api/nfs/files/a%20b/");
        assert_eq!(removal(&RemotePath::parse("c").unwrap(), false), "/api/nfs/files/c");
    }
}
