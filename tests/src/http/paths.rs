//! Paths: traversal in every encoding, what a name may be, files where directories are meant and the reverse.

use super::is_json_error;
use crate::harness::shared_server;

/// As they stand in the request line, after `/api/nfs/files/`.
const HOSTILE: &[&str] = &[
    "..",
    "../",
    "../x",
    "../../../../../../../../etc/passwd",
    "paths/..",
    "paths/../x",
    "paths/../../x",
    "%2e%2e/x",
    "%2E%2E/x",
    ".%2e/x",
    "%2e./x",
    "..%2fx",
    "..%2Fx",
    "%2e%2e%2fx",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "paths%2f..%2fx",
    "paths/%2e%2e",
    "paths/%2e%2e/",
    ".",
    "./x",
    "paths/.",
    "paths/./x",
    "paths/%2e/x",
    "%2e/x",
    "/x",
    "//x",
    "paths//x",
    "paths///x",
    "paths/x//",
    "%2fx",
    "%2f%2fx",
    "paths%2f%2fx",
    "paths/%2fx",
    "%00",
    "paths/x%00",
    "paths/x%00.txt",
    "paths/%00/x",
    "paths/%ff",
    "paths/%c3%28",
    "paths/%ed%a0%80",
    "paths/%c0%ae%c0%ae/x",
    "paths/%e0%80%af",
    "paths/%",
    "paths/%2",
    "paths/%zz",
    "paths/%u002e",
];

#[test]
fn http_paths_refuse_traversal_and_broken_names_in_every_encoding() {
    let server = shared_server();
    for path in HOSTILE {
        for (method, rest, body) in
            [("GET", "", ""), ("HEAD", "", ""), ("PUT", "\r\nContent-Length: 4", "evil"), ("DELETE", "", "")]
        {
            for route in ["files", "stream"] {
                if route == "stream" && !matches!(method, "GET" | "HEAD") {
                    continue;
                }
                let of = format!("{method} /api/nfs/{route}/{path}");
                let answer = server.raw(&format!("{of} HTTP/1.1{rest}"), body.as_bytes()).unwrap();
                if method == "HEAD" {
                    assert_eq!(answer.status, 400, "{of}");
                } else {
                    is_json_error(&answer, 400, "invalid_path", &of);
                }
            }
        }
    }
    for path in ["..", "../..", "%2e%2e", "a//b", "%00", "a/..", "%ff"] {
        let of = format!("GET /api/nfs/list/{path}");
        let answer = server.raw(&format!("{of} HTTP/1.1"), b"").unwrap();
        is_json_error(&answer, 400, "invalid_path", &of);
    }
}

#[tokio::test]
async fn http_paths_of_hostile_requests_left_nothing_behind() {
    let server = shared_server();
    for path in HOSTILE {
        let head = format!("PUT /api/nfs/files/{path} HTTP/1.1\r\nContent-Length: 4");
        server.raw(&head, b"evil").unwrap();
    }
    let api = server.api();
    for (path, kind) in api.list_all("", true, 1000).await {
        let evil = kind == "file" && api.get(&path).await.body == "evil";
        assert!(!evil, "a hostile PUT made {path:?}");
    }
    let above = server.dir().parent().unwrap();
    let names: Vec<_> = std::fs::read_dir(above).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "beside the data directory: {names:?}");
}

#[test]
fn http_paths_have_limits() {
    let server = shared_server();
    let put = |path: &str| {
        server.raw(&format!("PUT /api/nfs/files/{path} HTTP/1.1\r\nContent-Length: 1"), b"x").unwrap()
    };
    let segment = |bytes: usize| "s".repeat(bytes);
    let deep = |segments: usize| vec!["d"; segments].join("/");
    let long = |bytes: usize| {
        let mut path = vec![segment(200); bytes / 201].join("/");
        path.push('/');
        path.push_str(&segment(bytes - path.len()));
        path
    };
    assert_eq!(long(1024).len(), 1024);
    for (name, path) in [
        ("a segment of 256 bytes", format!("paths-limits/{}", segment(256))),
        ("a segment of 128 two-byte letters", format!("paths-limits/{}", "%C3%A9".repeat(128))),
        ("a path of 1,025 bytes", long(1025)),
        ("a path of 5,000 bytes", long(5000)),
        ("129 segments", deep(129)),
    ] {
        is_json_error(&put(&path), 400, "invalid_path", name);
    }
    for (name, path) in [
        ("a segment of 255 bytes", format!("paths-limits/{}", segment(255))),
        ("a path of 1,024 bytes", long(1024)),
        ("128 segments", deep(128)),
    ] {
        let answer = put(&path);
        assert!((200..300).contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
    }
}

#[tokio::test]
async fn http_paths_keep_unusual_names_as_they_are() {
    let server = shared_server();
    let api = server.api();
    let names = [
        "with space",
        "plus+plus",
        "percent%41",
        "%2e%2e%2fx",
        "question?mark",
        "hash#hash",
        "semi;colon",
        "amp&amp",
        "quote\"'quote",
        "back\\slash\\..\\x",
        "...",
        "..dots",
        ".hidden",
        "tilde~",
        "colon:colon",
        "line\nbreak",
        "tab\ttab",
        "del\u{7f}",
        "ünïcödé",
        "日本語",
        "🦀",
        "e\u{301}",
        "\u{e9}",
        "-rf",
        "CON",
        "a",
        "A",
    ];
    for (n, name) in names.iter().enumerate() {
        api.put(&format!("paths-names/{name}"), format!("content {n}")).await.ok();
    }
    for (n, name) in names.iter().enumerate() {
        let answer = api.get(&format!("paths-names/{name}")).await;
        assert_eq!((answer.status, answer.text()), (200, format!("content {n}")), "{name:?}");
    }
    let mut expected: Vec<String> = names.iter().map(|n| format!("paths-names/{n}")).collect();
    expected.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let listed: Vec<String> =
        api.list_all("paths-names", false, 5).await.into_iter().map(|(p, _)| p).collect();
    assert_eq!(listed, expected, "names are kept byte for byte and sorted as bytes");
    for name in names {
        api.delete(&format!("paths-names/{name}")).await.ok();
    }
}

#[test]
fn http_paths_take_an_encoded_slash_for_a_slash_or_refuse_it() {
    let server = shared_server();
    let put = server.raw("PUT /api/nfs/files/paths-slash%2Fx HTTP/1.1\r\nContent-Length: 1", b"x").unwrap();
    let get = server.raw("GET /api/nfs/files/paths-slash/x HTTP/1.1", b"").unwrap();
    if put.status == 400 {
        assert_eq!((put.error_code().as_str(), get.status), ("invalid_path", 404));
    } else {
        assert_eq!((put.status / 100, get.status, get.text().as_str()), (2, 200, "x"));
    }
}

#[tokio::test]
async fn http_paths_of_other_tenants_are_not_reached() {
    let server = shared_server();
    for path in ["tenant:other/x", "tenant:/x", "tenant:default/../x"] {
        let head = format!("PUT /api/nfs/files/{path} HTTP/1.1\r\nContent-Length: 1");
        let answer = server.raw(&head, b"x").unwrap();
        assert!(
            matches!(answer.status, 400 | 403 | 404),
            "`tenant:` is reserved at the front of a path: {path}: {} {}",
            answer.status,
            answer.text()
        );
    }
}

#[tokio::test]
async fn http_paths_files_and_directories_do_not_stand_in_for_each_other() {
    let server = shared_server();
    let api = server.api();
    api.put("kinds/file", "f").await.ok();
    api.put("kinds/dir/inner", "i").await.ok();

    api.put("kinds/file/below", "x").await.refused(409, "not_directory");
    api.put("kinds/file/", "").await.refused(409, "not_directory");
    api.put("kinds/dir", "x").await.refused(409, "is_directory");
    api.get("kinds/dir").await.refused(409, "is_directory");
    api.get("kinds/file/").await.refused(409, "not_directory");
    api.delete("kinds/dir").await.refused(409, "is_directory");
    api.delete("kinds/file/").await.refused(409, "not_directory");
    api.delete("kinds/dir/").await.refused(409, "directory_not_empty");
    api.list_page("kinds/file", "").await.refused(409, "not_directory");
    let below = api.get("kinds/file/below").await;
    assert!(matches!(below.status, 404 | 409), "{}", below.status);

    assert_eq!(api.get("kinds/file").await.ok().body, "f");
    assert_eq!(api.get("kinds/dir/inner").await.ok().body, "i");
}

#[tokio::test]
async fn http_paths_directories_are_made_kept_and_removed() {
    let server = shared_server();
    let api = server.api();
    api.put("dirs/empty/", "").await.ok();
    api.put("dirs/empty/", "").await.ok();
    let head = api.head("dirs/empty/").await.ok();
    assert_eq!(head.header("x-haystore-type"), Some("directory"));
    assert_eq!(api.head("dirs/empty").await.ok().header("x-haystore-type"), Some("directory"));
    assert_eq!(api.list_all("dirs", false, 10).await.len(), 1);
    assert!(api.list_all("dirs/empty", false, 10).await.is_empty());

    api.put("dirs/empty/now/not", "x").await.ok();
    api.delete("dirs/empty/now/not").await.ok();
    api.delete("dirs/empty/now/").await.ok();
    api.delete("dirs/empty/").await.ok();
    api.delete("dirs/empty/").await.refused(404, "not_found");
}
