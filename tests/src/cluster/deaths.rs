//! What dies takes nothing along that was acknowledged, and while enough of the others live no client sees it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Cluster, Link, Shape, Stopwatch, Way, amount, cluster_turn, eventually_async, seed};
use crate::kill::history::History;
use crate::kill::load::{Errors, Load};

/// What happens to a process in the middle of a load.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Killed,
    Paused,
    CutOff,
    /// From the masters only: gateways and the other volume servers still reach it.
    CutOffFromMasters,
    /// It hears everything, and nobody hears it.
    Mute,
    /// Its bytes come by drops.
    Slow,
    /// Everything comes later.
    Late,
}

/// New writes must be acknowledged within this time; asserted at six times what is asked for.
const GOES_ON_WITHIN: Duration = Duration::from_secs(30);

/// Waits until `load` has had `more` further writes acknowledged.
pub(super) async fn goes_on(load: &Load, more: u64, what: &str) {
    let from = load.acknowledged();
    eventually_async(what, GOES_ON_WITHIN, || async {
        let done = load.acknowledged() - from;
        if done >= more { Ok(()) } else { Err(format!("{done} of {more} writes")) }
    })
    .await;
}

/// One of `role` is harmed in each round, comes back, and is followed by another.
async fn harmed(role: &str, harm: Harm, rounds: u64) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let victims = cluster.names(role);
    let mut history = History::new(seed);
    let mut times = Vec::new();
    for round in 0..rounds {
        let when = format!("round {round}, {harm:?} {role}, seed {seed}");
        let victim = victims[random.random_range(0..victims.len())].clone();
        let load = Load::start_on(&cluster.apis(), Errors::Never, history, random.random());
        goes_on(&load, 30, "the load begins").await;
        let watch = Stopwatch::start();
        match harm {
            Harm::Killed => cluster.process(&victim).kill(),
            Harm::Paused => cluster.process(&victim).pause(),
            Harm::CutOff => cluster.cut_off(&victim, "", Link::CUT),
            Harm::CutOffFromMasters => cluster.cut_off(&victim, "master", Link::CUT),
            Harm::Mute => cluster.cut_off(&victim, "", Link::NO_ANSWERS),
            Harm::Slow => cluster.cut_off(&victim, "", Link::both(Way::Slow(2_000))),
            Harm::Late => cluster.cut_off(&victim, "", Link::both(Way::Delayed(Duration::from_millis(100)))),
        }
        goes_on(&load, 60, &format!("{when}: writing goes on without {victim}")).await;
        times.push(watch.elapsed());
        history = load.stop().await;
        // What was acknowledged is there without the victim, by every gateway.
        let seen = history.verify(&cluster.api(round as usize), &when).await;
        println!("{when}: {victim}, {:.2} s for 60 writes; {seen}", times[times.len() - 1].as_secs_f64());
        match harm {
            Harm::Killed => cluster.start_one(&victim),
            Harm::Paused => cluster.process(&victim).resume(),
            _ => cluster.network.heal(),
        }
        cluster.wait_whole().await;
        history.verify(&cluster.api(round as usize + 1), &format!("{when}, after its return")).await;
    }
    times.sort();
    println!(
        "{harm:?} {role}: time to 60 further writes: median {:?}, longest {:?}",
        times[times.len() / 2],
        times.last()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_killed_volume_server_is_noticed_by_no_client() {
    let _turn = cluster_turn().await;
    harmed("volume-server", Harm::Killed, amount("HAY_ROUNDS", 5, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_paused_volume_server_is_noticed_by_no_client() {
    let _turn = cluster_turn().await;
    harmed("volume-server", Harm::Paused, amount("HAY_ROUNDS", 5, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_volume_server_that_is_cut_off_is_noticed_by_no_client() {
    let _turn = cluster_turn().await;
    harmed("volume-server", Harm::CutOff, amount("HAY_ROUNDS", 5, 50)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_volume_server_without_masters_loses_nothing() {
    let _turn = cluster_turn().await;
    harmed("volume-server", Harm::CutOffFromMasters, amount("HAY_ROUNDS", 10, 100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_links_of_all_kinds_are_noticed_by_no_client() {
    let _turn = cluster_turn().await;
    for harm in [Harm::Mute, Harm::Slow, Harm::Late] {
        harmed("volume-server", harm, amount("HAY_ROUNDS", 1, 10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_killed_master_is_noticed_by_no_client() {
    let _turn = cluster_turn().await;
    harmed("master", Harm::Killed, amount("HAY_ROUNDS", 2, 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_everything_killed_at_once_loses_nothing_acknowledged() {
    let _turn = cluster_turn().await;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let mut history = History::new(seed);
    for round in 0..amount("HAY_ROUNDS", 3, 20) {
        let load = Load::start_on(&cluster.apis(), Errors::Expected, history, random.random());
        tokio::time::sleep(Duration::from_millis(random.random_range(300..2_000))).await;
        cluster.kill_all();
        history = load.stop().await;
        cluster.start_all();
        cluster.wait_ready().await;
        let seen = history.verify(&cluster.api(round as usize), &format!("round {round}, seed {seed}")).await;
        println!("round {round}: {seen}");
    }
}
