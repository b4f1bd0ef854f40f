//! The same interface over HTTP/2.

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, stream};
use reqwest::Body;

use crate::harness::{Pattern, etag_of, pattern_stream, seed, shared_server};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_two_carries_many_requests_at_once() {
    let server = shared_server();
    let api = server.api().over_http2();
    let seed = seed();
    let sizes = [0, 1, 5_000, 70_000, MIB, 9 * MIB];
    let all = (0..48u64).map(|n| {
        let api = api.clone();
        async move {
            let pattern = Pattern::new(seed + n, sizes[n as usize % sizes.len()]);
            let path = format!("http-two/{n}");
            let put = match n % 2 {
                0 => api.put(&path, pattern.bytes()).await.ok(),
                _ => api.put(&path, Body::wrap_stream(pattern_stream(pattern))).await.ok(),
            };
            assert_eq!(put.etag(), etag_of(&pattern.bytes()), "{path}");
            let got = api.get(&path).await.ok();
            assert!(pattern.is(&got.body), "{path}: {} bytes came back", got.body.len());
        }
    });
    join_all(all).await;
    api.with_token(Some("hay_wrong")).get("http-two/1").await.refused(401, "unauthenticated");
    api.get("http-two/missing").await.refused(404, "not_found");
    let part = api.get_with("http-two/2", &[("range", "bytes=100-199")]).await;
    assert_eq!((part.status, part.body.len()), (206, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_two_streams_that_are_reset_leave_nothing() {
    let server = shared_server();
    let seed = seed();
    for (name, api) in [("HTTP/1.1", server.api()), ("HTTP/2", server.api().over_http2())] {
        api.put("http-two/kept", "kept").await.ok();
        for parts in [0usize, 1, 40] {
            for path in ["http-two/reset", "http-two/kept"] {
                let begun = pattern_stream(Pattern::new(seed, 20 * MIB)).take(parts);
                let broken: std::io::Result<Bytes> = Err(std::io::Error::other("the client gives up"));
                let body = Body::wrap_stream(begun.chain(stream::iter([broken])));
                let sent = api.try_put(path, body).await;
                assert!(
                    sent.as_ref().map_or(true, |answer| !answer.is_success()),
                    "{name}: {path}: {sent:?}"
                );
            }
            assert_eq!(api.get("http-two/reset").await.status, 404, "{name}, after {parts} parts");
            assert_eq!(api.get("http-two/kept").await.body, "kept", "{name}, after {parts} parts");
        }
    }
}
