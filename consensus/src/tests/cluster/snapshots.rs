//! Snapshots between members.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use hay_common::limits::MIB;

use super::{Cluster, eventually};
use crate::GroupConfig;
use crate::switchboard::Weather;

fn eager(config: GroupConfig) -> GroupConfig {
    GroupConfig { snapshot_every_entries: 4, segment_bytes: 4 << 20, ..config }
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { files_below(&e.path()) } else { 1 }).sum()
}

fn incoming(cluster: &Cluster, n: usize) -> Vec<String> {
    let dir = cluster.config(n).dir.join("snapshots");
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| name.starts_with("incoming"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lags_gets_a_snapshot_of_many_parts_however_often_it_is_cut() {
    let mut cluster = Cluster::new(3, 1);
    cluster.change = eager;
    for n in 0..3 {
        cluster.start(n).await;
    }
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.kill(late).await;
    let running: Vec<usize> = cluster.running();
    let mut expected = Vec::new();
    for n in 0..12u8 {
        let command = Bytes::from(vec![b'a' + n; MIB / 2 + 1000]);
        let leader = cluster.leader_among(&running).await;
        cluster.group(leader).propose(command.clone()).await.unwrap();
        expected.push(command);
    }
    let purged = || running.iter().all(|n| cluster.has_purged(*n, 5));
    eventually("the log is purged", || purged().then_some(())).await;
    // About six parts: it is cut after three of them.
    cluster.board.weather(Weather { snapshot_parts_max: Some(4), ..Weather::default() });
    let before = cluster.board.snapshots_sent();
    cluster.start(late).await;
    eventually("it was cut, and tried again", || {
        (cluster.board.snapshots_sent() >= before + 3).then_some(())
    })
    .await;
    assert!(cluster.places[late].journal.commands().is_empty(), "nothing of a part is used");
    cluster.board.weather(Weather::default());
    eventually("it has all", || (cluster.places[late].journal.commands() == expected).then_some(())).await;
    assert!(cluster.group(late).status().snapshot.is_some());
    eventually("nothing is left of the others", || incoming(&cluster, late).is_empty().then_some(())).await;
    // It is its own now: the next start begins with it.
    cluster.kill(late).await;
    assert!(files_below(&cluster.config(late).dir.join("snapshots")) >= 2);
    cluster.start(late).await;
    eventually("it still has all", || (cluster.places[late].journal.commands() == expected).then_some(()))
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_begins_with_a_snapshot() {
    let mut cluster = Cluster::new(1, 2);
    cluster.change = eager;
    cluster.start(0).await;
    for n in 0..20 {
        cluster.write_among(&[0], &format!("{n}")).await;
    }
    eventually("a snapshot", || cluster.group(0).status().snapshot.filter(|at| at.index > 10)).await;
    let n = cluster.add_place();
    cluster.peers.push(cluster.places[n].address.clone());
    cluster.start(n).await;
    eventually("it has all", || (cluster.has(n) == cluster.has(0)).then_some(())).await;
    assert!(cluster.board.snapshots_sent() > 0);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_log_bring_followers_a_snapshot_too() {
    let mut cluster = Cluster::new(3, 3);
    cluster.change = |config| GroupConfig { snapshot_every_bytes: 100 << 10, ..config };
    for n in 0..3 {
        cluster.start(n).await;
    }
    for n in 0..20u8 {
        let leader = cluster.leader().await;
        let _ = cluster.group(leader).propose(Bytes::from(vec![n; 20 << 10])).await;
    }
    let has_one = |n: usize| cluster.group(n).status().snapshot.is_some();
    eventually("each has a snapshot", || (0..3).all(has_one).then_some(())).await;
    cluster.end().await;
}
