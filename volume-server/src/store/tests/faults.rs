//! Full and failing disks.

use std::io::ErrorKind;

use super::disk::{Call, Fault, FaultyDisk};
use super::*;

fn faulty() -> (tempfile::TempDir, FaultyDisk, Store) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = try_open(config(dir.path()), Arc::new(disk.clone())).unwrap();
    store.create(SMALL, EPOCH, SizeClass::Small).unwrap();
    store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    (dir, disk, store)
}

const EVERY_TIME: Fault =
    Fault { call: Call::Write, ends_with: "7.vol", kind: ErrorKind::StorageFull, partial: 0, once: false };

#[tokio::test]
async fn a_full_disk_refuses_undoes_and_goes_on() {
    for (volume, ends_with) in [(SMALL, "7.vol"), (LARGE, "8.vol")] {
        for partial in [0, 10, 40, 400, 5000, 100_000] {
            let (dir, disk, store) = faulty();
            put(&store, volume, 1, 3000).await.unwrap();
            let end = end_of(&store, volume);
            disk.set(Fault { ends_with, partial, ..EVERY_TIME });
            let answers = store.append(volume, vec![needle(2, 3000), needle(3, 3000)]).await;
            assert_eq!(answers, [Err(AppendError::StorageFull), Err(AppendError::StorageFull)]);
            assert!(matches!(store.read(volume, NeedleKey(2), Cookie(1)).await, Err(ReadError::Absent(_))));
            assert_eq!((end_of(&store, volume), read_only(&store, volume)), (end, None));
            // A crash now finds nothing to set aside.
            let copy = crash_copy(dir.path());
            let copied = open(copy.path());
            assert_eq!((end_of(&copied, volume), read_only(&copied, volume)), (end, None));
            assert!(files_like(copy.path(), "torn").is_empty());
            // Refused without a try until the disk was looked at again; then all goes on.
            disk.heal();
            assert_eq!(put(&store, LARGE, 4, 10).await, Err(AppendError::StorageFull));
            store.refresh_space();
            put(&store, volume, 2, 2000).await.unwrap();
            holds(&store, volume, 1, 3000).await;
            holds(&store, volume, 2, 2000).await;
            store.close();
            drop(store);
            holds(&open(dir.path()), volume, 2, 2000).await;
        }
    }
}

#[tokio::test]
async fn the_reserve_refuses_before_the_disk_is_full_and_lets_go_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let config = StoreConfig { reserve_bytes: 1 << 30, ..config(dir.path()) };
    let store = try_open(config, Arc::new(disk.clone())).unwrap();
    store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    disk.set_free((1 << 30) + 10_000);
    store.refresh_space();
    assert!(store.has_room());
    put(&store, LARGE, 1, 5000).await.unwrap();
    // Counted down without asking: the second does not fit any more.
    assert_eq!(put(&store, LARGE, 2, 5000).await, Err(AppendError::StorageFull));
    disk.set_free(1 << 29);
    store.refresh_space();
    assert_eq!(store.may_append(LARGE, EPOCH), Err(AppendError::StorageFull));
    assert!(!store.has_room());
    disk.set_free(1 << 31);
    store.refresh_space();
    put(&store, LARGE, 2, 5000).await.unwrap();
}

#[tokio::test]
async fn after_a_failed_sync_it_is_read_only_for_good_and_never_synced_again() {
    let (dir, disk, store) = faulty();
    put(&store, LARGE, 1, 3000).await.unwrap();
    disk.set(Fault {
        call: Call::Sync,
        ends_with: "8.vol",
        kind: ErrorKind::Other,
        once: true,
        ..EVERY_TIME
    });
    let failed = put(&store, LARGE, 2, 3000).await;
    assert!(matches!(failed, Err(AppendError::ReadOnly { .. })), "{failed:?}");
    let syncs = disk.count(Call::Sync, "8.vol");
    for key in 3..10 {
        assert!(matches!(put(&store, LARGE, key, 10).await, Err(AppendError::ReadOnly { .. })));
    }
    assert!(matches!(store.read(LARGE, NeedleKey(2), Cookie(1)).await, Err(ReadError::Absent(_))));
    holds(&store, LARGE, 1, 3000).await;
    put(&store, SMALL, 1, 10).await.unwrap();
    store.close();
    assert_eq!(disk.count(Call::Sync, "8.vol"), syncs, "not synced again, at the end neither");
    drop(store);
    // A restart does not make it good.
    let store = open(dir.path());
    assert!(read_only(&store, LARGE).unwrap().contains("sync failed"));
    assert!(matches!(put(&store, LARGE, 11, 10).await, Err(AppendError::ReadOnly { .. })));
    holds(&store, LARGE, 1, 3000).await;
    store.seal(LARGE, Epoch(9)).unwrap();
}

#[tokio::test]
async fn a_failed_write_and_a_failed_zeroing_make_it_read_only() {
    let (_dir, disk, store) = faulty();
    disk.set(Fault { ends_with: "8.vol", kind: ErrorKind::Other, once: true, ..EVERY_TIME });
    assert!(matches!(put(&store, LARGE, 1, 10).await, Err(AppendError::ReadOnly { .. })));
    assert!(read_only(&store, LARGE).unwrap().contains("write failed"));
    disk.set(Fault { call: Call::ZeroAhead, kind: ErrorKind::Other, ..EVERY_TIME });
    let mut key = 0;
    while put(&store, SMALL, key, 100_000).await.is_ok() {
        key += 1;
    }
    assert!(read_only(&store, SMALL).unwrap().contains("zeroing ahead failed"));
    for key in 0..key {
        holds(&store, SMALL, key, 100_000).await;
    }
}

#[tokio::test]
async fn zeroing_that_meets_a_full_disk_only_stops() {
    let (dir, disk, store) = faulty();
    disk.set(Fault { call: Call::ZeroAhead, ..EVERY_TIME });
    for key in 0..60 {
        put(&store, SMALL, key, 50_000).await.unwrap();
    }
    assert_eq!(read_only(&store, SMALL), None);
    disk.heal();
    for key in 60..90 {
        put(&store, SMALL, key, 50_000).await.unwrap();
    }
    let copy = crash_copy(dir.path());
    let store = open(copy.path());
    for key in 0..90 {
        holds(&store, SMALL, key, 50_000).await;
    }
}

#[tokio::test]
async fn an_undo_that_fails_makes_it_read_only() {
    let (_dir, disk, store) = faulty();
    put(&store, LARGE, 1, 10).await.unwrap();
    disk.set(Fault { ends_with: "8.vol", partial: 20, ..EVERY_TIME });
    disk.set(Fault { call: Call::SetLen, ends_with: "8.vol", kind: ErrorKind::Other, ..EVERY_TIME });
    assert!(matches!(put(&store, LARGE, 2, 10).await, Err(AppendError::ReadOnly { .. })));
}

#[tokio::test]
async fn an_epoch_that_cannot_be_persisted_admits_nothing() {
    let (dir, disk, store) = faulty();
    disk.set(Fault { call: Call::Publish, ends_with: "8.state", kind: ErrorKind::Other, ..EVERY_TIME });
    let higher = NewNeedle::new(Epoch(8), NeedleKey(1), Cookie(1), 2, vec![data(1, 10)], None).unwrap();
    assert!(matches!(store.append(LARGE, vec![higher]).await[..], [Err(AppendError::ReadOnly { .. })]));
    assert!(store.seal(SMALL, Epoch(8)).is_ok());
    assert!(store.seal(LARGE, Epoch(8)).is_err(), "a seal that is not persisted is not acknowledged");
    let copy = crash_copy(dir.path());
    assert_eq!(open(copy.path()).infos()[1].epoch, EPOCH);
}

#[tokio::test]
async fn a_checkpoint_that_fails_costs_nothing_but_time() {
    let (dir, disk, store) = faulty();
    disk.set(Fault { call: Call::Publish, ends_with: ".checkpoint", kind: ErrorKind::Other, ..EVERY_TIME });
    for key in 0..20 {
        put(&store, SMALL, key, 100).await.unwrap();
    }
    store.close();
    drop(store);
    let store = open(dir.path());
    for key in 0..20 {
        holds(&store, SMALL, key, 100).await;
    }
    put(&store, SMALL, 20, 100).await.unwrap();
}

#[tokio::test]
async fn what_a_killed_process_wrote_is_written_again_and_synced_before_it_is_relied_on() {
    for torn in [false, true] {
        let (dir, _disk, store) = faulty();
        for key in 0..5 {
            put(&store, LARGE, key, 3000).await.unwrap();
        }
        let end = end_of(&store, LARGE);
        let copy = crash_copy(dir.path());
        if torn {
            std::fs::OpenOptions::new()
                .write(true)
                .open(vol(copy.path(), LARGE))
                .unwrap()
                .set_len(end - 10)
                .unwrap();
        }
        let disk = FaultyDisk::default();
        let store = try_open(config(copy.path()), Arc::new(disk.clone())).unwrap();
        let changes = disk.changes("8.vol");
        if torn {
            // Nothing of the last batch is left but its marker.
            assert_eq!(changes, [Call::SetLen, Call::Write, Call::Sync]);
        } else {
            assert_eq!(changes, [Call::Write, Call::Sync]);
        }
        for key in 0..4 {
            holds(&store, LARGE, key, 3000).await;
        }
        store.close();
        drop(store);
        // After a clean end there is nothing to do.
        let disk = FaultyDisk::default();
        let store = try_open(config(copy.path()), Arc::new(disk.clone())).unwrap();
        assert_eq!(disk.changes("8.vol"), []);
        drop(store);
    }
}

#[tokio::test]
async fn a_recovery_that_meets_a_failing_disk_stops_that_volume_alone_and_is_not_forgotten() {
    for torn in [false, true] {
        for call in [Call::Sync, Call::Write, Call::SetLen] {
            let (dir, _disk, store) = faulty();
            put(&store, LARGE, 1, 3000).await.unwrap();
            put(&store, LARGE, 2, 3000).await.unwrap();
            put(&store, SMALL, 1, 100).await.unwrap();
            let end = end_of(&store, LARGE);
            let copy = crash_copy(dir.path());
            if torn {
                let file = std::fs::OpenOptions::new().write(true).open(vol(copy.path(), LARGE)).unwrap();
                file.set_len(end - 10).unwrap();
            }
            let disk = FaultyDisk::default();
            disk.set(Fault { call, ends_with: "8.vol", kind: ErrorKind::Other, ..EVERY_TIME });
            let store = try_open(config(copy.path()), Arc::new(disk.clone())).unwrap();
            holds(&store, SMALL, 1, 100).await;
            holds(&store, LARGE, 1, 3000).await;
            let fails = torn || call != Call::SetLen;
            assert_eq!(read_only(&store, LARGE).is_some(), fails, "{torn} {call:?}");
            store.close();
            drop(store);
            let store = open(copy.path());
            assert_eq!(read_only(&store, LARGE).is_some(), fails, "{torn} {call:?}: forgotten by a restart");
            holds(&store, LARGE, 1, 3000).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_stops_no_other_volume() {
    let (dir, _disk, store) = faulty();
    for key in 0..5 {
        put(&store, SMALL, key, 100).await.unwrap();
        put(&store, LARGE, key, 100).await.unwrap();
    }
    store.close();
    drop(store);
    for file in ["7.checkpoint", "7.state", "7.vol"] {
        let disk = FaultyDisk::default();
        disk.set(Fault { call: Call::Read, ends_with: file, kind: ErrorKind::Other, ..EVERY_TIME });
        let store = try_open(config(dir.path()), Arc::new(disk.clone())).unwrap();
        holds(&store, LARGE, 4, 100).await;
        if file == "7.checkpoint" {
            holds(&store, SMALL, 4, 100).await;
            put(&store, LARGE, 100, 10).await.unwrap();
        } else {
            let found = store.read(SMALL, NeedleKey(4), Cookie(1)).await;
            assert!(matches!(found, Err(ReadError::Broken { .. })), "{file}");
        }
        store.close();
        drop(store);
        // It was the disk, not the volume.
        let store = open(dir.path());
        holds(&store, SMALL, 4, 100).await;
        assert_eq!(read_only(&store, SMALL), None);
    }
}

#[tokio::test]
async fn a_creation_that_is_repeated_and_cut_short_anywhere_can_be_repeated_again() {
    let (dir, disk, store) = faulty();
    let new = VolumeId(9);
    disk.set(Fault {
        call: Call::Publish,
        ends_with: "inventory",
        kind: ErrorKind::Other,
        once: true,
        ..EVERY_TIME
    });
    assert!(store.create(new, EPOCH, SizeClass::Small).is_err());
    // The state of the second try, the data of the first.
    disk.set(Fault {
        call: Call::Publish,
        ends_with: "9.vol",
        kind: ErrorKind::Other,
        once: true,
        ..EVERY_TIME
    });
    assert!(store.create(new, EPOCH, SizeClass::Small).is_err());
    let copy = crash_copy(dir.path());
    let restarted = open(copy.path());
    assert_eq!(restarted.broken().len(), 0);
    for store in [&store, &restarted] {
        store.create(new, EPOCH, SizeClass::Small).unwrap();
        put(store, new, 1, 100).await.unwrap();
        holds(store, new, 1, 100).await;
    }
}

#[tokio::test]
async fn durability_async_syncs_though_appends_never_pause() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let clock = hay_common::clock::ManualClock::at(0);
    let config = StoreConfig { durability: hay_common::model::Durability::Async, ..config(dir.path()) };
    let random = SeededRandom::shared(9);
    let store = Store::open(config, Arc::new(disk.clone()), clock.clone(), random).unwrap();
    store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    for key in 0..20 {
        put(&store, LARGE, key, 100).await.unwrap();
        clock.advance(hay_common::limits::ASYNC_SYNC_EVERY * 6 / 10);
    }
    // Every second, or third where the appender saw the clock late.
    let syncs = disk.count(Call::Sync, "8.vol");
    assert!((3..=10).contains(&syncs), "{syncs} syncs");
}

/// Until a thread of the store has come to such a call.
fn wait_for(disk: &FaultyDisk, call: Call, ends_with: &str) {
    while disk.count(call, ends_with) == 0 {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_seal_is_answered_before_the_file_is_cut_and_nobody_writes_to_it_until_then() {
    let (dir, disk, store) = faulty();
    for key in 0..10 {
        put(&store, SMALL, key, 1000).await.unwrap();
    }
    disk.hold(Call::SetLen, "7.vol");
    store.seal(SMALL, Epoch(4)).unwrap();
    wait_for(&disk, Call::SetLen, "7.vol");
    let store = Arc::new(store);
    let own = store.clone();
    let filling = std::thread::spawn(move || {
        own.begin_fill(SMALL, Epoch(5), SizeClass::Small, &[NodeId::from_random(1)]).unwrap();
        let more = NewNeedle::new(Epoch(5), NeedleKey(10), Cookie(1), 2, vec![data(10, 1000)], None);
        block_on(own.fill(SMALL, vec![more.unwrap()]))
    });
    // Time enough for one that does not wait.
    std::thread::sleep(std::time::Duration::from_millis(100));
    disk.let_go();
    assert_eq!(filling.join().unwrap(), [Ok(())]);
    store.finish_fill(SMALL, Epoch(5), false).unwrap();
    store.close();
    drop(store);
    let store = open(dir.path());
    assert_eq!(read_only(&store, SMALL), None);
    for key in 0..11 {
        holds(&store, SMALL, key, 1000).await;
    }
}

#[tokio::test]
async fn a_seal_that_a_disk_can_not_persist_is_seen_by_the_masters() {
    let (_dir, disk, store) = faulty();
    put(&store, SMALL, 1, 10).await.unwrap();
    disk.set(Fault { call: Call::Publish, ends_with: "7.state", kind: ErrorKind::Other, ..EVERY_TIME });
    assert!(store.seal(SMALL, Epoch(8)).is_err());
    assert!(read_only(&store, SMALL).unwrap().contains("seal could not be persisted"));
    // A full disk passes.
    disk.set(Fault { call: Call::Publish, ends_with: "8.state", ..EVERY_TIME });
    assert!(store.seal(LARGE, Epoch(8)).is_err());
    assert_eq!(read_only(&store, LARGE), None);
}

#[tokio::test]
async fn a_copy_written_anew_whose_sync_failed_does_not_take_the_old_ones_place() {
    let (dir, disk, store) = faulty();
    put(&store, SMALL, 1, 3000).await.unwrap();
    store.seal(SMALL, EPOCH).unwrap();
    store.volume(SMALL).unwrap().fail("a sync failed");
    let later = Epoch(EPOCH.0 + 1);
    let begun = store.begin_fill(SMALL, later, SizeClass::Small, &[]).unwrap();
    assert_eq!(begun, Begun::Anew);
    let copy = NewNeedle::new(later, NeedleKey(1), Cookie(1), 2, vec![data(1, 3000)], None).unwrap();
    assert_eq!(store.fill(SMALL, vec![copy]).await, [Ok(())]);
    disk.set(Fault { call: Call::Sync, ends_with: "anew.vol", kind: ErrorKind::Other, ..EVERY_TIME });
    let failed = store.finish_fill(SMALL, later, false);
    assert!(matches!(failed, Err(StoreError::NotFillable { .. })), "{failed:?}");
    holds(&store, SMALL, 1, 3000).await;
    disk.heal();
    store.close();
    drop(store);
    // Nor at the next start, whatever its own state says.
    let store = open(dir.path());
    assert_eq!(store.state(SMALL).unwrap().epoch, EPOCH);
    holds(&store, SMALL, 1, 3000).await;
}
