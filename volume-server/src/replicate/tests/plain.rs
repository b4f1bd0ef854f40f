//! One fault at a time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use hay_client::volume::{Data, NeedleRange};
use hay_common::limits::REPLICATE_TIMEOUT;

use super::*;

fn range(needle: u128, len: u32) -> NeedleRange {
    NeedleRange { volume: VOLUME, key: NeedleKey(needle), cookie: COOKIE, offset: 0, length: len }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_on_every_replica() {
    let world = World::new(3, SizeClass::Small).await;
    let many = (0..200u128).map(|needle| {
        let world = &world;
        async move {
            let len = needle as usize * 17;
            world.append(needle, len).await.unwrap();
            assert!((0..3).all(|n| world.has(n, needle)), "{needle} is not everywhere");
        }
    });
    join_all(many).await;
    for n in 0..3 {
        assert!(world.holds(n, 100, 1700).await);
    }
    // Any member may take a writer's append: all have it in the end.
    world.append_at(2, FIRST, 1000, 10).await.unwrap();
    assert!((0..3).all(|n| world.has(n, 1000)));
    assert_eq!(world.append(1000, 10).await.unwrap_err().code, ErrorCode::NeedleExists);
    let large = World::new(2, SizeClass::Large).await;
    let len = (5 << 20) + 11;
    large.append(5, len).await.unwrap();
    assert!(large.holds(0, 5, len).await && large.holds(1, 5, len).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_fails_stops_the_volume_and_is_named() {
    for (class, len) in [(SizeClass::Small, 100), (SizeClass::Large, 3 << 20)] {
        for fate in [Fate::Cut, Fate::Unheard] {
            let world = World::new(3, class).await;
            world.append(1, len).await.unwrap();
            world.links.set(0, 2, fate);
            let failure = world.append(2, len).await.unwrap_err();
            assert_eq!(failure.code, ErrorCode::VolumeNotWritable, "{fate:?}");
            assert!(failure.message.contains("server-2:1"), "{}", failure.message);
            world.links.heal();
            assert_eq!(world.append(3, len).await.unwrap_err().code, ErrorCode::VolumeNotWritable);
            assert!(!world.has(1, 3), "nothing is even tried any more");
            let info = world.core(0).replication.infos().remove(0);
            assert_eq!(info.failed_replica, Some(world.servers[2].node));
            assert!(info.read_only.unwrap().contains("failed"));
            assert_eq!(world.has(2, 2), fate == Fate::Unheard, "an extra that nobody was told of");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_replica_counts_as_failed_and_a_little_slow_one_does_not() {
    let world = World::new(2, SizeClass::Small).await;
    world.links.set(0, 1, Fate::Slow(Duration::from_millis(100)));
    world.append(1, 10).await.unwrap();
    world.links.set(0, 1, Fate::Slow(REPLICATE_TIMEOUT * 3));
    assert_eq!(world.append(2, 10).await.unwrap_err().code, ErrorCode::VolumeNotWritable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_replica_that_does_not_answer_waits_for_no_second_timeout() {
    let world = Arc::new(World::new(3, SizeClass::Small).await);
    world.append(1, 10).await.unwrap();
    let before = world.links.batches.load(Ordering::SeqCst);
    world.links.set(0, 2, Fate::Slow(REPLICATE_TIMEOUT * 3));
    let write = |needle| {
        let world = world.clone();
        tokio::spawn(async move { world.append(needle, 10).await })
    };
    // The first is on its way to both others before the next come: those are gathered behind it.
    let first = write(2);
    while world.links.batches.load(Ordering::SeqCst) < before + 2 {
        tokio::task::yield_now().await;
    }
    let mut later = Vec::new();
    for needle in 3..6 {
        later.push(write(needle));
        // Stored here: it waits for the others alone.
        while !world.has(0, needle) || !world.has(1, needle) {
            tokio::task::yield_now().await;
        }
    }
    for written in later.into_iter().chain([first]) {
        let failure = written.await.unwrap().unwrap_err();
        assert_eq!(failure.code, ErrorCode::VolumeNotWritable, "{}", failure.message);
        assert!(failure.message.contains("server-2:1"), "{}", failure.message);
    }
    let sent = world.links.sent_to(2);
    assert_eq!(
        sent, 2,
        "only the first two are sent at all: the others' answer does not hang on another timeout"
    );
}

/// The primary reaches its writers and the other replicas, but no master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sealed_survivor_fences_a_primary_that_has_heard_of_nothing() {
    let world = World::new(3, SizeClass::Small).await;
    world.append(1, 10).await.unwrap();
    world.seal(2, Epoch(2)).await;
    assert!(world.append(2, 10).await.is_err());
    assert!(world.append_at(1, FIRST, 3, 10).await.is_err());
    for epoch in [Epoch(2), Epoch(3)] {
        assert!(world.append_at(0, epoch, 4, 10).await.is_err(), "a lease alone opens nothing");
    }
    assert!([2, 3, 4].iter().all(|needle| !world.has(2, *needle)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_epoch_is_refused_by_every_replica_for_good() {
    let mut world = World::new(2, SizeClass::Small).await;
    world.append(1, 10).await.unwrap();
    world.seal(1, Epoch(5)).await;
    world.kill_and_start(1).await;
    world.confirm(1, Epoch(5), VolumeState::Sealed, Part::Whole).await;
    assert_eq!(world.core(1).store().state(VOLUME).unwrap().epoch, Epoch(5));
    assert!(world.append(2, 10).await.is_err());
    assert!(!world.has(1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_comes_back_is_nothing_until_it_is_confirmed() {
    let mut world = World::new(2, SizeClass::Small).await;
    world.append(1, 10).await.unwrap();
    // As the primary.
    world.kill_and_start(0).await;
    let failure = world.append(2, 10).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unavailable, "{}", failure.message);
    assert!(!world.has(0, 2) && !world.has(1, 2));
    world.confirm(0, FIRST, VolumeState::Writable, Part::Whole).await;
    world.append(2, 10).await.unwrap();
    // As a replica.
    world.kill_and_start(1).await;
    let failure = world.append(3, 10).await.unwrap_err();
    assert_eq!(
        failure.code,
        ErrorCode::VolumeNotWritable,
        "the server that took it is well: {}",
        failure.message
    );
    assert!(!world.has(1, 3));
    assert_eq!(world.core(0).replication.infos()[0].failed_replica, None, "it has only just come back");
    // What it holds it serves: names are of content. What it does not hold, it does not call absent.
    let only = [address(1)];
    assert_eq!(world.client.read_whole(&only, range(1, 10)).await.unwrap(), data(1, 10));
    assert_eq!(world.client.read_whole(&only, range(3, 10)).await.unwrap_err().code, ErrorCode::Unavailable);
    // Left behind: the map has gone on.
    world.confirm(1, Epoch(2), VolumeState::Sealed, Part::Whole).await;
    let state = world.core(1).store().state(VOLUME).unwrap();
    assert_eq!((state.epoch, state.sealed.is_some()), (Epoch(2), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_append_meets_a_replica_that_is_not_confirmed_yet_and_the_volume_goes_on() {
    let mut world = World::new(2, SizeClass::Large).await;
    let len = (2 << 20) + 7;
    world.append(1, len).await.unwrap();
    world.kill_and_start(1).await;
    let failure = world.append(2, len).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::VolumeNotWritable, "{}", failure.message);
    assert_eq!(world.core(0).replication.infos()[0].failed_replica, None, "it has only just come back");
    world.confirm(1, FIRST, VolumeState::Writable, Part::Whole).await;
    world.append(3, len).await.unwrap();
    assert!(world.holds(1, 3, len).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_at_another_replica_also_in_the_middle() {
    let mut world = World::new(3, SizeClass::Large).await;
    let len = 6 << 20;
    for needle in 0..6 {
        world.append(needle, len).await.unwrap();
    }
    let all: Vec<String> = (0..3).map(address).collect();
    for down in 0..3 {
        for needle in 0..6 {
            let wanted = range(needle, len as u32);
            let Ok(Data::Parts(mut parts)) = world.client.read(&all, wanted).await else { panic!() };
            let mut read = Vec::new();
            for _ in 0..2 {
                read.extend(futures::StreamExt::next(&mut parts).await.unwrap().unwrap());
            }
            // The server goes, and with it whatever it was about to send.
            world.stop(down);
            while let Some(part) = futures::StreamExt::next(&mut parts).await {
                read.extend(part.unwrap());
            }
            assert!(data(needle, len) == read, "needle {needle}, server {down} down");
            let small = world.client.read_whole(&all, range(needle, 1000)).await.unwrap();
            assert_eq!(small, data(needle, len).slice(..1000));
        }
        world.kill_and_start(down).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_may_send_appends() {
    let world = World::new(2, SizeClass::Small).await;
    let stranger = world.links.peers(0, NodeId::from_random(1234));
    let needle =
        crate::store::NewNeedle::new(FIRST, NeedleKey(1), COOKIE, 0, vec![data(1, 5)], None).unwrap();
    let target = stranger.volume(&address(1)).unwrap();
    let sent = crate::grpc::replicate::send_batch(&target, VOLUME, vec![needle], REPLICATE_TIMEOUT).await;
    assert_eq!(sent.unwrap()[0].as_ref().unwrap_err().code, ErrorCode::Unavailable);
    assert!(!world.has(1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_one_server_stops_the_volume_and_not_the_writer() {
    for full in 0..2 {
        let mut world = World::new(2, SizeClass::Small).await;
        world.append(1, 10).await.unwrap();
        world.halt(full).await;
        world.start_with(full, u64::MAX / 2).await;
        world.confirm(full, FIRST, VolumeState::Writable, Part::Whole).await;
        // Not "the disk is full": elsewhere there is room.
        assert_eq!(world.append(2, 10).await.unwrap_err().code, ErrorCode::VolumeNotWritable);
        let info = world.core(0).replication.infos().remove(0);
        assert_eq!(info.failed_replica, Some(world.servers[full].node), "{:?}", info.read_only);
        assert!(info.read_only.unwrap().contains("full"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_a_call_is_under_way_goes_together() {
    let world = World::new(2, SizeClass::Small).await;
    world.links.set(0, 1, Fate::Slow(Duration::from_millis(300)));
    let many = join_all((0..400u128).map(|needle| world.append(needle, 100))).await;
    assert!(many.iter().all(Result::is_ok));
    let batches = world.links.batches.load(Ordering::SeqCst);
    assert!(batches <= 5, "{batches} calls for what fits into two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_sealed_first_is_no_failed_replica() {
    for (class, len) in [(SizeClass::Small, 10), (SizeClass::Large, (2 << 20) + 7)] {
        let world = World::new(2, class).await;
        world.append(1, len).await.unwrap();
        // The masters' seal comes to the other one first.
        world.seal(1, Epoch(2)).await;
        let failure = world.append(2, len).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::VolumeNotWritable, "{}", failure.message);
        let info = world.core(0).replication.infos().remove(0);
        assert_eq!((info.failed_replica, info.read_only), (None, None));
        assert!(!world.has(1, 2));
    }
}
