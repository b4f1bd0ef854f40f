//! A cluster of real processes: files in by one gateway and out by another, and every process killed, paused or cut off
//! in the middle of a write load.

mod alone;
mod deaths;
mod files;
mod leader;
mod members;
mod repairs;
mod restarts;

use crate::harness::{Cluster, Pattern, Shape, heavy, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_files_go_in_by_one_gateway_and_come_out_by_the_other() {
    let _turn = heavy().await;
    let cluster = Cluster::start(Shape::USUAL).await;
    let seed = seed();
    let sizes = [0, 1, 4_096, 65_536, 65_537, 1 << 20, 8 << 20, (8 << 20) + 1, 40 << 20];
    for (n, len) in sizes.into_iter().enumerate() {
        let pattern = Pattern::new(seed + n as u64, len);
        cluster.api(n).put(&format!("sizes/{len}"), pattern.bytes()).await.ok();
        let back = cluster.api(n + 1).get(&format!("sizes/{len}")).await.ok();
        assert!(pattern.is(&back.body), "{len} bytes");
    }
    let status = cluster.status();
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
    let names: Vec<_> = cluster.api(0).list_all("sizes", true, 100).await;
    assert_eq!(names.len(), sizes.len());
}
