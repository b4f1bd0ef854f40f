//! Conditional requests: ETag, If-Match, If-None-Match, If-Range, If-Modified-Since.

use futures::future::join_all;

use crate::harness::{etag_of, shared_server};

const OTHER: &str = "\"0000000000000000000000000000000000000000000000000000000000000000\"";
const LONG_AGO: &str = "Thu, 01 Jan 1998 00:00:00 GMT";
const FAR_AHEAD: &str = "Fri, 01 Jan 2100 00:00:00 GMT";

/// What is asked, with which headers, and the status of the answer.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

#[tokio::test]
async fn http_conditions_on_reads() {
    let server = shared_server();
    let api = server.api();
    api.put("conditions/read", "content").await.ok();
    let etag = etag_of(b"content");
    let modified = api.head("conditions/read").await.ok().header("last-modified").unwrap().to_owned();
    let weak = format!("W/{etag}");
    let listed = format!("{OTHER}, {etag}, \"more\"");
    let others = format!("{OTHER}, \"more\"");
    let cases: &[Case<'_>] = &[
        ("If-Match, right", &[("if-match", &etag)], 200),
        ("If-Match, any", &[("if-match", "*")], 200),
        ("If-Match, one of a list", &[("if-match", &listed)], 200),
        ("If-Match, wrong", &[("if-match", OTHER)], 412),
        ("If-Match compares strongly", &[("if-match", &weak)], 412),
        ("If-None-Match, right", &[("if-none-match", &etag)], 304),
        ("If-None-Match compares weakly", &[("if-none-match", &weak)], 304),
        ("If-None-Match, any", &[("if-none-match", "*")], 304),
        ("If-None-Match, one of a list", &[("if-none-match", &listed)], 304),
        ("If-None-Match, others", &[("if-none-match", &others)], 200),
        ("If-Modified-Since, same", &[("if-modified-since", &modified)], 304),
        ("If-Modified-Since, later", &[("if-modified-since", FAR_AHEAD)], 304),
        ("If-Modified-Since, long ago", &[("if-modified-since", LONG_AGO)], 200),
        ("If-Modified-Since, no date", &[("if-modified-since", "yesterday")], 200),
        (
            "If-None-Match stands above If-Modified-Since",
            &[("if-none-match", OTHER), ("if-modified-since", FAR_AHEAD)],
            200,
        ),
        ("both conditions", &[("if-match", &etag), ("if-none-match", &etag)], 304),
    ];
    for (name, headers, status) in cases {
        let get = api.get_with("conditions/read", headers).await;
        assert_eq!(get.status, *status, "GET, {name}: {}", get.text());
        match status {
            200 => assert_eq!(get.body, "content", "{name}"),
            304 => assert_eq!((get.body.len(), get.etag()), (0, etag.clone()), "{name}"),
            _ => get.refused(412, "precondition_failed"),
        }
        let head = api.head_with("conditions/read", headers).await;
        assert_eq!(head.status, *status, "HEAD, {name}");
    }
    let absent = api.get_with("conditions/absent", &[("if-match", "*")]).await;
    assert!(matches!(absent.status, 404 | 412), "{}", absent.status);
    assert_eq!(api.get_with("conditions/absent", &[("if-none-match", "*")]).await.status, 404);
}

#[tokio::test]
async fn http_conditions_on_ranges() {
    let server = shared_server();
    let api = server.api();
    api.put("conditions/range", "0123456789").await.ok();
    let etag = etag_of(b"0123456789");
    let modified = api.head("conditions/range").await.ok().header("last-modified").unwrap().to_owned();
    let weak = format!("W/{etag}");
    for (name, value, part) in [
        ("the ETag", etag.as_str(), Some(true)),
        ("another ETag", OTHER, Some(false)),
        ("a weak ETag never matches", weak.as_str(), Some(false)),
        ("an old date", LONG_AGO, Some(false)),
        // A date may only match when it is strong (a second before now): both are right.
        ("its own date", modified.as_str(), None),
    ] {
        let answer = api.get_with("conditions/range", &[("range", "bytes=2-4"), ("if-range", value)]).await;
        let expected: (u16, &str) = match part.unwrap_or(answer.status == 206) {
            true => (206, "234"),
            false => (200, "0123456789"),
        };
        assert_eq!((answer.status, answer.text().as_str()), expected, "If-Range: {name}");
    }
    let changed = api.get_with("conditions/range", &[("range", "bytes=2-4"), ("if-match", OTHER)]).await;
    changed.refused(412, "precondition_failed");
    let same = api.get_with("conditions/range", &[("range", "bytes=2-4"), ("if-none-match", &etag)]).await;
    assert_eq!(same.status, 304);
}

#[tokio::test]
async fn http_conditions_on_writes() {
    let server = shared_server();
    let api = server.api();
    let only_new: &[(&str, &str)] = &[("if-none-match", "*")];

    api.put_with("conditions/new", only_new, "first").await.ok();
    api.put_with("conditions/new", only_new, "second").await.refused(412, "precondition_failed");
    // Even what would change nothing.
    api.put_with("conditions/new", only_new, "first").await.refused(412, "precondition_failed");
    assert_eq!(api.get("conditions/new").await.body, "first");

    let (first, third) = (etag_of(b"first"), etag_of(b"third"));
    api.put_with("conditions/new", &[("if-match", OTHER)], "lost").await.refused(412, "precondition_failed");
    api.put_with("conditions/new", &[("if-match", &first)], "third").await.ok();
    api.put_with("conditions/new", &[("if-match", &first)], "lost").await.refused(412, "precondition_failed");
    api.put_with("conditions/new", &[("if-none-match", &third)], "lost")
        .await
        .refused(412, "precondition_failed");
    api.put_with("conditions/new", &[("if-none-match", &first)], "fourth").await.ok();
    assert_eq!(api.get("conditions/new").await.body, "fourth");
    api.put_with("conditions/absent", &[("if-match", "*")], "lost").await.refused(412, "precondition_failed");
    assert_eq!(api.get("conditions/absent").await.status, 404);

    // No larger than what is read of a body that nobody wants: beyond it the answer may be lost to a reset.
    let large = vec![7u8; 7 << 20];
    api.put_with("conditions/new", only_new, large.clone()).await.refused(412, "precondition_failed");
    api.put_with("conditions/large", only_new, large.clone()).await.ok();
    api.put_with("conditions/large", only_new, large).await.refused(412, "precondition_failed");

    api.delete_with("conditions/new", &[("if-match", &first)]).await.refused(412, "precondition_failed");
    api.delete_with("conditions/new", &[("if-match", &etag_of(b"fourth"))]).await.ok();
    assert_eq!(api.get("conditions/new").await.status, 404);
}

#[tokio::test]
async fn http_conditions_that_cannot_be_read_never_let_a_write_through() {
    let server = shared_server();
    let api = server.api();
    api.put("conditions/garbage", "kept").await.ok();
    for value in ["garbage", "\"unclosed", "W/", ",", "\"a\" \"b\"", "'single'"] {
        let answer = api.put_with("conditions/garbage", &[("if-match", value)], "lost").await;
        assert!(matches!(answer.status, 400 | 412), "If-Match: {value}: {}", answer.status);
        let answer = api.delete_with("conditions/garbage", &[("if-match", value)]).await;
        assert!(matches!(answer.status, 400 | 412), "If-Match: {value}: {}", answer.status);
    }
    assert_eq!(api.get("conditions/garbage").await.body, "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_conditions_let_one_of_many_writers_win() {
    let server = shared_server();
    let api = server.api();
    for round in 0..10 {
        let path = format!("conditions/race-{round}");
        let only_new: &[(&str, &str)] = &[("if-none-match", "*")];
        let writers = (0..16).map(|n| {
            let (api, path) = (api.clone(), path.clone());
            async move { (n, api.put_with(&path, only_new, format!("writer {n}")).await.status) }
        });
        let results = join_all(writers).await;
        let winners: Vec<i32> = results.iter().filter(|(_, s)| *s < 300).map(|(n, _)| *n).collect();
        assert_eq!(winners.len(), 1, "one writer wins: {results:?}");
        assert!(results.iter().all(|(_, s)| *s < 300 || *s == 412), "{results:?}");
        let stored = api.get(&path).await.text();
        assert_eq!(stored, format!("writer {}", winners[0]), "the winner's bytes are there");

        // Compare and swap: everybody adds one to the same version, one gets through.
        let etag = etag_of(stored.as_bytes());
        let swaps = (0..16).map(|n| {
            let (api, path, etag) = (api.clone(), path.clone(), etag.clone());
            async move { api.put_with(&path, &[("if-match", &etag)], format!("swap {n}")).await.status }
        });
        let swapped = join_all(swaps).await.into_iter().filter(|s| *s < 300).count();
        assert_eq!(swapped, 1, "round {round}");
    }
}
