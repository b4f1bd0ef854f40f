//! What a group promises to its owner.

use std::fs;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::join_all;
use hay_common::disk::RealDisk;
use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits;
use hay_common::model::Durability;

use super::disk::{Failing, FailingDisk};
use super::{Journal, command, config, start};
use crate::{Group, GroupConfig, ProposeError, ReadError, StartError};

fn number(reply: &Bytes) -> u64 {
    u64::from_le_bytes(reply.as_ref().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_answered_in_their_own_order_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = start(config(dir.path())).await.unwrap();
    assert!(group.status().leading);
    for n in 0..50 {
        assert_eq!(number(&group.propose(command(n)).await.unwrap()), n);
        assert_eq!(journal.commands().len() as u64, n + 1, "a reply comes after its command was applied");
    }
    group.read_barrier().await.unwrap();
    group.shutdown().await.unwrap();
    assert!(matches!(group.propose(command(0)).await, Err(ProposeError::Stopped { .. })));
    assert!(matches!(group.read_barrier().await, Err(ReadError::Stopped { .. })));

    let (group, journal) = start(config(dir.path())).await.unwrap();
    let expected: Vec<Bytes> = (0..50).map(command).collect();
    assert_eq!(journal.commands(), expected, "a group that has started has caught up");
    assert_eq!(number(&group.propose(command(50)).await.unwrap()), 50);
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commands_share_proposals_and_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = start(config(dir.path())).await.unwrap();
    let before = group.status().counters;
    let callers = (0..16).map(|caller| {
        let group = group.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                group.propose(command(caller * 100 + n)).await.unwrap();
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let counters = group.status().counters;
    assert_eq!(counters.commands - before.commands, 1600);
    let (proposals, syncs) = (counters.proposals - before.proposals, counters.syncs - before.syncs);
    assert!(proposals * 2 < 1600, "{proposals} proposals for 1600 commands");
    assert!(syncs >= proposals, "{syncs} syncs for {proposals} proposals: each is acknowledged by one");
    assert!(counters.commands_per_sync() > 1.0 && counters.bytes_per_sync() > 100.0);
    let mut seen = journal.commands();
    let mut expected: Vec<Bytes> = (0..1600).map(command).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_does_not_take_its_command_along() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = start(config(dir.path())).await.unwrap();
    for n in 0..20 {
        let proposal = group.propose(command(n));
        // Polled once, then dropped.
        let _ = futures::poll!(Box::pin(proposal));
    }
    group.propose(command(20)).await.unwrap();
    assert_eq!(journal.commands(), (0..=20).map(command).collect::<Vec<_>>());
    group.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = start(config(dir.path())).await.unwrap();
    // On one thread nothing is taken from the queue until this task waits.
    let mut waiting = Vec::new();
    let mut refused = 0;
    for n in 0..limits::PROPOSALS_WAITING_MAX as u64 + 10 {
        let mut proposal = Box::pin(group.propose(command(n % 10)));
        match futures::poll!(&mut proposal) {
            std::task::Poll::Ready(Err(ProposeError::Overloaded(_))) => refused += 1,
            std::task::Poll::Ready(other) => panic!("{other:?}"),
            std::task::Poll::Pending => waiting.push(proposal),
        }
    }
    assert_eq!(refused, 10);
    let answered = join_all(waiting).await;
    assert!(answered.iter().all(Result::is_ok));
    assert_eq!(journal.commands().len(), limits::PROPOSALS_WAITING_MAX);

    let huge = Bytes::from(vec![0; limits::COMMAND_BYTES_MAX + 1]);
    assert!(matches!(group.propose(huge).await, Err(ProposeError::TooLarge { .. })));
    let largest = Bytes::from(vec![0; limits::COMMAND_BYTES_MAX]);
    group.propose(largest).await.unwrap();
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_bound_the_log_and_bring_a_new_machine_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let config = GroupConfig { snapshot_every_entries: 50, ..config(dir.path()) };
    let (group, _) = start(config.clone()).await.unwrap();
    for n in 0..1000 {
        group.propose(command(n)).await.unwrap();
    }
    let mut metrics = group.leading();
    assert!(metrics.borrow_and_update().is_some());
    while group.status().snapshot.is_none_or(|at| at.index < 900) {
        tokio::task::yield_now().await;
    }
    group.shutdown().await.unwrap();
    let snapshots: Vec<_> = fs::read_dir(dir.path().join("snapshots")).unwrap().collect();
    assert_eq!(snapshots.len(), 1, "only the newest is kept: {snapshots:?}");
    let (mut live, mut spare) = (0, 0);
    for entry in fs::read_dir(dir.path().join("log")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        live += usize::from(name.starts_with("log-"));
        spare += usize::from(name.starts_with("spare-"));
    }
    assert!(live < 12, "{live} segments are left of about 20 written");
    assert!(spare <= limits::LOG_SEGMENTS_SPARE, "{spare} spare segments");

    // A machine in memory starts from the snapshot and the rest of the log.
    let (group, journal) = start(config).await.unwrap();
    assert_eq!(journal.commands(), (0..1000).map(command).collect::<Vec<_>>());
    assert!(group.status().snapshot.is_some());
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_log_alone_bring_a_snapshot_too() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) =
        start(GroupConfig { snapshot_every_bytes: 100 << 10, ..config(dir.path()) }).await.unwrap();
    for _ in 0..20 {
        group.propose(Bytes::from(vec![7; 20 << 10])).await.unwrap();
    }
    while group.status().snapshot.is_none() {
        tokio::task::yield_now().await;
    }
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_out_and_commands_are_refused_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::after(i64::MAX);
    let journal = Journal::default();
    let disk = FailingDisk::shared(&failing);
    let group = Group::start(config(dir.path()), Box::new(journal.clone()), disk).await.unwrap();
    failing.zeros_left.store(0, Ordering::SeqCst);
    let writing = tokio::spawn({
        let group = group.clone();
        async move {
            for _ in 0..40 {
                group.propose(Bytes::from(vec![7; 3000])).await.unwrap();
            }
        }
    });
    while !group.status().full {
        tokio::task::yield_now().await;
    }
    let refused = group.propose(command(1)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Full(_)), "{refused}");
    failing.zeros_left.store(i64::MAX, Ordering::SeqCst);
    writing.await.unwrap();
    assert!(!group.status().full);
    assert_eq!(journal.commands().len(), 40);

    // One that ends while it waits ends all the same, and comes back.
    failing.zeros_left.store(0, Ordering::SeqCst);
    let writing = tokio::spawn({
        let group = group.clone();
        async move { while group.propose(Bytes::from(vec![8; 3000])).await.is_ok() {} }
    });
    while !group.status().full {
        tokio::task::yield_now().await;
    }
    let _ = group.shutdown().await;
    writing.await.unwrap();
    let (group, journal) = start(config(dir.path())).await.unwrap();
    assert!(journal.commands().len() >= 40);
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_room_is_made_later_and_a_large_command_waits() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::after(i64::MAX);
    let disk = FailingDisk::shared(&failing);
    let group = Group::start(config(dir.path()), Box::new(Journal::default()), disk).await.unwrap();
    group.propose(command(0)).await.unwrap();
    failing.fill(true);
    group.snapshot().await.unwrap();
    while failing.full_said.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // What the log has room for goes on.
    group.propose(command(1)).await.unwrap();
    failing.fill(false);
    while group.status().snapshot.is_none() {
        tokio::task::yield_now().await;
    }

    // It is larger than any segment: the file must grow.
    failing.fill(true);
    let large = tokio::spawn({
        let group = group.clone();
        async move { group.propose(Bytes::from(vec![7; 40 << 10])).await }
    });
    while !group.status().full {
        tokio::task::yield_now().await;
    }
    failing.fill(false);
    large.await.unwrap().unwrap();
    group.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_machine_that_fails_stops_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = start(config(dir.path())).await.unwrap();
    group.propose(command(0)).await.unwrap();
    let error = group.propose(Bytes::from_static(b"poison")).await.unwrap_err();
    assert!(matches!(&error, ProposeError::Stopped { .. }), "{error}");
    assert!(matches!(group.propose(command(1)).await, Err(ProposeError::Stopped { .. })));
    assert!(matches!(group.read_barrier().await, Err(ReadError::Stopped { .. })));
    let mut leading = group.leading();
    leading.wait_for(Option::is_none).await.unwrap();
    group.gone().await;
    assert!(group.status().stopped.is_some());
    group.shutdown().await.unwrap_err();
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = start(config(dir.path())).await.unwrap();
    let in_use = start(config(dir.path())).await.err().unwrap();
    assert!(matches!(in_use, StartError::Io { .. }), "{in_use}");
    group.shutdown().await.unwrap();

    for other in [
        GroupConfig { cluster: ClusterId::from_random(9), ..config(dir.path()) },
        GroupConfig { name: "other".to_owned(), ..config(dir.path()) },
        GroupConfig { member: Some(MemberId(2)), ..config(dir.path()) },
    ] {
        let error = start(other).await.err().unwrap();
        assert!(matches!(error, StartError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("belongs to member 1 of group test"), "{error}");
    }
    start(config(dir.path())).await.unwrap().0.shutdown().await.unwrap();

    fs::remove_file(dir.path().join("identity")).unwrap();
    let error = start(config(dir.path())).await.err().unwrap();
    assert!(matches!(error, StartError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_log_that_lost_what_the_state_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (group, journal) = start(config(dir.path())).await.unwrap();
    for n in 0..10 {
        group.propose(command(n)).await.unwrap();
    }
    group.shutdown().await.unwrap();
    for entry in fs::read_dir(dir.path().join("log")).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("state") {
            fs::remove_file(path).unwrap();
        }
    }
    let error =
        Group::start(config(dir.path()), Box::new(journal.clone()), RealDisk::shared()).await.err().unwrap();
    assert!(error.to_string().contains("the log ends at"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_machine_is_given_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    for round in 0..3u64 {
        let machine = Box::new(journal.clone());
        let group = Group::start(config(dir.path()), machine, RealDisk::shared()).await.unwrap();
        for n in 0..20 {
            assert_eq!(number(&group.propose(command(n)).await.unwrap()), round * 20 + n);
        }
        group.shutdown().await.unwrap();
    }
    assert_eq!(journal.commands().len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asynchronous_durability_acknowledges_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let large = GroupConfig { segment_bytes: 1 << 20, durability: Durability::Async, ..config(dir.path()) };
    let (group, _) = start(large.clone()).await.unwrap();
    for n in 0..200 {
        group.propose(command(n)).await.unwrap();
    }
    assert!(group.status().counters.syncs < 20, "{:?}", group.status().counters);
    group.shutdown().await.unwrap();
    let (group, journal) = start(large).await.unwrap();
    assert_eq!(journal.commands().len(), 200);
    group.shutdown().await.unwrap();
}

/// Not a test of speed: prints what `docs/benchmarks.md` quotes. Run with `--nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposer_figures() {
    let dir = match std::env::var_os("HAY_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let rounds: u64 = std::env::var("HAY_BENCH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(200);
    let clock = hay_common::clock::SystemClock::shared();
    let config = GroupConfig { segment_bytes: limits::LOG_SEGMENT_BYTES, ..config(dir.path()) };
    let (group, _) = start(config).await.unwrap();
    for callers in [1u64, 16, 64] {
        let before = (group.status().counters, clock.monotonic());
        let tasks = (0..callers).map(|_| {
            let group = group.clone();
            tokio::spawn(async move {
                for _ in 0..rounds {
                    group.propose(Bytes::from_static(&[7; 100])).await.unwrap();
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        let (after, took) = (group.status().counters, clock.monotonic() - before.1);
        let (commands, syncs) = (after.commands - before.0.commands, after.syncs - before.0.syncs);
        assert_eq!(commands, callers * rounds);
        println!(
            "{callers} callers: {:.0} commands/s, {:.1} commands a sync, {:.0} syncs/s",
            commands as f64 / took.as_secs_f64(),
            commands as f64 / syncs as f64,
            syncs as f64 / took.as_secs_f64(),
        );
    }
    group.shutdown().await.unwrap();
}
