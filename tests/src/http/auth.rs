//! A bearer token on everything but health, and no other way in.

use reqwest::Method;

use super::is_json_error;
use crate::harness::{Raw, shared_server};

/// Every route with each of its methods.
const GUARDED: &[(&str, &str)] = &[
    ("GET", "/api/nfs/files/auth/file"),
    ("HEAD", "/api/nfs/files/auth/file"),
    ("PUT", "/api/nfs/files/auth/file"),
    ("DELETE", "/api/nfs/files/auth/file"),
    ("PUT", "/api/nfs/files/auth/new/"),
    ("GET", "/api/nfs/stream/auth/file"),
    ("HEAD", "/api/nfs/stream/auth/file"),
    ("GET", "/api/nfs/list/auth"),
    ("GET", "/api/nfs/list/"),
    ("GET", "/api/nfs/cluster/status"),
    ("GET", "/api/nfs/volumes"),
    ("GET", "/api/nfs/no/such/route"),
    ("POST", "/api/nfs/files/auth/file"),
    ("GET", "/api"),
    ("GET", "/"),
    ("GET", "/healthz/deeper"),
    ("GET", "/healthzz"),
];

#[tokio::test]
async fn http_auth_refuses_every_guarded_route_without_the_right_token() {
    let server = shared_server();
    let api = server.api();
    api.put("auth/file", "kept").await.ok();
    let good = server.token().to_owned();
    let almost = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let credentials = [
        ("no header", String::new()),
        ("another token", "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n".to_owned()),
        ("one digit wrong", format!("Authorization: Bearer {almost}\r\n")),
        ("a prefix of the token", format!("Authorization: Bearer {}\r\n", &good[..good.len() / 2])),
        ("the token and more", format!("Authorization: Bearer {good}0\r\n")),
        ("an empty token", "Authorization: Bearer \r\n".to_owned()),
        ("no scheme", format!("Authorization: {good}\r\n")),
        ("basic", "Authorization: Basic YWRtaW46YWRtaW4=\r\n".to_owned()),
        ("not ASCII", "Authorization: Bearer \u{e9}\u{e9}\r\n".to_owned()),
        ("longer than any token", format!("Authorization: Bearer {}\r\n", "a".repeat(2000))),
        ("another header", format!("X-Auth-Token: {good}\r\n")),
        ("cookie", format!("Cookie: token={good}\r\n")),
    ];
    for (method, route) in GUARDED {
        for (name, header) in &credentials {
            let body = if *method == "PUT" { "Content-Length: 3\r\n\r\nbad" } else { "\r\n" };
            let request = format!(
                "{method} {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}{body}"
            );
            let of = format!("{method} {route} with {name}");
            let answer =
                Raw::exchange(server.address(), request.as_bytes()).unwrap_or_else(|e| panic!("{of}: {e}"));
            if *method == "HEAD" {
                assert_eq!(answer.status, 401, "{of}");
            } else {
                is_json_error(&answer, 401, "unauthenticated", &of);
            }
            let challenge = answer.header("www-authenticate").unwrap_or("");
            assert!(challenge.starts_with("Bearer"), "{of}: 401 without a challenge: {challenge:?}");
            assert!(!answer.text().contains(&good), "{of}: the answer holds the token");
        }
    }
    let in_query = format!("/api/nfs/files/auth/file?token={good}&access_token={good}");
    let answer = api.with_token(None).send(Method::GET, &in_query, &[], "").await;
    answer.refused(401, "unauthenticated");

    assert_eq!(api.get("auth/file").await.ok().body, "kept");
    assert_eq!(api.head("auth/new/").await.status, 404);
}

#[tokio::test]
async fn http_auth_leaves_health_open() {
    let server = shared_server();
    let nobody = server.api().with_token(None);
    for path in ["/healthz", "/readyz"] {
        let answer = nobody.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!answer.text().contains(server.token()));
    }
}

#[tokio::test]
async fn http_auth_accepts_the_scheme_in_any_case() {
    let server = shared_server();
    server.api().put("auth-case/file", "x").await.ok();
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {}", server.token());
        let answer = server
            .api()
            .with_token(None)
            .send(Method::GET, "/api/nfs/files/auth-case/file", &[("authorization", &value)], "")
            .await;
        assert_eq!(answer.status, 200, "{scheme}");
    }
}
