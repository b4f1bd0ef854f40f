//! Whole bodies of every size, with what belongs to them.

use futures::StreamExt;
use hay_common::clock::SystemClock;
use reqwest::{Body, Method};

use crate::harness::{Pattern, etag_of, pattern_stream, seed, sha256_hex, shared_server};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The edges: of nothing, of a small body, of a small content, of an inner message, of a chunk.
const SIZES: &[u64] = &[
    0,
    1,
    2,
    4 * KIB,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    256 * KIB,
    256 * KIB + 1,
    MIB,
    MIB + 1,
    2 * MIB,
    4 * MIB - 1000,
    4 * MIB - 1,
    4 * MIB,
    4 * MIB + 1,
    8 * MIB - 1,
    8 * MIB,
    8 * MIB + 1,
    16 * MIB,
    16 * MIB + 1,
    20 * MIB,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_bodies_of_every_size_come_back_whole() {
    let server = shared_server();
    let api = server.api();
    let seed = seed();
    for (n, len) in SIZES.iter().enumerate() {
        for chunked in [false, true] {
            let pattern = Pattern::new(seed.wrapping_add(2 * n as u64 + u64::from(chunked)), *len);
            let path = format!("bodies/{len}-{chunked}");
            let body = match chunked {
                true => Body::wrap_stream(pattern_stream(pattern)),
                false => Body::from(pattern.bytes()),
            };
            let put = api.put(&path, body).await.ok();
            let expected = etag_of(&pattern.bytes());
            assert_eq!(put.etag(), expected, "the ETag of {path}");

            let head = api.head(&path).await.ok();
            assert_eq!(head.header("content-length"), Some(len.to_string().as_str()), "{path}");
            assert_eq!(head.etag(), expected, "{path}");
            for route in ["files", "stream"] {
                let got = api.send(Method::GET, &format!("/api/nfs/{route}/{path}"), &[], "").await.ok();
                assert!(pattern.is(&got.body), "{route} {path}: {} bytes came back", got.body.len());
                assert_eq!(got.etag(), expected, "{path}");
                assert_eq!(got.header("content-length"), Some(len.to_string().as_str()), "{path}");
            }
            api.delete(&path).await.ok();
        }
    }
}

#[tokio::test]
async fn http_bodies_one_chunk_etag_is_the_sha256() {
    let server = shared_server();
    let put = server.api().put("bodies/sha", "hello").await.ok();
    assert_eq!(put.etag(), format!("\"{}\"", sha256_hex(b"hello")));
}

#[tokio::test]
async fn http_bodies_keep_content_type_and_user_metadata() {
    let server = shared_server();
    let api = server.api();
    let headers: &[(&str, &str)] = &[
        ("content-type", "text/markdown; charset=utf-8"),
        ("x-haystore-meta-author", "Ada Lovelace"),
        ("x-haystore-meta-empty", ""),
        ("X-Haystore-Meta-Mixed-Case", "Kept As It Is"),
    ];
    api.put_with("bodies/meta", headers, "x").await.ok();
    for answer in [api.get("bodies/meta").await, api.head("bodies/meta").await] {
        assert_eq!(answer.header("content-type"), Some("text/markdown; charset=utf-8"));
        assert_eq!(answer.header("x-haystore-meta-author"), Some("Ada Lovelace"));
        assert_eq!(answer.header("x-haystore-meta-empty"), Some(""));
        assert_eq!(answer.header("x-haystore-meta-mixed-case"), Some("Kept As It Is"));
    }
    // A new file takes nothing over from the old one.
    api.put_with("bodies/meta", &[("content-type", "image/png")], "y").await.ok();
    let answer = api.get("bodies/meta").await;
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert_eq!(answer.header("x-haystore-meta-author"), None);

    // The same bytes under other attributes are another file with attributes of its own.
    api.put_with("bodies/meta-2", &[("content-type", "text/plain")], "y").await.ok();
    assert_eq!(api.get("bodies/meta").await.header("content-type"), Some("image/png"));
    assert_eq!(api.get("bodies/meta-2").await.header("content-type"), Some("text/plain"));
    api.put("bodies/meta-none", "y").await.ok();
    let kind = api.get("bodies/meta-none").await;
    assert!(
        matches!(kind.header("content-type"), None | Some("application/octet-stream")),
        "{:?}",
        kind.headers
    );
}

#[tokio::test]
async fn http_bodies_served_back_can_not_turn_into_a_page_of_ours() {
    let server = shared_server();
    let api = server.api();
    api.put_with("bodies/page", &[("content-type", "text/html")], "<script>alert(1)</script>").await.ok();
    let answer = api.get("bodies/page").await.ok();
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn http_bodies_have_a_time() {
    let server = shared_server();
    let api = server.api();
    let before = SystemClock::shared().wall_ms() / 1000;
    api.put("bodies/time", "x").await.ok();
    let after = SystemClock::shared().wall_ms() / 1000;
    let shown = api.head("bodies/time").await.ok().header("last-modified").expect("Last-Modified").to_owned();
    let parts: Vec<&str> = shown.split(' ').collect();
    assert!(parts.len() == 6 && parts[5] == "GMT" && parts[0].ends_with(','), "an HTTP date: {shown}");
    let listed = api.list_page("bodies", "after=til&limit=10").await.ok().json();
    let entry =
        listed["entries"].as_array().unwrap().iter().find(|e| e["name"] == "time").cloned().expect("listed");
    let modified = entry["modified"].to_string();
    assert!(modified.len() > 8, "{entry}");
    // Log time and wall clock of one machine are never a minute apart.
    if let Some(ms) = entry["modified"].as_u64() {
        assert!(ms / 1000 + 60 >= before && ms / 1000 <= after + 60, "{before} {ms} {after}");
    }
}

#[tokio::test]
async fn http_bodies_replace_each_other() {
    let server = shared_server();
    let api = server.api();
    let seed = seed();
    let large = Pattern::new(seed, 17 * MIB);
    let first = api.put("bodies/replaced", "one").await.ok();
    assert!(matches!(first.status, 201 | 200), "{}", first.status);
    for (n, bytes) in
        [large.bytes(), b"two".to_vec(), Vec::new(), Pattern::new(seed + 1, 9 * MIB).bytes(), b"two".to_vec()]
            .into_iter()
            .enumerate()
    {
        let put = api.put("bodies/replaced", bytes.clone()).await.ok();
        assert!(matches!(put.status, 200 | 204), "replacing answers {}", put.status);
        let got = api.get("bodies/replaced").await.ok();
        assert!(got.body == bytes, "after replacement {n}: {} bytes", got.body.len());
        assert_eq!(got.etag(), etag_of(&bytes), "after replacement {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_bodies_a_reader_of_a_replaced_file_sees_one_of_them_whole() {
    let server = shared_server();
    let api = server.api();
    let seed = seed();
    let versions: Vec<Pattern> = (0..6).map(|n| Pattern::new(seed + n, 17 * MIB + n)).collect();
    api.put("bodies/swapped", versions[0].bytes()).await.ok();
    let writer = {
        let (api, versions) = (api.clone(), versions.clone());
        tokio::spawn(async move {
            for version in &versions[1..] {
                api.put("bodies/swapped", version.bytes()).await.ok();
            }
        })
    };
    let mut reads = 0;
    while !writer.is_finished() || reads < 3 {
        let answer = api.get_streaming("bodies/swapped").await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = Vec::new();
        let mut parts = answer.bytes_stream();
        while let Some(part) = parts.next().await {
            body.extend_from_slice(&part.unwrap());
        }
        assert!(versions.iter().any(|v| v.is(&body)), "{} bytes that are no version", body.len());
        reads += 1;
    }
    writer.await.unwrap();
}
