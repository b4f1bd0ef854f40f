//! All masters but one are gone. What is stored can be read, also by a gateway that starts only then, and who has a lease
//! writes on; when the others come back all is as before.

use hay_common::model::SizeClass;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;

use super::deaths::goes_on;
use super::leader::{NEW_LEASE_WITHIN, new_volumes, open_volumes};
use super::members::leader;
use crate::harness::{Api, Cluster, START_WITHIN, Shape, eventually_async, heavy, seed};
use crate::kill::history::History;
use crate::kill::load::{Errors, Load};

/// Waits until `what` answers `path` with 200, or with anything else.
async fn answers(api: &Api, path: &str, good: bool, what: &str) {
    eventually_async(what, START_WITHIN, || async {
        let answer = api.try_send(Method::GET, path, &[], "").await.map_err(|error| error.to_string())?;
        if (answer.status == 200) == good { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_with_one_master_of_three_reads_go_on_and_so_do_leased_writes() {
    let _turn = heavy().await;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let mut history = History::new(seed);
    let masters = cluster.names("master");
    // A leader that is left alone keeps its title, and a follower none.
    for survivor_leads in [true, false] {
        let when = format!("the master that is left led before: {survivor_leads}, seed {seed}");
        cluster.wait_whole().await;
        let load = Load::start_on(&cluster.apis(), Errors::Never, history, random.random());
        goes_on(&load, 60, &format!("{when}: the load begins")).await;
        history = load.stop().await;

        let leads = leader(&cluster);
        cluster.process("gateway-2").kill();
        let survivor = masters.iter().find(|name| (**name == leads) == survivor_leads).unwrap();
        for name in masters.iter().filter(|name| *name != survivor) {
            cluster.process(name).kill();
        }
        let operations = Api::new(&format!("http://{}", cluster.process(survivor).operations), None);
        answers(&operations, "/readyz", false, &format!("{when}: {survivor} knows that it is alone")).await;

        let load = Load::start_on(&[cluster.api(0)], Errors::Never, history, random.random());
        goes_on(&load, 200, &format!("{when}: leased writes go on")).await;
        history = load.stop().await;
        history.verify(&cluster.api(0), &format!("{when}, by the gateway that runs")).await;

        cluster.start_one("gateway-2");
        answers(&cluster.api(1), "/healthz", true, &format!("{when}: the other gateway starts")).await;
        let seen = history.verify(&cluster.api(1), &format!("{when}, by a gateway that has just come")).await;
        println!("{when}: {seen}");

        cluster.start_all();
        cluster.wait_whole().await;
        let load = Load::start_on(&cluster.apis(), Errors::Never, history, random.random());
        goes_on(&load, 60, &format!("{when}: the masters are back")).await;
        history = load.stop().await;
        history.verify(&cluster.api(1), &format!("{when}, after their return")).await;
    }
    // Leases are granted and volumes made again.
    let masters = cluster.master_client();
    masters.writable(SizeClass::Small).await.unwrap();
    let known = open_volumes(&masters).await;
    known.iter().for_each(|volume| masters.avoid(*volume));
    let grown: Result<(), _> = tokio::time::timeout(NEW_LEASE_WITHIN, new_volumes(&masters, &known)).await;
    assert!(grown.is_ok(), "no new volumes within {NEW_LEASE_WITHIN:?}, seed {seed}");
    masters.shutdown().await;
}
