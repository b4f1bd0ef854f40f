//! How many inner calls an HTTP request makes, by the counters of the client layer (`/metrics`).

use std::collections::BTreeMap;

use crate::harness::{Pattern, Server, heavy, seed};

/// Calls that happen beside requests, however many there are: kept apart, and bounded on their own.
const BESIDE: &[&str] = &[
    "heartbeat",
    "watch_volume_map",
    "volume_map",
    "open_sessions",
    "lease_write",
    "filer_status",
    "cluster_status",
    "volume_status",
    // Who reads the metrics is asked for once a reading.
    "whoami",
];
const REPEATS: u64 = 100;

struct Counted {
    by_method: BTreeMap<String, f64>,
}

impl Counted {
    fn now(server: &Server) -> Self {
        let metrics = server.metrics();
        let name = "hay_rpc_client_calls_total";
        assert!(metrics.has(name), "the server counts inner calls as {name}");
        Self { by_method: metrics.by_label(name, "method") }
    }

    fn since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        let delta = |(method, count): (&String, &f64)| {
            let before = earlier.by_method.get(method).copied().unwrap_or(0.0);
            (method.clone(), count - before)
        };
        self.by_method.iter().map(delta).filter(|(_, count)| *count > 0.0).collect()
    }
}

/// Calls of `REPEATS` requests one after the other; fails when there are more than `most` for each.
async fn at_most<F: Future<Output = ()>>(server: &Server, name: &str, most: u64, request: impl Fn(u64) -> F) {
    // What is fetched once and kept (sessions, leases, the volume map) is not part of a request.
    request(REPEATS).await;
    let before = Counted::now(server);
    for n in 0..REPEATS {
        request(n).await;
    }
    let calls = Counted::now(server).since(&before);
    let (beside, within): (BTreeMap<_, _>, BTreeMap<_, _>) =
        calls.into_iter().partition(|(method, _)| BESIDE.contains(&method.as_str()));
    println!("{name}: {REPEATS} requests made {within:?}, beside them {beside:?}");
    let total: f64 = within.values().sum();
    assert!(total <= (most * REPEATS) as f64, "{name}: more than {most} calls each: {within:?}");
    assert!(total > 0.0, "{name}: nothing was counted");
    let beside: f64 = beside.values().sum();
    assert!(beside <= REPEATS as f64 / 4.0, "{name}: what should be kept is fetched anew: {beside}");
}

#[tokio::test]
async fn counts_of_inner_calls_for_small_requests() {
    let _turn = heavy().await;
    let server = Server::start();
    let api = &server.api();
    let seed = seed();

    for (size, base) in [(1u64, 1000), (4096, 2000), (65_536, 3000)] {
        // One byte alone would be a content that is owned already.
        let content = move |n: u64| Pattern::new(seed.wrapping_add(base + n), size.max(16)).bytes();
        at_most(&server, &format!("PUT of {size} new bytes"), 3, |n| async move {
            api.put(&format!("counts/{size}-{n}"), content(n)).await.ok();
        })
        .await;
        at_most(&server, &format!("PUT of {size} bytes that are owned, elsewhere"), 1, |n| async move {
            api.put(&format!("counts/again-{size}-{n}"), content(n)).await.ok();
        })
        .await;
        at_most(&server, &format!("PUT of {size} bytes onto themselves"), 1, |n| async move {
            api.put(&format!("counts/{size}-{n}"), content(n)).await.ok();
        })
        .await;
        at_most(&server, &format!("GET of {size} bytes"), 2, |n| async move {
            assert!(api.get(&format!("counts/{size}-{n}")).await.ok().body == content(n));
        })
        .await;
    }
    at_most(&server, "PUT of nothing", 1, |n| async move {
        api.put(&format!("counts/empty-{n}"), "").await.ok();
    })
    .await;
    at_most(&server, "GET of nothing", 1, |n| async move {
        api.get(&format!("counts/empty-{n}")).await.ok();
    })
    .await;
    at_most(&server, "HEAD", 1, |n| async move {
        api.head(&format!("counts/4096-{n}")).await.ok();
    })
    .await;
    at_most(&server, "GET of what is missing", 1, |n| async move {
        assert_eq!(api.get(&format!("counts/missing-{n}")).await.status, 404);
    })
    .await;
    at_most(&server, "DELETE", 1, |n| async move {
        let path = format!("counts/4096-{n}");
        assert!(matches!(api.delete(&path).await.status, 200 | 204 | 404));
    })
    .await;
}
