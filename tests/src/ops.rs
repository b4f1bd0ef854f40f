//! What an operator meets: health, metrics, directories, ports, files and logs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;

use crate::harness::{Ran, Server, Start, eventually, hay_binary, hay_within, shared_server};

/// Starts a server that must not come up: it ends by itself, with a reason.
#[track_caller]
fn refused(dir: &Path, http: &str) -> Ran {
    hay_within(REFUSED_WITHIN, &["server", "--dir", dir.to_str().unwrap(), "--http", http])
}

/// A start that is refused looks at a few files.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn ops_a_busy_port_is_named_with_its_flag() {
    let server = shared_server();
    let other = tempfile::tempdir().unwrap();
    let address = server.address().to_string();
    refused(&other.path().join("data"), &address).fails_naming(&[&address, "--http"]);
    // Nothing that was half made stands in the way of the next start.
    let start = Start { dir: Some(other.path().join("data")), ..Start::default() };
    drop(Server::start_with(start));
}

#[test]
fn ops_a_second_server_on_the_same_directory_is_refused() {
    let server = shared_server();
    let named = server.dir().to_str().unwrap().to_owned();
    let ran = refused(server.dir(), "127.0.0.1:0").fails_naming(&[&named]);
    assert!(ran.stderr.contains("in use"), "{}", ran.stderr);
    assert_eq!(server.raw("GET /readyz HTTP/1.1", b"").unwrap().status, 200, "the first one goes on");
}

#[test]
fn ops_the_lock_ends_with_the_process() {
    let mut server = Server::start();
    server.kill();
    server.restart();
    assert!(server.stop().success());
    server.restart();
}

#[test]
fn ops_a_directory_that_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    refused(dir.path(), "127.0.0.1:0").fails_naming(&[dir.path().to_str().unwrap()]);
    assert_eq!(fs::read_to_string(dir.path().join("thesis.tex")).unwrap(), "years of work");

    let file = dir.path().join("thesis.tex");
    refused(&file, "127.0.0.1:0").fails_naming(&["thesis.tex"]);
}

#[test]
fn ops_directories_of_other_formats_are_refused_and_left_alone() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    let mut server = Server::start_with(Start { dir: Some(dir.clone()), ..Start::default() });
    assert!(server.stop().success());
    let format = dir.join("format");
    let ours = fs::read(&format).unwrap();
    for (text, word) in [("999\n", "newer"), ("0\n", "early"), ("one\n", "damaged"), ("", "damaged")] {
        fs::write(&format, text).unwrap();
        refused(&dir, "127.0.0.1:0").fails_naming(&[word, dir.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(&format).unwrap(), text, "it was changed");
    }
    fs::write(&format, ours).unwrap();
    server.restart();
}

#[tokio::test]
async fn ops_lost_and_damaged_parts_are_named_not_made_anew() {
    for (part, whole) in [("volume", true), ("filer", true), ("master", true), ("cluster.key", false)] {
        let holder = tempfile::tempdir().unwrap();
        let dir = holder.path().join("data");
        let mut server = Server::start_with(Start { dir: Some(dir.clone()), ..Start::default() });
        server.api().put("kept", "kept").await.ok();
        assert!(server.stop().success());
        let (path, aside) = (dir.join(part), holder.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        refused(&dir, "127.0.0.1:0").fails_naming(&[part]);
        if whole {
            fs::create_dir_all(&path).unwrap();
            refused(&dir, "127.0.0.1:0").fails_naming(&[]);
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::write(&path, b"not a key").unwrap();
            refused(&dir, "127.0.0.1:0").fails_naming(&[part]);
            let _ = fs::remove_file(&path);
        }
        fs::rename(&aside, &path).unwrap();
        server.restart();
        assert_eq!(
            server.api().get("kept").await.ok().body,
            "kept",
            "{part} is back, and everything with it"
        );
    }
}

#[tokio::test]
async fn ops_health_readiness_and_metrics() {
    let server = shared_server();
    let api = server.api();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(api.send(Method::GET, path, &[], "").await.status, 200, "{path}");
    }
    api.put("ops/metrics", "x").await.ok();
    let metrics = api.send(Method::GET, "/metrics", &[], "").await.ok();
    let kind = metrics.header("content-type").unwrap_or("").to_owned();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let text = metrics.text();
    for name in [
        "hay_rpc_client_calls_total",
        "hay_rpc_calls_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(text.lines().any(|l| l.starts_with(name)), "no {name} in /metrics");
    }
    assert!(!text.contains(server.token()));
}

#[tokio::test]
async fn ops_credentials_are_private_and_follow_the_port() {
    let mut server = Server::start();
    let mode = |server: &Server| fs::metadata(server.credentials()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server), 0o600);
    assert_eq!(fs::metadata(server.dir().join("cluster.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let token = server.token().to_owned();
    assert!(token.len() >= 32, "a token of {} characters", token.len());
    server.restart();
    assert_eq!(mode(&server), 0o600);
    assert_eq!(server.token(), token, "the token stays");
    let text = fs::read_to_string(server.credentials()).unwrap();
    assert!(text.contains(&server.url()), "the file names the new address: {}", server.url());

    // Whoever loses the file keeps the data: the way out is documented by the message, not by a silent new token.
    fs::remove_file(server.credentials()).unwrap();
    assert_eq!(server.api().list_page("", "").await.status, 200, "the server does not need the file");
}

#[tokio::test]
async fn ops_the_token_and_the_key_never_stand_in_the_log() {
    let mut server =
        Server::start_with(Start { args: vec!["--log-format".into(), "json".into()], ..Start::default() });
    let api = server.api();
    api.put("ops/log", "x").await.ok();
    api.with_token(Some("hay_wrong_token_0123456789")).get("ops/log").await.refused(401, "unauthenticated");
    api.get("ops/missing").await.refused(404, "not_found");
    server.raw("GET /api/nfs/files/../x HTTP/1.1", b"").unwrap();
    let token = server.token().to_owned();
    assert!(server.stop().success());
    server.restart();
    let log = server.log();
    assert!(!log.contains(&token), "the administrator's token stands in the log");
    assert!(!log.contains("hay_wrong_token_0123456789"), "a token that was tried stands in the log");
    let key = fs::read(server.dir().join("cluster.key")).unwrap();
    let hex = hex::encode(&key);
    assert!(!log.contains(&hex[hex.len().saturating_sub(32)..]), "the cluster key stands in the log");
    assert!(!log.is_empty(), "there is a log");
    for line in log.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "with --log-format json every line is JSON: {line:?}");
    }
}

#[test]
fn ops_addresses_beyond_loopback_are_told_loudly() {
    let mut server = Server::start_with(Start {
        args: vec!["--http".into(), "0.0.0.0:0".into()],
        port_only: true,
        ..Start::default()
    });
    let log = server.log().to_lowercase();
    assert!(log.contains("tls") && log.contains("warn"), "no warning: {log}");
    assert!(server.stop().success());
}

#[test]
fn ops_more_files_than_the_soft_limit_allows() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // As a shell with `ulimit -Sn 256` starts it.
    let script = format!(
        "ulimit -Sn 256; exec '{}' server --dir '{}' --http 127.0.0.1:0",
        hay_binary().display(),
        data.display()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limits = eventually("it raises its limit of open files", Duration::from_secs(30), || {
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).map_err(|e| e.to_string())?;
        let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap_or("").to_owned();
        let soft: u64 = line.split_whitespace().nth(3).and_then(|n| n.parse().ok()).unwrap_or(0);
        let hard: u64 = line.split_whitespace().nth(4).and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
        if soft >= hard.min(65_536) && soft > 256 { Ok(soft) } else { Err(line) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(limits > 256);
}
