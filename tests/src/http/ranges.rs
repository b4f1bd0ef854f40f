//! Ranges, on both routes that serve bytes.

use crate::harness::{Pattern, encode_path, seed, shared_server};
use reqwest::Method;

/// What a Range header of a file of 1,000 bytes leads to.
enum Wanted {
    Part(u64, u64),
    Whole,
    Refused,
}

use Wanted::{Part, Refused, Whole};

const OF_1000: &[(&str, Wanted)] = &[
    ("bytes=0-0", Part(0, 1)),
    ("bytes=0-9", Part(0, 10)),
    ("bytes=0-", Part(0, 1000)),
    ("bytes=0-999", Part(0, 1000)),
    ("bytes=0-1000", Part(0, 1000)),
    ("bytes=0-99999999999", Part(0, 1000)),
    ("bytes=500-", Part(500, 1000)),
    ("bytes=999-", Part(999, 1000)),
    ("bytes=999-999", Part(999, 1000)),
    ("bytes=990-2000", Part(990, 1000)),
    ("bytes=-1", Part(999, 1000)),
    ("bytes=-10", Part(990, 1000)),
    ("bytes=-1000", Part(0, 1000)),
    ("bytes=-5000", Part(0, 1000)),
    ("bytes=1000-", Refused),
    ("bytes=1000-1000", Refused),
    ("bytes=5000-6000", Refused),
    ("bytes=-0", Refused),
    // What is no range by the grammar is as if it were not there (RFC 9110, 14.2).
    ("bytes=", Whole),
    ("bytes=-", Whole),
    ("bytes=5", Whole),
    ("bytes=abc", Whole),
    ("bytes=a-b", Whole),
    ("bytes=9-5", Whole),
    ("bytes=--5", Whole),
    ("bytes=+1-5", Whole),
    ("bytes=0x1-0x5", Whole),
    ("bytes 0-5", Whole),
    ("0-5", Whole),
    ("lines=0-5", Whole),
    ("", Whole),
];

#[tokio::test]
async fn http_ranges_of_a_small_file() {
    let server = shared_server();
    let api = server.api();
    let content = Pattern::new(seed(), 1000).bytes();
    let etag = api.put("ranges/small", content.clone()).await.ok().etag();
    for route in ["files", "stream"] {
        for (range, wanted) in OF_1000 {
            let path = format!("/api/nfs/{route}/ranges/small");
            let answer = api.send(Method::GET, &path, &[("range", range)], "").await;
            let of = format!("{route}, Range: {range}");
            match wanted {
                Part(from, to) => {
                    assert_eq!(answer.status, 206, "{of}");
                    assert_eq!(answer.body, &content[*from as usize..*to as usize], "{of}");
                    let expected = format!("bytes {from}-{}/1000", to - 1);
                    assert_eq!(answer.header("content-range"), Some(expected.as_str()), "{of}");
                    assert_eq!(
                        answer.header("content-length"),
                        Some((to - from).to_string().as_str()),
                        "{of}"
                    );
                    assert_eq!(answer.etag(), etag, "{of}");
                }
                Whole => {
                    assert_eq!((answer.status, answer.body.as_ref()), (200, content.as_slice()), "{of}");
                    assert_eq!(answer.header("content-range"), None, "{of}");
                }
                Refused => {
                    answer.refused(416, "range_not_satisfiable");
                    assert_eq!(answer.header("content-range"), Some("bytes */1000"), "{of}");
                }
            }
        }
        let whole = api.send(Method::GET, &format!("/api/nfs/{route}/ranges/small"), &[], "").await.ok();
        assert_eq!(whole.header("accept-ranges"), Some("bytes"), "{route}");
    }
}

#[tokio::test]
async fn http_ranges_with_numbers_beyond_64_bits_do_no_harm() {
    let server = shared_server();
    let api = server.api();
    api.put("ranges/huge", "0123456789").await.ok();
    for range in [
        "bytes=0-18446744073709551615",
        "bytes=0-18446744073709551616",
        "bytes=18446744073709551615-",
        "bytes=18446744073709551616-",
        "bytes=-18446744073709551615",
        "bytes=-18446744073709551616",
        "bytes=9223372036854775807-9223372036854775808",
        "bytes=0-99999999999999999999999999999999999999999",
    ] {
        let answer = api.get_with("ranges/huge", &[("range", range)]).await;
        match answer.status {
            200 | 206 => assert_eq!(answer.body, "0123456789", "{range}"),
            416 => answer.refused(416, "range_not_satisfiable"),
            other => panic!("{range}: {other}"),
        }
    }
}

#[tokio::test]
async fn http_ranges_in_lists_are_whole_or_multipart() {
    let server = shared_server();
    let api = server.api();
    api.put("ranges/list", "0123456789").await.ok();
    for range in ["bytes=0-1,4-5", "bytes=0-1, -2", "bytes=0-0,1-1,2-2,3-3", "bytes=20-30,0-1"] {
        let answer = api.get_with("ranges/list", &[("range", range)]).await;
        match answer.status {
            200 => assert_eq!(answer.body, "0123456789", "{range}"),
            206 => {
                let kind = answer.header("content-type").unwrap_or("");
                let single = answer.header("content-range").is_some();
                assert!(kind.starts_with("multipart/byteranges") || single, "{range}: {kind}");
            }
            other => panic!("{range}: {other} {}", answer.text()),
        }
    }
    let many = format!("bytes={}", (0..2000).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(","));
    let answer = api.get_with("ranges/list", &[("range", &many)]).await;
    assert!(matches!(answer.status, 200 | 416), "{}", answer.status);
}

#[tokio::test]
async fn http_ranges_of_an_empty_file() {
    let server = shared_server();
    let api = server.api();
    api.put("ranges/empty", "").await.ok();
    for range in ["bytes=0-", "bytes=0-0", "bytes=5-9"] {
        let answer = api.get_with("ranges/empty", &[("range", range)]).await;
        answer.refused(416, "range_not_satisfiable");
        assert_eq!(answer.header("content-range"), Some("bytes */0"), "{range}");
    }
    assert_eq!(api.get_with("ranges/empty", &[("range", "nonsense")]).await.status, 200);
}

#[tokio::test]
async fn http_ranges_across_chunks() {
    let server = shared_server();
    let api = server.api();
    const MIB: u64 = 1 << 20;
    let pattern = Pattern::new(seed(), 20 * MIB + 123);
    api.put("ranges/large", pattern.bytes()).await.ok();
    for (from, to) in [
        (0, 1),
        (8 * MIB - 1, 8 * MIB),
        (8 * MIB, 8 * MIB + 1),
        (8 * MIB - 1, 8 * MIB + 1),
        (8 * MIB - 5, 16 * MIB + 5),
        (16 * MIB, pattern.len),
        (pattern.len - 1, pattern.len),
        (1, pattern.len - 1),
        (3 * MIB + 7, 5 * MIB + 11),
        // As long as one inner message, and around it.
        (1, 4 * MIB),
        (1, 4 * MIB + 1),
        (5, 4 * MIB + 6),
        (0, 4 * MIB - 100),
        (9 * MIB, 10 * MIB),
        (9 * MIB, 11 * MIB + 1),
    ] {
        for route in ["files", "stream"] {
            let path = format!("/api/nfs/{route}/{}", encode_path("ranges/large"));
            let range = format!("bytes={from}-{}", to - 1);
            let answer = api.send(Method::GET, &path, &[("range", &range)], "").await;
            assert_eq!((answer.status, answer.body.len() as u64), (206, to - from), "{route} {range}");
            assert!(pattern.matches_at(from, &answer.body), "{route} {range}: other bytes");
        }
    }
    let suffix = api.get_with("ranges/large", &[("range", "bytes=-9000000")]).await;
    assert_eq!(suffix.status, 206);
    assert!(pattern.matches_at(pattern.len - 9_000_000, &suffix.body) && suffix.body.len() == 9_000_000);
    let open = api.get_with("ranges/large", &[("range", "bytes=16777210-")]).await;
    assert!(open.status == 206 && pattern.matches_at(16_777_210, &open.body));
    assert_eq!(open.body.len() as u64, pattern.len - 16_777_210);
}
