//! Masters come and go by command.

use serde_json::Value;

use crate::harness::{Cluster, Pattern, Ran, START_WITHIN, Shape, cluster_turn, eventually, hay};

pub fn admin(cluster: &Cluster, args: &[&str]) -> Ran {
    let environment = cluster.environment();
    let env: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    hay(args, &env)
}

fn members(cluster: &Cluster) -> Vec<Value> {
    let shown = admin(cluster, &["--json", "cluster", "members"]).ok().json();
    shown["masters"].as_array().unwrap().clone()
}

/// The name of the master that leads.
pub fn leader(cluster: &Cluster) -> String {
    let address = eventually("somebody leads", START_WITHIN, || {
        let now = members(cluster);
        let leads = now.iter().find(|member| member["leader"] == true);
        leads.map(|member| member["address"].as_str().unwrap().to_owned()).ok_or_else(|| format!("{now:?}"))
    });
    cluster.master_at(&address)
}

fn id(member: &Value) -> String {
    member["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_a_wiped_master_comes_back_as_a_new_one_and_takes_the_place_of_the_old() {
    let _turn = cluster_turn().await;
    let mut cluster = Cluster::start(Shape::USUAL).await;
    let before = members(&cluster);
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(|member| member["voter"] == true), "{before:?}");
    assert_eq!(before.iter().filter(|member| member["leader"] == true).count(), 1);

    // Whoever it is: a leader among them one time in three.
    cluster.process("master-2").kill();
    cluster.wipe("master-2");
    cluster.start_one("master-2");
    let joined = eventually("the new master follows", START_WITHIN, || {
        let now = members(&cluster);
        let new = now.iter().find(|member| member["voter"] == false && member["lag"] == 0).cloned();
        new.ok_or_else(|| format!("{now:?}"))
    });
    let address = joined["address"].as_str().unwrap().to_owned();
    let old =
        before.iter().find(|member| member["address"] == address.as_str()).expect("at the same address");
    assert_ne!(id(old), id(&joined));

    admin(&cluster, &["cluster", "remove-master", &address, "--dry-run"])
        .fails_naming(&[&id(old), &id(&joined)]);
    admin(&cluster, &["cluster", "add-master", "10.1.2.3:4"])
        .fails_naming(&["10.1.2.3:4", "hay cluster members"]);
    admin(&cluster, &["cluster", "remove-master", &id(old)]).fails_naming(&["--yes"]);
    admin(&cluster, &["cluster", "add-master", &address, "--dry-run"]).ok();
    assert_eq!(members(&cluster).iter().filter(|member| member["voter"] == true).count(), 3, "only asked");
    eventually("it gets a vote", START_WITHIN, || {
        let added = admin(&cluster, &["cluster", "add-master", &address]);
        if added.code == Some(0) { Ok(()) } else { Err(added.stderr) }
    });
    let removed = admin(&cluster, &["cluster", "remove-master", &id(old), "--yes"]).ok();
    assert!(removed.text().contains("3 of the masters have a vote, before 4"), "{}", removed.text());
    let now = members(&cluster);
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(now.iter().all(|member| member["voter"] == true && id(member) != id(old)), "{now:?}");

    // The new one counts: with another one gone it is needed.
    cluster.process("master-1").kill();
    let pattern = Pattern::new(5, 100_000);
    cluster.wait_ready().await;
    cluster.api(0).put("with/two/masters", pattern.bytes()).await.ok();
    assert!(pattern.is(&cluster.api(1).get("with/two/masters").await.ok().body));
    cluster.start_one("master-1");

    // The leader itself can be removed, and the others go on.
    cluster.wait_ready().await;
    let leader = eventually("somebody leads", START_WITHIN, || {
        members(&cluster).into_iter().find(|member| member["leader"] == true).ok_or("nobody".to_owned())
    });
    eventually("the leader is removed", START_WITHIN, || {
        let removed = admin(&cluster, &["cluster", "remove-master", &id(&leader), "--yes"]);
        if removed.code == Some(0) { Ok(()) } else { Err(removed.stderr) }
    });
    cluster.wait_ready().await;
    cluster.api(0).put("without/its/leader", pattern.bytes()).await.ok();
    let now = members(&cluster);
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(now.iter().all(|member| id(member) != id(&leader)), "{now:?}");
}
