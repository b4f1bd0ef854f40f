//! Memory is bounded, whoever does what: a large file up and down, many clients at work, hundreds that stall.

mod clients;

use std::time::Duration;

use futures::StreamExt;
use reqwest::Body;
use tokio::sync::watch;

use crate::harness::{
    Api, Cluster, Endpoint, Pattern, Server, Shape, Stopwatch, amount, heavy, pattern_stream, seed,
};
use clients::{Stalled, Workers};

const MIB: u64 = 1 << 20;
const BOUND: u64 = 256 * MIB;
const WORKERS: usize = 64;
const STALLED: usize = 500;

/// What a run came to, for the printed comparison.
struct Figures {
    operations: u64,
    seconds: f64,
    least: u64,
    up: f64,
    down: f64,
}

/// The large file goes up and down while the workers work.
async fn run(server: &Endpoint, large: Pattern, workers_seed: u64) -> Figures {
    let workers = Workers::start(server.api(), WORKERS, workers_seed);
    let watch = Stopwatch::start();
    let api = server.api();
    let put = api.put("memory/large", Body::wrap_stream(pattern_stream(large))).await.ok();
    let up = large.len as f64 / watch.seconds();
    let between = Stopwatch::start();
    compare_while_streaming(&api, large, &put.etag()).await;
    let down = large.len as f64 / between.seconds();
    let seconds = watch.seconds();
    let done = workers.stop().await;
    Figures {
        operations: done.iter().sum(),
        seconds,
        least: done.iter().copied().min().unwrap_or(0),
        up,
        down,
    }
}

async fn compare_while_streaming(api: &Api, large: Pattern, etag: &str) {
    let answer = api.get_streaming("memory/large").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["etag"], etag);
    let mut parts = answer.bytes_stream();
    let mut offset = 0;
    while let Some(part) = parts.next().await {
        let part = part.unwrap();
        assert!(large.matches_at(offset, &part), "other bytes at {offset}");
        offset += part.len() as u64;
    }
    assert_eq!(offset, large.len);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded_with_a_large_file_workers_and_stalled_clients() {
    let _turn = heavy().await;
    let server = Server::start();
    stays_bounded(&server.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_gateway_stays_bounded_in_a_cluster() {
    let _turn = heavy().await;
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let gateway = cluster.endpoint(0);
    stays_bounded(&gateway).await;
}

async fn stays_bounded(server: &Endpoint) {
    let seed = seed();
    let bytes = amount("HAY_BIG_BYTES", 512 * MIB, 4096 * MIB);
    let idle = server.memory_bytes("VmRSS");

    let alone = run(server, Pattern::new(seed, bytes), seed + 1).await;
    server.api().delete("memory/large").await.ok();
    let peak_alone = server.memory_bytes("VmHWM");

    let since = Stopwatch::start();
    let stalled = Stalled::connect(server, STALLED);
    let crowded = run(server, Pattern::new(seed + 2, bytes), seed + 3).await;
    let held = stalled.still_open();
    let stalled_for = since.seconds();
    let (_, buffered) = buffers(server);
    let peak = server.memory_bytes("VmHWM");

    for (name, figures) in [("without stalled clients", &alone), ("with 500 stalled clients", &crowded)] {
        println!(
            "{name}: {:.0} operations/s of {WORKERS} workers (the slowest did {}), file up {:.0} MiB/s, down {:.0} MiB/s",
            figures.operations as f64 / figures.seconds,
            figures.least,
            figures.up / MIB as f64,
            figures.down / MIB as f64,
        );
    }
    println!(
        "memory: {} MiB idle, peak {} MiB without and {} MiB with stalled clients; buffers by the gateway's \
         own gauge at most {} MiB; {held} stalled connections still open after {stalled_for:.0} s; {} set aside",
        idle / MIB,
        peak_alone / MIB,
        peak / MIB,
        buffered / MIB,
        server.metrics().sum("hay_gateway_set_aside_total"),
    );
    assert!(alone.least > 0 && crowded.least > 0, "a worker was starved");
    assert!(peak < BOUND, "the process came to {} MiB", peak / MIB);
    assert!((1..BOUND).contains(&buffered), "buffers came to {} MiB", buffered / MIB);

    // Only the floor that holds without others, too, cuts them off: 4 KiB/s over 30 s.
    if stalled_for < 25.0 {
        assert_eq!(held, STALLED, "some were cut off although they may stall for 30 s");
    }

    // What stalled left nothing behind, and the server goes on without them.
    drop(stalled);
    let api = server.api();
    let appeared = api.list_page("stalled", "").await;
    assert_eq!(appeared.status, 404, "of a body that never came to its end: {}", appeared.text());
    api.put("memory/after", "x").await.ok();
    nothing_is_held(server).await;
}

/// A stream that halts after `at` bytes until it is told to go on.
fn halting(
    pattern: Pattern,
    at: u64,
    go_on: watch::Receiver<bool>,
) -> impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    let mut sent = 0;
    pattern_stream(pattern).then(move |part| {
        let halts = sent >= at;
        sent += part.as_ref().map_or(0, |p| p.len() as u64);
        let mut go_on = go_on.clone();
        async move {
            if halts {
                go_on.wait_for(|go| *go).await.unwrap();
            }
            part
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_what_stalls_while_others_work_goes_on_where_it_stopped() {
    let _turn = heavy().await;
    let server = Server::start();
    let seed = seed();
    const UPLOADS: u64 = 200;
    let (go, halted) = watch::channel(false);
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|n| {
            let (api, path) = (server.api(), format!("halted/{n}"));
            // Some are as small as to need no slot.
            let len = if n % 5 == 4 { 60_000 } else { 3 * MIB + n };
            let pattern = Pattern::new(seed + n, len);
            let body = Body::wrap_stream(halting(pattern, len / 3, halted.clone()));
            tokio::spawn(async move {
                api.put(&path, body).await.ok();
                assert!(pattern.is(&api.get(&path).await.ok().body), "{path}");
            })
        })
        .collect();
    let workers = Workers::start(server.api(), WORKERS, seed + UPLOADS);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let aside = server.metrics().sum("hay_gateway_set_aside_bytes");
    go.send(true).unwrap();
    for upload in uploads {
        upload.await.expect("an upload that had stalled was lost");
    }
    let done = workers.stop().await;
    println!(
        "{:.0} MiB were set aside when {UPLOADS} went on; the workers did {} operations meanwhile",
        aside / MIB as f64,
        done.iter().sum::<u64>()
    );
    assert!(aside > 0.0, "nothing was set aside");
    assert!(done.iter().all(|n| *n > 0), "a worker was starved: {done:?}");
    nothing_is_held(&server.endpoint()).await;
}

/// All memory and all files come back when the clients have gone.
async fn nothing_is_held(server: &Endpoint) {
    let held = || buffers(server).0 as f64 + server.metrics().sum("hay_gateway_set_aside_bytes");
    for _ in 0..100 {
        if held() == 0.0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} bytes are held for nobody", held());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_many_uploads_at_once_never_wait_for_each_other_for_ever() {
    let _turn = heavy().await;
    let server = Server::start();
    let seed = seed();
    // Their first chunks alone are three times what all chunk buffers together may hold.
    const UPLOADS: u64 = 48;
    for (round, (same, announced)) in [(false, true), (true, true), (false, false)].into_iter().enumerate() {
        let uploads = (0..UPLOADS).map(|n| {
            let (api, path) = (server.api(), format!("uploads/{round}/{n}"));
            let pattern = Pattern::new(seed + round as u64 * 1000 + if same { 0 } else { n }, 17 * MIB + 5);
            async move {
                let body = match announced {
                    true => Body::from(pattern.bytes()),
                    false => Body::wrap_stream(pattern_stream(pattern)),
                };
                api.put(&path, body).await.ok();
                assert!(pattern.is(&api.get(&path).await.ok().body), "{path}");
            }
        });
        let all = futures::future::join_all(uploads);
        let ended = tokio::time::timeout(Duration::from_secs(120), all).await;
        assert!(
            ended.is_ok(),
            "round {round}: {UPLOADS} uploads did not end; buffers: {:?}",
            buffers(&server.endpoint())
        );
    }
    assert_eq!(buffers(&server.endpoint()).0, 0, "buffers are given back");
}

/// What the gateway's gauge says: held now, and at most.
fn buffers(server: &Endpoint) -> (u64, u64) {
    let metrics = server.metrics();
    let of = |name: &str| metrics.sum(name) as u64;
    (of("hay_gateway_buffer_bytes"), of("hay_gateway_buffer_peak_bytes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_readers_that_stall_hold_no_chunks() {
    let _turn = heavy().await;
    let server = Server::start();
    let large = Pattern::new(seed(), 64 * MIB);
    server.api().put("large", large.bytes()).await.ok();
    server.api().delete("nothing").await;
    let before = server.memory_bytes("VmHWM");
    let stalled = Stalled::reading(&server.endpoint(), STALLED, "large");
    // While they all hang, everybody else is served.
    let workers = Workers::start(server.api(), 16, 99);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let done = workers.stop().await;
    assert!(done.iter().all(|n| *n > 0), "a worker was starved: {done:?}");
    let peak = server.memory_bytes("VmHWM");
    println!("peak before {} MiB, with {STALLED} stalled readers {} MiB", before / MIB, peak / MIB);
    // DOWNLOAD_PREFETCH_BYTES for each of them would be a GiB.
    assert!(peak < 2 * BOUND, "{} MiB with stalled readers", peak / MIB);
    drop(stalled);
}
