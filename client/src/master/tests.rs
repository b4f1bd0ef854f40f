use std::sync::atomic::Ordering;
use std::time::Duration;

use hay_common::clock::ManualClock;
use hay_common::limits::{LOCATE_CONFIRM_AGAIN, LOCATIONS_KEPT, VOLUME_AVOIDED};
use hay_common::random::SeededRandom;

use super::*;
use crate::testing::{FakeMaster, until};

fn start(master: &Arc<FakeMaster>) -> (MasterClient, Arc<ManualClock>) {
    let clock = ManualClock::at(1000);
    (MasterClient::start(master.served(), clock.clone(), SeededRandom::shared(3)), clock)
}

async fn watched(master: &FakeMaster, times: usize) {
    until("the watch", || master.watchers.load(Ordering::SeqCst) >= times).await;
    // The stream is there; the client has begun to follow it at its next turn.
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The likeliest place of a volume.
async fn place(client: &MasterClient, volume: u32) -> String {
    client.locate(VolumeId(volume)).await.unwrap().all()[0].clone()
}

async fn id(client: &MasterClient, class: SizeClass) -> u32 {
    client.writable(class).await.unwrap().volume.volume.0
}

#[tokio::test]
async fn writing_calls_no_master() {
    let master = FakeMaster::new([2, 4, 3, 5]);
    let (client, _) = start(&master);
    let mut large = Vec::new();
    for _ in 0..1000 {
        assert_eq!(id(&client, SizeClass::Small).await, 2, "small appends share the syncs of one volume");
        large.push(id(&client, SizeClass::Large).await);
    }
    assert_eq!(large[..4], [3, 5, 3, 5]);
    assert_eq!(master.leases.load(Ordering::SeqCst), 1);
    assert_eq!(master.fetches.load(Ordering::SeqCst), 0);
    assert_eq!(client.ready(), Ok(()));
    assert_eq!(client.writable(SizeClass::Small).await.unwrap().token, "lease");
}

#[tokio::test]
async fn a_writer_waits_for_the_first_lease_and_hears_why_there_is_none() {
    let master = FakeMaster::new([]);
    *master.failure.lock() = Some(ErrorCode::Unavailable);
    let (client, _) = start(&master);
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { id(&client, SizeClass::Small).await })
    };
    until("some tries", || master.leases.load(Ordering::SeqCst) > 1).await;
    assert_eq!(client.ready(), Err("as told".to_owned()));
    master.volumes.lock().extend([(2, "here:1".to_owned()), (3, "here:1".to_owned())]);
    *master.failure.lock() = None;
    assert_eq!(waiting.await.unwrap(), 2);
}

#[tokio::test]
async fn full_disks_are_an_answer() {
    let master = FakeMaster::new([]);
    *master.failure.lock() = Some(ErrorCode::StorageFull);
    let (client, _) = start(&master);
    assert_eq!(client.writable(SizeClass::Large).await.unwrap_err().code, ErrorCode::StorageFull);
}

#[tokio::test]
async fn a_lease_is_renewed_before_its_end_and_kept_while_no_master_answers() {
    let master = FakeMaster::new([2, 3]);
    master.ttl_ms.store(40, Ordering::SeqCst);
    let (client, _) = start(&master);
    until("renewals", || master.leases.load(Ordering::SeqCst) > 3).await;
    master.volumes.lock().clear();
    master.volumes.lock().extend([(6, "here:1".to_owned()), (7, "here:1".to_owned())]);
    let before = master.leases.load(Ordering::SeqCst);
    until("another renewal", || master.leases.load(Ordering::SeqCst) > before + 1).await;
    assert_eq!(id(&client, SizeClass::Small).await, 6);
    *master.failure.lock() = Some(ErrorCode::Unavailable);
    let before = master.leases.load(Ordering::SeqCst);
    until("failed renewals", || master.leases.load(Ordering::SeqCst) > before + 1).await;
    assert_eq!(id(&client, SizeClass::Small).await, 6);
    assert_eq!(client.ready(), Ok(()));
}

#[tokio::test]
async fn an_avoided_volume_comes_back_only_after_a_while() {
    let master = FakeMaster::new([2, 4, 3]);
    let (client, clock) = start(&master);
    id(&client, SizeClass::Small).await;
    client.avoid(VolumeId(2));
    for _ in 0..20 {
        assert_eq!(id(&client, SizeClass::Small).await, 4);
    }
    until("a lease without it", || master.leases.load(Ordering::SeqCst) > 1).await;
    client.avoid(VolumeId(4));
    // All are avoided: a new volume is what helps.
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { id(&client, SizeClass::Small).await })
    };
    until("another lease", || master.leases.load(Ordering::SeqCst) > 2).await;
    master.volumes.lock().insert(6, "here:1".to_owned());
    assert_eq!(waiting.await.unwrap(), 6);

    clock.advance(VOLUME_AVOIDED);
    // Anything that has the lease renewed.
    client.avoid(VolumeId(6));
    let mut given = Vec::new();
    for _ in 0..20 {
        given.push(id(&client, SizeClass::Small).await);
    }
    assert!(given.iter().all(|id| [2, 4].contains(id)), "{given:?}");
}

#[tokio::test]
async fn places_are_fetched_once_for_all_who_ask_and_their_neighbours() {
    let master = FakeMaster::new(10..20);
    let (client, _) = start(&master);
    id(&client, SizeClass::Small).await;
    watched(&master, 1).await;
    client.forget(VolumeId(12));
    let asked = futures::future::join_all((0..50).map(|_| client.locate(VolumeId(12)))).await;
    assert!(asked.iter().all(|places| places.as_ref().unwrap().all() == ["here:1", "silent:1"]));
    client.locate(VolumeId(19)).await.unwrap();
    assert_eq!(master.fetches.load(Ordering::SeqCst), 1);
    let unknown = client.locate(VolumeId(99)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::VolumeNotFound);
    assert!(unknown.message.contains("99"));
}

#[tokio::test]
async fn changes_are_pushed_and_nothing_old_survives_a_broken_watch() {
    let master = FakeMaster::new([2, 3]);
    let (client, _) = start(&master);
    watched(&master, 1).await;
    assert_eq!(place(&client, 3).await, "here:1");
    let fetches = master.fetches.load(Ordering::SeqCst);
    master.move_away(3);
    let places = client.0.locations.clone();
    until("the change", || places.is_at(VolumeId(3), "moved-3:1")).await;
    assert_eq!(place(&client, 3).await, "moved-3:1");
    assert_eq!(master.fetches.load(Ordering::SeqCst), fetches);

    // Moved while nobody listens.
    master.cut_watches();
    master.volumes.lock().insert(3, "elsewhere:1".to_owned());
    watched(&master, 2).await;
    assert_eq!(place(&client, 3).await, "elsewhere:1");

    master.volumes.lock().insert(3, "again:1".to_owned());
    client.forget(VolumeId(3));
    assert_eq!(place(&client, 3).await, "again:1");
}

#[tokio::test]
async fn status_and_map_are_asked_for_and_tasks_end() {
    let master = FakeMaster::new(1..=10);
    let (client, _) = start(&master);
    assert_eq!(client.cluster_status().await.unwrap().not_ready, None);
    let page = client.volumes(VolumeId(4), 3).await.unwrap();
    assert_eq!(page.volumes.iter().map(|v| v.id.0).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(client.volume(VolumeId(9)).await.unwrap().id, VolumeId(9));
    assert_eq!(client.volume(VolumeId(11)).await.unwrap_err().code, ErrorCode::VolumeNotFound);
    client.writable(SizeClass::Small).await.unwrap();
    client.shutdown().await;
    client.writable(SizeClass::Small).await.unwrap();
}

#[tokio::test]
async fn writers_go_around_a_server_that_fails_where_they_can() {
    let master = FakeMaster::new([2, 4, 3, 5]);
    master.volumes.lock().insert(2, "down:1".to_owned());
    master.volumes.lock().insert(3, "down:1".to_owned());
    let (client, clock) = start(&master);
    assert_eq!(id(&client, SizeClass::Small).await, 2);
    assert!(client.has_others(SizeClass::Small));
    client.avoid_server("down:1");
    for _ in 0..10 {
        assert_eq!(id(&client, SizeClass::Small).await, 4);
        assert_eq!(id(&client, SizeClass::Large).await, 5);
    }
    client.avoid_server("here:1");
    assert!(!client.has_others(SizeClass::Small) && !client.has_others(SizeClass::Large));
    assert_eq!(id(&client, SizeClass::Small).await, 2, "one that may fail is better than none");
    clock.advance(hay_common::limits::ADDRESS_AVOIDED);
    assert_eq!(id(&client, SizeClass::Small).await, 2);
    assert!(client.has_others(SizeClass::Small));
}

#[tokio::test]
async fn without_a_master_to_grant_another_lease_an_avoided_volume_comes_back_after_a_while() {
    let master = FakeMaster::new([2, 4, 3]);
    let (client, clock) = start(&master);
    assert_eq!(id(&client, SizeClass::Small).await, 2);
    master.is_alone.store(true, Ordering::SeqCst);
    client.avoid(VolumeId(2));
    assert_eq!(id(&client, SizeClass::Small).await, 4);
    client.avoid(VolumeId(4));
    assert!(client.ready().is_err() && !client.has_others(SizeClass::Small));
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { id(&client, SizeClass::Small).await })
    };
    let asked = master.leases.load(Ordering::SeqCst);
    until("some tries", || master.leases.load(Ordering::SeqCst) > asked + 1).await;
    assert!(!waiting.is_finished());
    clock.advance(VOLUME_AVOIDED);
    assert_eq!(waiting.await.unwrap(), 2);
    assert_eq!(client.ready(), Ok(()));
}

#[tokio::test]
async fn who_starts_without_a_majority_reads_by_the_map_of_any_master() {
    let master = FakeMaster::new(10..20);
    master.is_alone.store(true, Ordering::SeqCst);
    let (client, _) = start(&master);
    assert_eq!(place(&client, 12).await, "here:1");
    for volume in 13..20 {
        assert_eq!(place(&client, volume).await, "here:1");
    }
    assert_eq!(master.fetches.load(Ordering::SeqCst), 1, "what is known has to do");
    let unknown = client.locate(VolumeId(99)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::VolumeNotFound);
    // A majority is there again.
    master.volumes.lock().insert(12, "elsewhere:1".to_owned());
    master.is_alone.store(false, Ordering::SeqCst);
    watched(&master, 1).await;
    assert_eq!(place(&client, 12).await, "elsewhere:1");
}

#[tokio::test]
async fn what_is_known_stays_until_something_newer_is() {
    let master = FakeMaster::new([3, 40]);
    let (client, _) = start(&master);
    watched(&master, 1).await;
    client.forget(VolumeId(3));
    assert_eq!(place(&client, 3).await, "here:1");
    // A leader came and went: everything is doubtful.
    master.cut_watches();
    watched(&master, 2).await;
    master.is_alone.store(true, Ordering::SeqCst);
    master.cut_watches();
    let locations = client.0.locations.clone();
    until("the end of the watch", || !locations.may_confirm()).await;
    let fetches = master.fetches.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(place(&client, 3).await, "here:1");
        // One read that failed makes no volume unreadable.
        client.forget(VolumeId(3));
    }
    assert_eq!(master.fetches.load(Ordering::SeqCst), fetches);
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_not_waited_for_again_and_again() {
    let master = FakeMaster::new([3]);
    let (client, clock) = start(&master);
    watched(&master, 1).await;
    // Paused, its stream of changes is open yet.
    master.is_alone.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        client.forget(VolumeId(3));
        assert_eq!(place(&client, 3).await, "here:1");
    }
    assert_eq!(master.fetches.load(Ordering::SeqCst), 2, "one to confirm it, one for the map as it stands");
    master.is_alone.store(false, Ordering::SeqCst);
    master.volumes.lock().insert(3, "elsewhere:1".to_owned());
    clock.advance(LOCATE_CONFIRM_AGAIN);
    assert_eq!(place(&client, 3).await, "elsewhere:1");
}

#[tokio::test]
async fn a_map_that_lags_does_not_replace_what_is_newer() {
    let master = FakeMaster::new([3]);
    let (client, _) = start(&master);
    watched(&master, 1).await;
    master.version.store(5, Ordering::SeqCst);
    client.forget(VolumeId(3));
    assert_eq!(place(&client, 3).await, "here:1");
    master.is_alone.store(true, Ordering::SeqCst);
    for (version, expected) in [(4, "here:1"), (6, "newer:1")] {
        master.version.store(version, Ordering::SeqCst);
        master.volumes.lock().insert(3, if version < 5 { "older:1" } else { "newer:1" }.to_owned());
        client.forget(VolumeId(3));
        *client.0.locations.confirms_from.lock() = Duration::ZERO;
        assert_eq!(place(&client, 3).await, expected, "version {version}");
    }
}

#[tokio::test]
async fn what_is_old_is_asked_for_beside_the_reader() {
    let master = FakeMaster::new([3]);
    let (client, clock) = start(&master);
    watched(&master, 1).await;
    assert_eq!(place(&client, 3).await, "here:1");
    // Not told of: that a server died or came back is no change of the map.
    master.volumes.lock().insert(3, "elsewhere:1".to_owned());
    clock.advance(LOCATIONS_KEPT + Duration::from_millis(1));
    assert_eq!(place(&client, 3).await, "here:1", "no reader waits for it");
    let locations = client.0.locations.clone();
    until("the new place", || locations.is_at(VolumeId(3), "elsewhere:1")).await;
}
