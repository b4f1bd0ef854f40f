//! Bodies that are cut, too long, or not what they say they are: nothing of them appears.

use crate::harness::{Pattern, Raw, RawAnswer, Server, seed, sha256_hex, shared_server};

const MIB: usize = 1 << 20;

/// Sends the head and `sent` bytes, then ends the connection: half (reading on) or wholly.
fn cut(server: &Server, path: &str, framing: &str, sent: &[u8], half: bool) -> Option<RawAnswer> {
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.send(&server.request(&format!("PUT /api/nfs/files/{path} HTTP/1.1\r\n{framing}"), sent)).unwrap();
    if !half {
        return None;
    }
    raw.end_of_sending().unwrap();
    raw.answer().ok()
}

fn chunk_of(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

#[tokio::test]
async fn http_broken_bodies_cut_short_never_appear() {
    let server = shared_server();
    let api = server.api();
    api.put("broken/old", "the old content").await.ok();
    let seed = seed();
    for (name, announced, sent) in [
        ("nothing of a byte", 1, 0),
        ("half of a small one", 100, 50),
        ("all but the last byte", 70_000, 69_999),
        ("one whole chunk of two", 12 * MIB, 8 * MIB),
        ("two and a half chunks of three", 24 * MIB, 20 * MIB),
    ] {
        let body = Pattern::new(seed, sent as u64).bytes();
        for path in ["broken/new", "broken/old"] {
            for half in [true, false] {
                let of = format!("{name}, {path}, half close: {half}");
                let answer = cut(&server, path, &format!("Content-Length: {announced}"), &body, half);
                if let Some(answer) = answer {
                    assert_eq!(
                        (answer.status, answer.error_code().as_str()),
                        (400, "incomplete_body"),
                        "{of}"
                    );
                }
                assert_eq!(api.get("broken/new").await.status, 404, "{of}");
                assert_eq!(api.get("broken/old").await.body, "the old content", "{of}");
            }
        }
    }
}

#[tokio::test]
async fn http_broken_bodies_chunked_without_their_end_never_appear() {
    let server = shared_server();
    let api = server.api();
    let seed = seed();
    let whole = chunk_of(&Pattern::new(seed, 100).bytes());
    let large = chunk_of(&Pattern::new(seed, 9 * MIB as u64).bytes());
    let mut bad_size = whole.clone();
    bad_size.extend_from_slice(b"zz\r\nxx\r\n0\r\n\r\n");
    let mut over_long = b"5\r\nabcdefgh\r\n0\r\n\r\n".to_vec();
    over_long.extend_from_slice(&whole);
    let mut huge_size = whole.clone();
    huge_size.extend_from_slice(b"ffffffffffffffffff\r\nxx\r\n0\r\n\r\n");
    for (name, body) in [
        ("no last chunk", whole.clone()),
        ("a chunk cut in the middle", whole[..whole.len() - 30].to_vec()),
        ("no last chunk after two of ours", large.clone()),
        ("a last chunk without its line end", [whole.as_slice(), b"0\r"].concat()),
        ("a size that is no number", bad_size),
        ("a chunk longer than its size", over_long),
        ("a size beyond 64 bits", huge_size),
        ("no chunk at all", Vec::new()),
    ] {
        for half in [true, false] {
            let answer = cut(&server, "broken-chunked/new", "Transfer-Encoding: chunked", &body, half);
            if let Some(answer) = answer {
                assert_eq!(answer.status, 400, "{name}: {}", answer.text());
            }
            assert_eq!(api.get("broken-chunked/new").await.status, 404, "{name}, half close: {half}");
        }
    }
}

#[tokio::test]
async fn http_broken_bodies_longer_than_announced_add_nothing() {
    let server = shared_server();
    let api = server.api();
    api.put("broken-long/victim", "kept").await.ok();
    let smuggled =
        String::from_utf8(server.request("DELETE /api/nfs/files/broken-long/victim HTTP/1.1", b"")).unwrap();
    for (name, framing, body) in [
        ("ten bytes and ten more", "Content-Length: 10", "0123456789abcdefghij".to_owned()),
        ("ten bytes and a request", "Content-Length: 10", format!("0123456789{smuggled}")),
        (
            "both framings",
            "Content-Length: 10\r\nTransfer-Encoding: chunked",
            format!("a\r\n0123456789\r\n0\r\n\r\n{smuggled}"),
        ),
        ("two lengths", "Content-Length: 10\r\nContent-Length: 15", format!("0123456789{smuggled}")),
        ("a list of lengths", "Content-Length: 10, 15", format!("0123456789{smuggled}")),
        ("a signed length", "Content-Length: +10", format!("0123456789{smuggled}")),
        ("a negative length", "Content-Length: -10", format!("0123456789{smuggled}")),
        ("a length of words", "Content-Length: ten", format!("0123456789{smuggled}")),
        (
            "an unknown coding",
            "Transfer-Encoding: xchunked",
            format!("a\r\n0123456789\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked that is not last",
            "Transfer-Encoding: chunked, identity",
            format!("a\r\n0123456789\r\n0\r\n\r\n{smuggled}"),
        ),
    ] {
        let head = format!("PUT /api/nfs/files/broken-long/new HTTP/1.1\r\n{framing}");
        // `Connection: close` is in the head: nothing after the body may count as a request.
        let answer = server.raw(&head, body.as_bytes());
        let stored = api.get("broken-long/new").await;
        assert!(
            stored.status == 404 || stored.body == "0123456789",
            "{name}: answered {answer:?}, stored {:?}",
            stored.text()
        );
        assert_eq!(
            api.get("broken-long/victim").await.body,
            "kept",
            "{name}: a smuggled request was executed"
        );
        api.delete("broken-long/new").await;
    }
}

#[tokio::test]
async fn http_broken_bodies_of_another_digest_never_appear() {
    let server = shared_server();
    let api = server.api();
    api.put("digest/old", "old").await.ok();
    let large = Pattern::new(seed(), 17 * MIB as u64).bytes();
    let wrong = sha256_hex(b"something else");
    for (name, body) in [("small", b"small".to_vec()), ("empty", Vec::new()), ("three chunks", large)] {
        let right = sha256_hex(&body);
        for path in ["digest/new", "digest/old"] {
            let answer = api.put_with(path, &[(super::DIGEST_HEADER, &wrong)], body.clone()).await;
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (400, "digest_mismatch"),
                "{name}, {path}"
            );
        }
        assert_eq!(api.get("digest/new").await.status, 404, "{name}");
        assert_eq!(api.get("digest/old").await.body, "old", "{name}");
        api.put_with("digest/new", &[(super::DIGEST_HEADER, &right)], body.clone()).await.ok();
        assert!(api.get("digest/new").await.body == body, "{name}");
        api.delete("digest/new").await.ok();
    }
    for garbage in ["", "not a digest", "abcd", &"g".repeat(64)] {
        let answer = api.put_with("digest/new", &[(super::DIGEST_HEADER, garbage)], "small").await;
        answer.refused(400, "invalid_argument");
    }
    // The standard's own header (RFC 9530), right and wrong.
    let field = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    api.put_with("digest/standard", &[("content-digest", field)], "hello").await.ok();
    api.put_with("digest/standard", &[("content-digest", field)], "other")
        .await
        .refused(400, "digest_mismatch");
    assert_eq!(api.get("digest/standard").await.body, "hello");
}

#[tokio::test]
async fn http_broken_bodies_that_wait_for_a_hundred() {
    let server = shared_server();
    let mut raw = Raw::connect(server.address()).unwrap();
    let head = "PUT /api/nfs/files/broken/expect HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue";
    raw.send(&server.request(head, b"")).unwrap();
    raw.send(b"hello").unwrap();
    let answer = raw.answer().unwrap();
    assert!((200..300).contains(&answer.status), "{}", answer.status);
    assert_eq!(server.api().get("broken/expect").await.body, "hello");
}

#[tokio::test]
async fn http_broken_bodies_that_are_not_announced_at_all_are_refused() {
    let server = shared_server();
    let api = server.api();
    api.put("broken-length/old", "old").await.ok();
    for path in ["broken-length/old", "broken-length/new"] {
        let answer = server.raw(&format!("PUT /api/nfs/files/{path} HTTP/1.1"), b"some bytes").unwrap();
        assert_eq!((answer.status, answer.error_code().as_str()), (411, "invalid_argument"), "{path}");
    }
    assert_eq!(api.get("broken-length/old").await.body, "old", "nothing took its place");
    assert_eq!(api.get("broken-length/new").await.status, 404);
}
