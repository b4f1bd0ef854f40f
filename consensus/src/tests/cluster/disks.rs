//! Disks that hang or are full, and kills in the middle of what is written.

use std::time::Duration;

use bytes::Bytes;
use hay_common::ids::ClusterId;
use hay_common::limits::RAFT_APPENDS_WAITING_MAX;
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;

use super::{CLUSTER, Cluster, eventually};
use crate::transport::{CallKind, Envelope};
use crate::types::{Entry, LogId};
use crate::wire::encode_append;
use crate::{GroupConfig, Refusal};

fn eager(config: GroupConfig) -> GroupConfig {
    GroupConfig { snapshot_every_entries: 4, ..config }
}

/// A group of three whose last member has been away until the others have purged what it lacks.
async fn one_that_needs_a_snapshot(seed: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, seed);
    cluster.change = eager;
    for n in 0..3 {
        cluster.start(n).await;
    }
    cluster.write_among(&[0, 1, 2], "before").await;
    let late = (cluster.leader().await + 1) % 3;
    cluster.kill(late).await;
    let running = cluster.running();
    for n in 0..30 {
        cluster.write_among(&running, &format!("{n}")).await;
    }
    let purged = || running.iter().all(|n| cluster.has_purged(*n, 15));
    eventually("the log is purged", || purged().then_some(())).await;
    (cluster, late)
}

/// What the snapshot holds is still to be had from the log until the snapshot has its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_killed_while_it_keeps_a_received_snapshot_starts_again() {
    for (seed, part) in [(1, "building/meta"), (2, "snapshots/snap-")] {
        let (mut cluster, late) = one_that_needs_a_snapshot(seed).await;
        cluster.places[late].hold = Some(part);
        let before = cluster.board.snapshots_sent();
        cluster.start(late).await;
        let keeps = || cluster.board.snapshots_sent() > before && cluster.places[late].disk.holds_any();
        eventually("it keeps a snapshot", || keeps().then_some(())).await;
        // Whatever does not wait for the snapshot has happened by then.
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.kill(late).await;
        cluster.places[late].hold = None;
        cluster.start(late).await;
        cluster.agree(&[0, 1, 2]).await;
        cluster.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_leads_no_more_and_another_serves() {
    let cluster = Cluster::formed(3, 3).await;
    let all = [0, 1, 2];
    cluster.write_among(&all, "before").await;
    let old = cluster.leader().await;
    let others: Vec<usize> = all.into_iter().filter(|n| *n != old).collect();
    cluster.places[old].disk.hold("");
    let stuck = cluster.group(old);
    let stuck = tokio::spawn(async move { stuck.propose(Bytes::from_static(b"stuck")).await });
    let no_longer = || cluster.group(old).leading().borrow().is_none().then_some(());
    eventually("it knows that it leads no more", no_longer).await;
    cluster.write_among(&others, "meanwhile").await;
    assert!(cluster.places[old].disk.holds_any() && no_longer().is_some());
    cluster.places[old].disk.let_go();
    // What it had in flight may be taken or not; nobody was told that it was.
    let _ = stuck.await.unwrap();
    cluster.write_among(&all, "after").await;
    cluster.agree(&all).await;
    let mut has = cluster.has(old);
    has.retain(|command| command != "stuck");
    // A write of unknown outcome was repeated.
    has.dedup();
    assert_eq!(has, ["before", "meanwhile", "after"]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_leads_on_while_its_disk_hangs() {
    let cluster = Cluster::formed(1, 4).await;
    cluster.places[0].disk.hold("");
    let slow = cluster.group(0);
    let slow = tokio::spawn(async move { slow.propose(Bytes::from_static(b"slow")).await });
    eventually("it waits", || cluster.places[0].disk.holds_any().then_some(())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(cluster.group(0).leading().borrow().is_some());
    cluster.places[0].disk.let_go();
    slow.await.unwrap().unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_leads_no_more_and_another_serves() {
    let cluster = Cluster::formed(3, 5).await;
    let all = [0, 1, 2];
    let old = cluster.leader().await;
    let others: Vec<usize> = all.into_iter().filter(|n| *n != old).collect();
    cluster.places[old].disk.fill(true);
    let leader = cluster.group(old);
    let filling =
        tokio::spawn(async move { while leader.propose(Bytes::from(vec![b'x'; 3000])).await.is_ok() {} });
    eventually("it leads no more", || cluster.group(old).leading().borrow().is_none().then_some(())).await;
    cluster.write_among(&others, "meanwhile").await;
    assert!(cluster.group(old).status().full);
    cluster.places[old].disk.fill(false);
    filling.await.unwrap();
    cluster.write_among(&all, "after").await;
    cluster.agree(&all).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_disk_is_full_waits_with_its_vote_and_goes_on() {
    let mut cluster = Cluster::formed(3, 6).await;
    cluster.write_among(&[0, 1, 2], "before").await;
    let leader = cluster.leader().await;
    let (full, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.places[full].disk.fill(true);
    // Now its vote is needed.
    cluster.kill(leader).await;
    eventually("it waits for room", || cluster.group(full).status().full.then_some(())).await;
    cluster.places[full].disk.fill(false);
    cluster.write_among(&[full, other], "after").await;
    assert_eq!(cluster.group(full).status().stopped, None);
    cluster.start(leader).await;
    cluster.agree(&[0, 1, 2]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_snapshot_waits_for_room() {
    let (mut cluster, late) = one_that_needs_a_snapshot(7).await;
    cluster.places[late].hold = Some("building/meta");
    let before = cluster.board.snapshots_sent();
    cluster.start(late).await;
    let disk = cluster.places[late].disk.clone();
    let keeps = || (cluster.board.snapshots_sent() > before && disk.holds_any()).then_some(());
    eventually("it keeps a snapshot", keeps).await;
    disk.fill(true);
    disk.let_go();
    eventually("it waits for room", || cluster.group(late).status().full.then_some(())).await;
    disk.fill(false);
    cluster.agree(&[0, 1, 2]).await;
    assert_eq!(cluster.group(late).status().stopped, None);
    cluster.end().await;
}

/// The library's queue has no bound, and a leader sends again and again what is not answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_disk_hangs_takes_in_no_more_than_it_can_hold() {
    let cluster = Cluster::formed(3, 8).await;
    cluster.write_among(&[0, 1, 2], "before").await;
    let leader = cluster.leader().await;
    let slow = (leader + 1) % 3;
    let disk = cluster.places[slow].disk.clone();
    disk.hold("");
    cluster.write_among(&[leader], "meanwhile").await;
    eventually("it hangs", || disk.holds_any().then_some(())).await;
    let (vote, last) = {
        let metrics = cluster.group(leader).inner.raft.metrics();
        let now = metrics.borrow();
        (now.vote, now.last_applied.unwrap())
    };
    // So far behind its log that nothing of it is ever taken.
    let far = |more| LogId::new(last.leader_id, last.index + more);
    let request = AppendEntriesRequest {
        vote,
        prev_log_id: Some(far(1000)),
        entries: vec![Entry { log_id: far(1001), payload: EntryPayload::Blank }],
        leader_commit: None,
    };
    let envelope = Envelope {
        cluster: ClusterId::from_random(CLUSTER),
        group: "test".to_owned(),
        formation: cluster.group(leader).status().formation,
        from: cluster.group(leader).member(),
        to: Some(cluster.group(slow).member()),
        body: encode_append(&request).unwrap(),
    };
    let send = || {
        let (group, envelope) = (cluster.group(slow), envelope.clone());
        tokio::spawn(async move { group.receive(CallKind::Append, envelope).await })
    };
    let sent: Vec<_> = (0..RAFT_APPENDS_WAITING_MAX + 1).map(|_| send()).collect();
    eventually("one is refused", || sent.iter().any(|call| call.is_finished()).then_some(())).await;
    // Their senders go away; what they sent still lies there.
    for call in sent {
        call.abort();
        let _ = call.await;
    }
    assert_eq!(send().await.unwrap(), Err(Refusal::Behind));
    disk.let_go();
    cluster.write_among(&[0, 1, 2], "after").await;
    cluster.agree(&[0, 1, 2]).await;
    cluster.end().await;
}
