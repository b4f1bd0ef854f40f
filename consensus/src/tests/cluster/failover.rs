//! Leaders that die or are cut off.

use std::time::Duration;

use bytes::Bytes;

use super::{Cluster, eventually};
use crate::{ProposeError, ReadError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_another_goes_on_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::formed(3, 1).await;
    let all = [0, 1, 2];
    let mut expected = Vec::new();
    for round in 0..4 {
        for n in 0..10 {
            let command = format!("{round}.{n}");
            cluster.write_among(&cluster.running(), &command).await;
            expected.push(command);
        }
        let leader = cluster.leader().await;
        cluster.kill(leader).await;
        let others: Vec<usize> = all.into_iter().filter(|n| *n != leader).collect();
        let next = cluster.leader_among(&others).await;
        let command = format!("{round} after");
        cluster.group(next).propose(Bytes::from(command.clone())).await.unwrap();
        expected.push(command);
        cluster.start(leader).await;
    }
    cluster.agree(&all).await;
    // Retries of an unknown outcome may stand twice; nothing else may differ.
    let mut has = cluster.has(0);
    has.dedup();
    assert_eq!(has, expected);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_and_where_it_is() {
    let cluster = Cluster::formed(3, 2).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let address = cluster.places[leader].address.clone();
    eventually("the follower knows", || cluster.group(follower).leader()).await;
    let error = cluster.group(follower).propose(Bytes::from_static(b"x")).await.unwrap_err();
    let ProposeError::NotLeader { leader: Some(named), .. } = &error else { panic!("{error}") };
    assert_eq!((named.member, &named.address), (cluster.group(leader).member(), &address));
    let error = cluster.group(follower).read_barrier().await.unwrap_err();
    assert!(
        matches!(&error, ReadError::NotLeader { leader: Some(named), .. } if named.address == address),
        "{error}"
    );
    assert_eq!(cluster.group(follower).leader_address(), Some(address));
    let status = cluster.group(leader).status();
    assert_eq!(status.members.len(), 3);
    assert!(status.members.iter().all(|m| m.voter));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_commits_nothing_and_serves_no_read() {
    for seed in 0..3 {
        let cluster = Cluster::formed(3, seed).await;
        let all = [0, 1, 2];
        cluster.write_among(&all, "before").await;
        let old = cluster.leader().await;
        let others: Vec<usize> = all.into_iter().filter(|n| *n != old).collect();
        let address = |n: usize| cluster.places[n].address.as_str();
        cluster.board.part(&[address(old)], &[address(others[0]), address(others[1])]);
        let (written, read) = (cluster.group(old), cluster.group(old));
        let written = tokio::spawn(async move { written.propose(Bytes::from_static(b"minority")).await });
        let read = tokio::spawn(async move { read.read_barrier().await });
        cluster.write_among(&others, "majority").await;
        // Whoever asks the old one now must not be told the state from before.
        let late = cluster.group(old).read_barrier().await;
        assert!(late.is_err(), "seed {seed}: a read without a majority");
        eventually("the old leader stops leading", || {
            cluster.group(old).leading().borrow().is_none().then_some(())
        })
        .await;
        assert!(!cluster.has(old).contains(&"majority".to_owned()), "seed {seed}");
        cluster.board.mend();
        // The one that was on its way may have been given up, or be answered after the mending; it was not taken alone.
        let written = written.await.unwrap();
        assert!(written.is_err(), "seed {seed}: {written:?}");
        let _ = read.await.unwrap();
        cluster.write_among(&all, "after").await;
        cluster.agree(&all).await;
        assert_eq!(cluster.has(old), ["before", "majority", "after"], "seed {seed}");
        cluster.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_come_back_with_everything() {
    let mut cluster = Cluster::formed(3, 4).await;
    for round in 0..3 {
        for n in 0..20 {
            cluster.write_among(&[0, 1, 2], &format!("{round}.{n}")).await;
        }
        let leader = cluster.leader().await;
        let acknowledged = cluster.has(leader);
        for n in 0..3 {
            cluster.kill(n).await;
        }
        for n in 0..3 {
            cluster.start(n).await;
        }
        let leader = cluster.leader().await;
        cluster.group(leader).read_barrier().await.unwrap();
        assert_eq!(cluster.has(leader), acknowledged);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_reads_share_confirmations() {
    let cluster = Cluster::formed(3, 5).await;
    let leader = cluster.group(cluster.leader().await);
    let reads = (0..200).map(|_| {
        let leader = leader.clone();
        tokio::spawn(async move { leader.read_barrier().await })
    });
    for read in futures::future::join_all(reads).await {
        read.unwrap().unwrap();
    }
    // Nothing else of it can be seen from outside: that it is quick is not asserted.
    let done = tokio::time::timeout(Duration::from_secs(20), leader.read_barrier()).await;
    done.unwrap().unwrap();
    cluster.end().await;
}
