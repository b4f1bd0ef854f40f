//! Every acknowledged write is there and whole after a crash, and nothing is ever half there.

pub mod history;
pub mod load;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Pattern, Server, Start, amount, heavy, pattern_bytes, seed};
use history::History;
use load::Load;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_in_the_middle_of_writes_loses_nothing_acknowledged() {
    let _turn = heavy().await;
    let rounds = amount("HAY_ROUNDS", 4, 20);
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    let mut history = History::new(seed);
    for round in 0..rounds {
        let load = Load::start(server.api(), history, random.random());
        tokio::time::sleep(Duration::from_millis(random.random_range(200..2_000))).await;
        server.kill();
        history = load.stop().await;
        // Some starts are cut off too: recovery itself must bear it.
        if round % 2 == 1 {
            server.start_and_kill(Duration::from_millis(random.random_range(0..400)));
        }
        server.restart();
        let seen = history.verify(&server.api(), &format!("round {round}, seed {seed}")).await;
        println!("round {round}: {seen}");
    }
    // And after an orderly end.
    assert!(server.stop().success());
    server.restart();
    println!("at the end: {}", history.verify(&server.api(), "the orderly end").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_term_under_load_finishes_what_is_in_flight() {
    let _turn = heavy().await;
    let seed = seed();
    let mut server = Server::start();
    let mut history = History::new(seed);
    for round in 0..2 {
        let load = Load::start(server.api(), history, seed + round);
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.terminate();
        // The writers go on for a while against a server that is ending.
        tokio::time::sleep(Duration::from_millis(300)).await;
        history = load.stop().await;
        let status = server.wait_end();
        assert!(status.success(), "SIGTERM ends it with {status}");
        server.restart();
        println!("round {round}: {}", history.verify(&server.api(), &format!("round {round}")).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_term_waits_for_an_upload_and_a_download() {
    let _turn = heavy().await;
    let seed = seed();
    let mut server = Server::start();
    let upload = Pattern::new(seed, 21 << 20);
    let stored = Pattern::new(seed + 1, 64 << 20);
    server.api().put("stored", stored.bytes()).await.ok();

    // The upload has begun, and goes on when the server has been told to end.
    let (parts, body) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
    let api = server.api();
    let body =
        futures::stream::unfold(body, |mut body| async move { body.recv().await.map(|part| (part, body)) });
    let put = tokio::spawn(async move { api.put("upload", reqwest::Body::wrap_stream(body)).await });
    let part = |n: u64| Ok(bytes::Bytes::from(pattern_bytes(upload.seed, n << 20, 1 << 20)));
    for n in 0..10 {
        parts.send(part(n)).await.unwrap();
    }
    let mut download = server.api().get_streaming("stored").await.unwrap();
    let mut got = download.chunk().await.unwrap().expect("it has begun").to_vec();

    server.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 10..21 {
        parts.send(part(n)).await.expect("the upload goes on");
    }
    drop(parts);
    put.await.unwrap().ok();
    while let Some(part) = download.chunk().await.expect("the download goes on") {
        got.extend_from_slice(&part);
    }
    assert!(stored.is(&got), "the download came to its end");
    let status = server.wait_end();
    assert!(status.success(), "SIGTERM ends it with {status}");
    server.restart();
    assert!(upload.is(&server.api().get("upload").await.ok().body), "the upload is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_during_the_first_start_leaves_a_usable_directory() {
    let _turn = heavy().await;
    let mut random = StdRng::seed_from_u64(seed());
    let holder = tempfile::tempdir().unwrap();
    for round in 0..amount("HAY_ROUNDS", 4, 20) {
        let dir = holder.path().join(format!("data-{round}"));
        let start = Start { dir: Some(dir), ..Start::default() };
        // The first start is cut off somewhere, then it must come up.
        Server::cut_first_start(&start, Duration::from_millis(random.random_range(0..600)));
        let server = Server::start_with(start);
        server.api().put("x", "y").await.ok();
        assert_eq!(server.api().get("x").await.ok().body, "y", "round {round}");
    }
}
