//! Requests beyond their limits.

use crate::harness::{Raw, shared_server};

#[test]
fn http_limits_of_headers() {
    let server = shared_server();
    let get = "GET /api/nfs/list/ HTTP/1.1\r\n";
    for (name, headers) in [
        ("one header of 100 KiB", format!("X-Big: {}", "b".repeat(100 << 10))),
        ("80 headers of 1 KiB", many(80, 1024)),
        ("101 headers", many(101, 1)),
        ("5,000 headers", many(5000, 1)),
        ("a name of 100 KiB", format!("X-{}: x", "n".repeat(100 << 10))),
    ] {
        let answer = server.raw(&format!("{get}{headers}"), b"").unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(answer.status, 431, "{name}: {}", answer.text());
    }
    let answer = server.raw(&format!("{get}{}", many(60, 64)), b"").unwrap();
    assert_eq!(answer.status, 200, "60 headers: {}", answer.text());
}

fn many(count: usize, bytes: usize) -> String {
    (0..count).map(|n| format!("X-Many-{n}: {}", "v".repeat(bytes))).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn http_limits_of_the_request_line() {
    let server = shared_server();
    for bytes in [70_000, 200_000] {
        let head = format!("GET /api/nfs/files/{} HTTP/1.1", "x".repeat(bytes));
        let answer = server.raw(&head, b"").unwrap();
        assert!(matches!(answer.status, 400 | 414 | 431), "a path of {bytes} bytes: {}", answer.status);
    }
}

#[test]
fn http_limits_of_attributes() {
    let server = shared_server();
    let put = |headers: &str| {
        let head = format!("PUT /api/nfs/files/limits/attributes HTTP/1.1\r\nContent-Length: 1\r\n{headers}");
        server.raw(&head, b"x").unwrap()
    };
    let meta = |count: usize, bytes: usize| {
        (0..count)
            .map(|n| format!("X-Haystore-Meta-{n}: {}", "v".repeat(bytes)))
            .collect::<Vec<_>>()
            .join("\r\n")
    };
    for (name, headers) in [
        ("65 pairs of user metadata", meta(65, 1)),
        ("9 KiB of user metadata", meta(9, 1024)),
        ("a content type of 256 bytes", format!("Content-Type: text/{}", "x".repeat(251))),
        ("metadata without a name", "X-Haystore-Meta-: x".to_owned()),
    ] {
        let answer = put(&headers);
        assert!(matches!(answer.status, 400 | 413 | 431), "{name}: {} {}", answer.status, answer.text());
        assert_ne!(answer.error_code(), "internal", "{name}");
    }
    let answer = put(&meta(64, 8));
    assert!((200..300).contains(&answer.status), "64 pairs: {}", answer.text());
}

#[test]
fn http_limits_a_length_beyond_the_largest_file_is_refused_at_once() {
    let server = shared_server();
    for length in ["8796093022209", "9223372036854775807", "18446744073709551615"] {
        let head = format!("PUT /api/nfs/files/limits/huge HTTP/1.1\r\nContent-Length: {length}");
        let answer = server.raw(&head, b"some bytes").unwrap();
        // What no number of bytes can be is refused by the grammar of HTTP itself.
        assert!(matches!(answer.status, 400 | 413 | 431), "{length}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn http_limits_what_is_no_http_is_refused() {
    let server = shared_server();
    for request in [
        "\r\n\r\n\r\n",
        "HELLO\r\n\r\n",
        "GET\r\n\r\n",
        "GET /healthz\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nno colon here\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\n: empty name\r\n\r\n",
        "GET /health\0z HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
    ] {
        let mut raw = Raw::connect(server.address()).unwrap();
        raw.send(request.as_bytes()).unwrap();
        // It may have closed already.
        let _ = raw.end_of_sending();
        // Closed without a word, or refused: never an answer of success, and never the end of the server.
        if let Ok(answer) = raw.answer() {
            assert!((400..600).contains(&answer.status), "{request:?}: {}", answer.status);
        }
    }
    assert_eq!(server.raw("GET /healthz HTTP/1.1", b"").unwrap().status, 200);
}

#[test]
fn http_limits_older_clients_are_served() {
    let server = shared_server();
    let answer = server.raw("GET /healthz HTTP/1.0", b"").unwrap();
    assert_eq!(answer.status, 200);
    let put =
        server.raw("PUT /api/nfs/files/limits/old-client HTTP/1.0\r\nContent-Length: 2", b"hi").unwrap();
    assert!((200..300).contains(&put.status), "{}", put.text());
    assert_eq!(server.raw("GET /api/nfs/files/limits/old-client HTTP/1.0", b"").unwrap().text(), "hi");
}
