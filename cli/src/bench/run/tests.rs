//! The floors run for a second each, and the choices that need no server.

use super::*;
use crate::api::scripted::{Act, answer, play};
use crate::bench::sync::SyncFloor;
use crate::bench::{grpc, http};
use clap::Parser;
use hay_common::clock::SystemClock;
use hay_common::random::SeededRandom;
use std::future::Future;
use tokio::net::TcpListener;

/// Runs `load` for a second against a server on a thread of its own.
fn against<L: Load, F>(
    size: u64,
    serve: impl FnOnce(TcpListener, bytes::Bytes) -> F + Send + 'static,
    load: impl FnOnce(SocketAddr, Contents) -> L,
) -> Slice
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let contents = Contents::new(3, size);
    let object = contents.whole(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve(listener, object));
    let load = load(address, contents);
    let extent =
        Extent { from: 0, count_max: u64::MAX, time_max: Duration::from_secs(1), concurrency: 4, threads: 2 };
    load::run(&load, extent, SystemClock::shared().as_ref(), &AtomicBool::new(false)).unwrap()
}

#[test]
fn the_http_floor_answers_reads_and_swallows_writes() {
    for ask in [Ask::Write, Ask::Read(Reads::First)] {
        for size in [4096, 300_000] {
            let slice = against(size, http::serve, |a, c| HttpLoad::new(a, None, "p/", c, ask));
            assert!(slice.ops > 0, "{ask:?} {size}");
        }
    }
}

#[test]
fn a_read_that_brings_another_object_is_an_error() {
    let contents = Contents::new(3, 4096);
    let other = contents.whole(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(http::serve(listener, other));
    let load = HttpLoad::new(address, None, "p/", contents, Ask::Read(Reads::First));
    let extent =
        Extent { from: 0, count_max: 1, time_max: Duration::from_secs(60), concurrency: 1, threads: 1 };
    let slice = load::run(&load, extent, SystemClock::shared().as_ref(), &AtomicBool::new(false));
    assert!(matches!(slice, Err(LoadError::Wrong(_))));
}

#[test]
fn the_grpc_floor_exchanges_whole_objects() {
    for (size, exchange) in [
        (3 << 20, Exchange::ReadStream),
        (3 << 20, Exchange::WriteStream),
        (4096, Exchange::ReadCalls),
        (CALL_BYTES_MAX, Exchange::WriteCalls),
    ] {
        let load = |address, contents| GrpcLoad::new(address, contents, exchange);
        assert!(against(size, grpc::serve, load).ops > 0, "{exchange:?}");
    }
}

#[test]
fn the_sync_floor_groups_its_writes() {
    let dir = tempfile::tempdir().unwrap();
    let random = SeededRandom::shared(4);
    let data = Contents::new(4, 4096).whole(0);
    let floor = SyncFloor::prepare(dir.path(), data, 8, random.as_ref()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
    let slice = floor.run(Duration::from_secs(1), SystemClock::shared().as_ref()).unwrap();
    assert!(slice.ops > 0 && slice.syncs > 0 && slice.syncs <= slice.ops, "{slice:?}");
}

#[test]
fn durability_is_found_wherever_the_status_has_it() {
    let status = serde_json::json!({ "master": { "durability": "" }, "filer": [{ "durability": "sync" }] });
    assert_eq!(find_durability(&status).as_deref(), Some("sync"));
    assert_eq!(find_durability(&serde_json::json!({})), None);
}

#[test]
fn only_plain_http_is_measured() {
    let target = |server: &str| Target {
        servers: server.split(',').map(str::to_owned).collect(),
        token: crate::config::Token::new("t"),
        credentials: None,
    };
    assert_eq!(address_of(&target("http://127.0.0.1:81")).unwrap(), "127.0.0.1:81".parse().unwrap());
    assert_eq!(address_of(&target("http://[::1]")).unwrap(), "[::1]:80".parse().unwrap());
    assert!(address_of(&target("https://127.0.0.1:81")).is_err());
    assert!(address_of(&target("http://127.0.0.1:81,http://127.0.0.1:82")).is_err());
}

/// What `hay bench --prefix /mine` did to a server that answers its first request so.
fn refused_prefix(answer: Vec<u8>) -> (Result<Exit, Stop>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let script = std::iter::once(answer).chain(std::iter::repeat_n(b"HTTP/1.1 500 No\r\n\r\n".to_vec(), 4));
    let (client, log) = runtime.block_on(play(script.map(Act::Answer).collect()));
    let cli = crate::flags::Cli::parse_from(["hay", "bench", "--prefix", "/mine"]);
    let crate::flags::Command::Bench(args) = cli.command else { panic!() };
    let outcome = run(args, Context { client, out: Output::new(true), clock: SystemClock::shared() });
    let asked = log.lock().iter().map(|asked| asked.head.lines().next().unwrap().to_owned()).collect();
    (outcome, asked)
}

#[test]
fn a_directory_that_was_there_before_is_left_alone() {
    let only_new = vec!["PUT /api/nfs/files/mine/ HTTP/1.1".to_owned()];
    let body = br#"{"error":{"code":"is_directory","message":"directory exists already"}}"#;
    let (outcome, asked) = refused_prefix(answer("409 Conflict", "", body));
    assert_eq!((outcome.unwrap_err().exit, asked), (Exit::Usage, only_new.clone()));
    // What is there can't be told: so nothing of it may be removed.
    let body = br#"{"error":{"code":"forbidden","message":"no"}}"#;
    let (outcome, asked) = refused_prefix(answer("403 Forbidden", "", body));
    assert_eq!((outcome.unwrap_err().exit, asked), (Exit::Denied, only_new));
}
