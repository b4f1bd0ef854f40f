//! Volumes brought back to their number of copies.

use serde_json::Value;

use super::members::admin;
use crate::harness::{Cluster, Pattern, START_WITHIN, Shape, eventually, heavy, seed};

fn volumes(cluster: &Cluster) -> Vec<Value> {
    let shown = admin(cluster, &["--json", "volume", "list"]).ok().json();
    shown["volumes"].as_array().unwrap().clone()
}

fn members(volume: &Value) -> &[Value] {
    volume["members"].as_array().map_or(&[], Vec::as_slice)
}

/// A replica that can be read from, and lacks nothing.
fn is_whole(member: &Value) -> bool {
    member["alive"] == true && ["filling", "completing", "incomplete"].iter().all(|no| member[no] == false)
}

fn has_a_dead_member(volume: &Value) -> bool {
    members(volume).iter().any(|member| member["alive"] == false)
}

async fn all_come_back(cluster: &Cluster, files: &[(String, Pattern)], when: &str) {
    for (n, (path, pattern)) in files.iter().enumerate() {
        let back = cluster.api(n).get(path).await.ok();
        assert!(pattern.is(&back.body), "{when}: {path} has other bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_volumes_of_a_server_that_is_lost_for_good_are_repaired_to_their_last_byte() {
    let _turn = heavy().await;
    let seed = seed();
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let mut files = Vec::new();
    for n in 0..120 {
        let len = if n % 40 == 0 { (9 << 20) + n } else { 1 + n * 997 };
        let (path, pattern) = (format!("repairs/{n}"), Pattern::new(seed + n, len));
        cluster.api(n as usize).put(&path, pattern.bytes()).await.ok();
        files.push((path, pattern));
    }
    cluster.process("volume-server-1").kill();
    cluster.wipe("volume-server-1");
    let lost = eventually("its volumes are sealed", START_WITHIN, || {
        let lacking: Vec<Value> = volumes(&cluster).into_iter().filter(has_a_dead_member).collect();
        match lacking.iter().find(|volume| volume["state"] != "sealed") {
            Some(volume) => Err(volume.to_string()),
            None if lacking.is_empty() => Err("nobody is called dead yet".to_owned()),
            None => Ok(lacking),
        }
    });
    let lost: Vec<String> = lost.iter().map(|volume| volume["id"].to_string()).collect();
    println!("volumes {lost:?} have lost a copy");
    let shown = admin(&cluster, &["volume", "repair", &lost[0], "--dry-run"]).ok().text();
    assert!(shown.contains("would be copied to server"), "{shown}");
    eventually("every volume has two whole copies", START_WITHIN * 2, || {
        let now = volumes(&cluster);
        let is_mended = |volume: &&Value| members(volume).len() == 2 && members(volume).iter().all(is_whole);
        let lacking: Vec<&Value> = now
            .iter()
            .filter(|volume| lost.contains(&volume["id"].to_string()))
            .filter(|volume| !is_mended(volume))
            .collect();
        let mut said = Vec::new();
        for volume in &lacking {
            // Asked again it says what runs.
            let ran = admin(&cluster, &["volume", "repair", &volume["id"].to_string()]);
            said.push(format!("{}{}", ran.text(), ran.stderr));
        }
        if lacking.is_empty() { Ok(()) } else { Err(format!("{lacking:?}\n{said:?}")) }
    });
    all_come_back(&cluster, &files, "after the repairs").await;
    // What is left then is one server: every needle that stood on the first and the second was copied there.
    cluster.process("volume-server-2").kill();
    all_come_back(&cluster, &files, "with one server left").await;
}
