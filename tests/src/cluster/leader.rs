//! The leading master dies: another grants leases and makes volumes soon, and no client sees it.

use std::time::Duration;

use hay_client::master::MasterClient;
use hay_common::ids::VolumeId;
use hay_common::model::{SizeClass, VolumeState};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::members::leader;
use crate::harness::{Cluster, Shape, Stopwatch, amount, cluster_turn, seed};
use crate::kill::history::History;
use crate::kill::load::{Errors, Load};

/// Asserted at six times the 5 s that are asked for.
pub(super) const NEW_LEASE_WITHIN: Duration = Duration::from_secs(30);
/// Each round leaves volumes behind that nobody may write to for a while, and there is a bound to these.
const ROUNDS_OF_A_CLUSTER: u64 = 3;

pub(super) async fn open_volumes(masters: &MasterClient) -> Vec<VolumeId> {
    let page = masters.volumes(VolumeId(0), 1_000).await.unwrap();
    page.volumes.iter().filter(|info| info.state == VolumeState::Writable).map(|info| info.id).collect()
}

/// Waits for volumes of both classes that were not there before; `known` can't be written to.
pub(super) async fn new_volumes(masters: &MasterClient, known: &[VolumeId]) {
    for class in [SizeClass::Small, SizeClass::Large] {
        loop {
            match masters.writable(class).await {
                Ok(found) if !known.contains(&found.volume.volume) => break,
                Ok(found) => masters.avoid(found.volume.volume),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_new_leader_leases_and_grows_soon_after_the_death_of_the_old() {
    let _turn = cluster_turn().await;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let rounds = amount("HAY_ROUNDS", 5, 50);
    let mut times = Vec::new();
    while (times.len() as u64) < rounds {
        let mut cluster = Cluster::start(Shape::USUAL).await;
        let mut history = History::new(random.random());
        for _ in 0..ROUNDS_OF_A_CLUSTER.min(rounds - times.len() as u64) {
            let when = format!("round {}, seed {seed}", times.len());
            cluster.wait_whole().await;
            let load = Load::start_on(&cluster.apis(), Errors::Never, history, random.random());
            let masters = cluster.master_client();
            masters.writable(SizeClass::Small).await.unwrap();
            let known = open_volumes(&masters).await;
            let victim = leader(&cluster);
            let watch = Stopwatch::start();
            cluster.process(&victim).kill();
            known.iter().for_each(|volume| masters.avoid(*volume));
            let grown = tokio::time::timeout(NEW_LEASE_WITHIN, new_volumes(&masters, &known)).await;
            assert!(grown.is_ok(), "{when}: no new volumes {NEW_LEASE_WITHIN:?} after the death of {victim}");
            times.push(watch.elapsed());
            masters.shutdown().await;
            history = load.stop().await;
            let seen = history.verify(&cluster.api(times.len()), &when).await;
            println!("{when}: {victim} dead, new volumes after {:.2?}; {seen}", times[times.len() - 1]);
            cluster.start_one(&victim);
        }
    }
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "from the death of the leader to new volumes of both classes: shortest {:.2?}, median {:.2?}, 90 % {:.2?}, longest {:.2?}",
        times[0],
        at(50),
        at(90),
        at(100)
    );
}
