//! Routes and methods.

use super::is_json_error;
use crate::harness::shared_server;

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"];

/// Each route with the methods that it knows.
const ROUTES: &[(&str, &[&str])] = &[
    ("/api/nfs/files/routes/file", &["GET", "HEAD", "PUT", "DELETE"]),
    ("/api/nfs/stream/routes/file", &["GET", "HEAD"]),
    ("/api/nfs/list/routes", &["GET", "HEAD"]),
    ("/api/nfs/cluster/status", &["GET", "HEAD"]),
    ("/healthz", &["GET", "HEAD"]),
    ("/readyz", &["GET", "HEAD"]),
    ("/metrics", &["GET", "HEAD"]),
];

#[test]
fn http_routes_refuse_methods_that_they_do_not_know() {
    let server = shared_server();
    for (route, known) in ROUTES {
        for method in METHODS.iter().filter(|m| !known.contains(m)) {
            let of = format!("{method} {route}");
            let answer = server.raw(&format!("{of} HTTP/1.1\r\nContent-Length: 0"), b"").unwrap();
            is_json_error(&answer, 405, "method_not_allowed", &of);
            let allow = answer.header("allow").unwrap_or("");
            assert!(allow.contains("GET"), "{of}: 405 without a word on what is allowed: {allow:?}");
        }
    }
}

#[test]
fn http_routes_that_do_not_exist_are_not_found() {
    let server = shared_server();
    for route in [
        "/",
        "/api",
        "/api/nfs",
        "/api/nfs/",
        "/api/nfs/nothing",
        "/api/nfs/filesx",
        "/index.html",
        "/api/s3/x",
    ] {
        let answer = server.raw(&format!("GET {route} HTTP/1.1"), b"").unwrap();
        is_json_error(&answer, 404, "not_found", route);
    }
}

#[test]
fn http_routes_answer_what_is_missing_with_404() {
    let server = shared_server();
    for request in [
        "GET /api/nfs/files/routes-missing/x",
        "DELETE /api/nfs/files/routes-missing/x",
        "DELETE /api/nfs/files/routes-missing/",
        "GET /api/nfs/stream/routes-missing/x",
        "GET /api/nfs/list/routes-missing",
        "GET /api/nfs/list/routes-missing/deeper",
    ] {
        let answer = server.raw(&format!("{request} HTTP/1.1"), b"").unwrap();
        is_json_error(&answer, 404, "not_found", request);
    }
    for request in ["HEAD /api/nfs/files/routes-missing/x", "HEAD /api/nfs/stream/routes-missing/x"] {
        let answer = server.raw(&format!("{request} HTTP/1.1"), b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{request}");
    }
}

#[test]
fn http_every_answer_has_a_request_id_and_hides_the_token() {
    let server = shared_server();
    let mut seen = std::collections::BTreeSet::new();
    for request in ["GET /healthz", "GET /api/nfs/list/", "GET /api/nfs/files/no-such-file", "GET /nowhere"] {
        let answer = server.raw(&format!("{request} HTTP/1.1"), b"").unwrap();
        let id = answer.header("x-request-id").unwrap_or_else(|| panic!("{request}: no X-Request-Id"));
        assert!(id.len() >= 8, "{request}: {id:?}");
        assert!(seen.insert(id.to_owned()), "{request}: the id {id} came twice");
        assert!(!answer.text().contains(server.token()), "{request}");
    }
}
