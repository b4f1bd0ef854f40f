//! Every process is restarted in its turn, in order, while clients write and read.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Cluster, Shape, amount, cluster_turn, seed};
use crate::kill::history::History;
use crate::kill::load::{Errors, Load};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_rolling_restart_fails_no_request() {
    let _turn = cluster_turn().await;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let mut history = History::new(seed);
    for round in 0..amount("HAY_ROUNDS", 1, 5) {
        // Gateways stay: what a client does when the one that it talks to goes away is its own affair, and is shown by
        // `hay`, which knows several.
        let load = Load::start_on(&cluster.apis(), Errors::Never, history, random.random());
        for role in ["master", "volume-server", "filer"] {
            for name in cluster.names(role) {
                let status = cluster.process(&name).stop();
                assert!(status.success(), "{name} ended with {status}");
                cluster.start_one(&name);
                cluster.wait_up(&name).await;
                cluster.wait_ready().await;
            }
        }
        history = load.stop().await;
        println!(
            "round {round}: {}",
            history.verify(&cluster.api(0), &format!("round {round}, seed {seed}")).await
        );
    }
}
