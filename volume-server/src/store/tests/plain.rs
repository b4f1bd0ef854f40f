//! What the store does when nothing fails.

use super::*;

#[tokio::test]
async fn needles_read_back_before_and_after_a_restart() {
    let (dir, store) = fresh();
    for (n, len) in [0usize, 1, 7, 8, 4096, 100_000, 300_000].into_iter().enumerate() {
        put(&store, SMALL, n as u128, len).await.unwrap();
        put(&store, LARGE, n as u128, len * 20).await.unwrap();
    }
    // The one in use holds the directory.
    assert!(matches!(try_open(config(dir.path()), RealDisk::shared()), Err(StoreError::InUse(_))));
    let killed = crash_copy(dir.path());
    store.close();
    drop(store);
    for dir in [killed, dir] {
        let store = open(dir.path());
        for (n, len) in [0usize, 1, 7, 8, 4096, 100_000, 300_000].into_iter().enumerate() {
            holds(&store, SMALL, n as u128, len).await;
            holds(&store, LARGE, n as u128, len * 20).await;
        }
        assert!(matches!(store.read(SMALL, NeedleKey(99), Cookie(1)).await, Err(ReadError::Absent(_))));
        assert!(matches!(store.read(SMALL, NeedleKey(1), Cookie(2)).await, Err(ReadError::Absent(_))));
        assert!(matches!(
            store.read(VolumeId(1), NeedleKey(1), Cookie(1)).await,
            Err(ReadError::NoVolume(_))
        ));
    }
}

#[tokio::test]
async fn parts_and_known_sums_give_the_same_needle() {
    let (_dir, store) = fresh();
    for (key, len) in [(1u128, 1000usize), (2, 700_000)] {
        let whole = data(key, len);
        let parts = vec![whole.slice(..len / 3), Bytes::new(), whole.slice(len / 3..)];
        let crc = crc32c::crc32c(&whole);
        let needle = NewNeedle::new(EPOCH, NeedleKey(key), Cookie(1), 2, parts, Some(crc)).unwrap();
        assert_eq!(store.append(LARGE, vec![needle]).await, [Ok(())]);
        holds(&store, LARGE, key, len).await;
    }
    // A sum that is not of the data shows at the read: it went into the record.
    let wrong = NewNeedle::new(EPOCH, NeedleKey(3), Cookie(1), 2, vec![data(3, 700_000)], Some(1)).unwrap();
    assert_eq!(store.append(LARGE, vec![wrong]).await, [Ok(())]);
    assert!(matches!(store.read(LARGE, NeedleKey(3), Cookie(1)).await, Err(ReadError::Corrupt { .. })));
}

#[tokio::test]
async fn ranges_are_exact_and_small_ones_hold_no_needle() {
    let dir = tempfile::tempdir().unwrap();
    let disk = super::disk::FaultyDisk::default();
    let store = try_open(config(dir.path()), Arc::new(disk.clone())).unwrap();
    store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    let sweep = hay_common::limits::READ_SWEEP_BYTES as u32;
    for (key, len) in [(1u128, 5000u32), (2, 3 * sweep + 77)] {
        put(&store, LARGE, key, len as usize).await.unwrap();
        let whole = data(key, len as usize);
        let borders = [0, 1, len / 2, sweep - 1, sweep, sweep + 1, 2 * sweep, len - 1, len];
        for start in borders {
            for end in borders.into_iter().filter(|end| start <= *end && *end <= len) {
                disk.reads();
                let found = store.read_range(LARGE, NeedleKey(key), Cookie(1), start..end).await.unwrap();
                assert_eq!(found.codec, 2);
                assert!(found.data == whole.slice(start as usize..end as usize), "{start}..{end} of {len}");
                let (largest, _) = disk.reads();
                let few = ((end - start) * 2).max(sweep) as usize + hay_needle::DATA_OVERHEAD_BYTES + 1;
                assert!(largest <= few, "{start}..{end} of {len}: a buffer of {largest}");
            }
        }
        // In parts the needle is read twice and no more, however small they are.
        disk.reads();
        let parts = store.read_parts(LARGE, NeedleKey(key), Cookie(1)).await.unwrap();
        let (mut at, mut all) = (0, Vec::new());
        while at < len {
            let part = parts.read(at, len).await.unwrap();
            at += part.len() as u32;
            all.extend_from_slice(&part);
        }
        assert!(all == whole);
        assert!(disk.reads().1 <= 2 * len as usize + hay_needle::DATA_OVERHEAD_BYTES);
    }
    // A range is refused where anything of its needle is damaged.
    let path = vol(dir.path(), LARGE);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = store.read_range(LARGE, NeedleKey(2), Cookie(1), 0..10).await;
    assert!(matches!(damaged, Err(ReadError::Corrupt { .. })));
}

#[tokio::test]
async fn what_must_be_refused_is() {
    let (_dir, store) = fresh();
    put(&store, SMALL, 1, 10).await.unwrap();
    assert_eq!(put(&store, SMALL, 1, 10).await, Err(AppendError::Exists { volume: SMALL }));
    // Within one batch too, and the others of the batch are stored.
    let answers = store.append(SMALL, vec![needle(2, 5), needle(2, 5), needle(1, 10), needle(3, 9)]).await;
    let exists = Err(AppendError::Exists { volume: SMALL });
    assert_eq!(answers, [Ok(()), exists.clone(), exists, Ok(())]);
    holds(&store, SMALL, 3, 9).await;
    assert_eq!(put(&store, VolumeId(1), 1, 10).await, Err(AppendError::NoVolume(VolumeId(1))));
    let oversized = vec![Bytes::from(vec![0; hay_common::limits::NEEDLE_BYTES_MAX + 1])];
    assert!(matches!(
        NewNeedle::new(EPOCH, NeedleKey(1), Cookie(1), 0, oversized, None),
        Err(AppendError::TooLarge { .. })
    ));
    assert!(matches!(
        NewNeedle::new(EPOCH, NeedleKey(1), Cookie(1), 256, vec![], None),
        Err(AppendError::Codec(256))
    ));
}

#[tokio::test]
async fn the_highest_epoch_fences_and_survives() {
    let (dir, store) = fresh();
    let of = |epoch, key| {
        NewNeedle::new(Epoch(epoch), NeedleKey(key), Cookie(1), 2, vec![data(key, 10)], None).unwrap()
    };
    let stale = |given| AppendError::StaleEpoch { volume: SMALL, given: Epoch(given), current: Epoch(5) };
    assert_eq!(store.append(SMALL, vec![of(5, 1)]).await, [Ok(())]);
    assert_eq!(store.append(SMALL, vec![of(4, 2), of(5, 3)]).await, [Err(stale(4)), Ok(())]);
    assert_eq!(store.may_append(SMALL, EPOCH), Err(stale(3)));
    let copy = crash_copy(dir.path());
    let store = open(copy.path());
    assert_eq!(store.append(SMALL, vec![of(3, 4)]).await, [Err(stale(3))]);
    assert_eq!(store.may_append(SMALL, Epoch(5)), Ok(()));
}

#[tokio::test]
async fn sealing_fences_truncates_and_survives() {
    let (dir, store) = fresh();
    put(&store, SMALL, 1, 5000).await.unwrap();
    store.seal(SMALL, Epoch(4)).unwrap();
    let end = end_of(&store, SMALL);
    wait_until_cut(&store, SMALL);
    assert_eq!(std::fs::metadata(vol(dir.path(), SMALL)).unwrap().len(), end);
    assert_eq!(put(&store, SMALL, 2, 10).await, Err(AppendError::Sealed(SMALL)));
    // Again, higher: the epoch is persisted though no appender runs.
    store.seal(SMALL, Epoch(9)).unwrap();
    for dir in [crash_copy(dir.path())] {
        let store = open(dir.path());
        let info = store.infos().into_iter().find(|i| i.id == SMALL).unwrap();
        assert_eq!(
            (info.epoch, info.state, info.read_only),
            (Epoch(9), hay_common::model::VolumeState::Sealed, None)
        );
        assert_eq!(put(&store, SMALL, 2, 10).await, Err(AppendError::Sealed(SMALL)));
        holds(&store, SMALL, 1, 5000).await;
        store.seal(SMALL, Epoch(10)).unwrap();
        assert_eq!(store.infos()[0].epoch, Epoch(10));
    }
    assert!(matches!(store.seal(VolumeId(1), Epoch(1)), Err(StoreError::NoVolume(_))));
}

#[tokio::test]
async fn a_full_volume_refuses_and_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { volume_bytes_max: 64 << 10, ..config(dir.path()) };
    let store = try_open(config.clone(), RealDisk::shared()).unwrap();
    store.create(SMALL, EPOCH, SizeClass::Small).unwrap();
    let mut stored = 0;
    while put(&store, SMALL, stored, 1000).await.is_ok() {
        stored += 1;
    }
    assert!((50..62).contains(&stored), "{stored}");
    assert_eq!(put(&store, SMALL, stored, 1000).await, Err(AppendError::Full(SMALL)));
    store.close();
    assert!(std::fs::metadata(vol(dir.path(), SMALL)).unwrap().len() <= 64 << 10);
    drop(store);
    let store = try_open(config, RealDisk::shared()).unwrap();
    for key in 0..stored {
        holds(&store, SMALL, key, 1000).await;
    }
}

#[tokio::test]
async fn creating_again_changes_nothing_but_the_epoch() {
    let (_dir, store) = fresh();
    put(&store, SMALL, 1, 10).await.unwrap();
    store.create(SMALL, Epoch(6), SizeClass::Small).unwrap();
    holds(&store, SMALL, 1, 10).await;
    assert_eq!(store.infos()[0].epoch, Epoch(6));
    assert!(matches!(store.create(SMALL, Epoch(6), SizeClass::Large), Err(StoreError::ClassDiffers(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_syncs_and_all_are_there() {
    let (dir, store) = fresh();
    let store = Arc::new(store);
    let writers = (0..16u128).map(|writer| {
        let store: SharedStore = store.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                put(&store, SMALL, writer * 1000 + n, 100 + n as usize).await.unwrap();
                holds(&store, SMALL, writer * 1000 + n, 100 + n as usize).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    // Zeros reach ahead of the records; batches were shared: fewer markers than needles.
    let end = end_of(&store, SMALL);
    let alone: u64 = (0..16u64).flat_map(|_| 0..100u32).map(|n| hay_needle::padded_len(100 + n) + 32).sum();
    assert!(end < 4096 + alone, "no batch held more than one needle");
    let copy = crash_copy(dir.path());
    store.close();
    for dir in [copy.path(), dir.path()] {
        let store = if dir == copy.path() { open(dir) } else { open(crash_copy(dir).path()) };
        for writer in 0..16u128 {
            for n in 0..100 {
                holds(&store, SMALL, writer * 1000 + n, 100 + n as usize).await;
            }
        }
    }
}

#[tokio::test]
async fn small_volumes_are_zeroed_ahead_and_large_ones_grow() {
    let (dir, store) = fresh();
    for key in 0..300 {
        put(&store, SMALL, key, 8000).await.unwrap();
        put(&store, LARGE, key, 8000).await.unwrap();
    }
    store.close();
    let small = std::fs::read(vol(dir.path(), SMALL)).unwrap();
    let end = end_of(&store, SMALL) as usize;
    assert!(small.len() > end && small[end..].iter().all(|b| *b == 0));
    assert_eq!(std::fs::metadata(vol(dir.path(), LARGE)).unwrap().len(), end_of(&store, LARGE));
}

#[tokio::test]
async fn a_clean_end_leaves_a_checkpoint_that_spares_the_replay() {
    let (dir, store) = fresh();
    for key in 0..50 {
        put(&store, SMALL, key, 100).await.unwrap();
    }
    store.close();
    drop(store);
    // Damage below what the checkpoint covers is not looked at when opening, and found by the read.
    let path = vol(dir.path(), SMALL);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 32 + 50] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path());
    assert_eq!(read_only(&store, SMALL), None);
    assert!(matches!(store.read(SMALL, NeedleKey(0), Cookie(1)).await, Err(ReadError::Corrupt { .. })));
    holds(&store, SMALL, 1, 100).await;
    put(&store, SMALL, 100, 10).await.unwrap();
    store.close();
    drop(store);
    // A damaged checkpoint costs time: the whole file is replayed, which finds the damage.
    let path = files_like(dir.path(), "00000007.checkpoint").pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let store = open(dir.path());
    assert!(read_only(&store, SMALL).unwrap().contains("1 damaged"));
    for key in 1..50 {
        holds(&store, SMALL, key, 100).await;
    }
    holds(&store, SMALL, 100, 10).await;
}

#[tokio::test]
async fn checkpoints_are_written_while_appends_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        try_open(StoreConfig { checkpoint_every_bytes: 10_000, ..config(dir.path()) }, RealDisk::shared())
            .unwrap();
    store.create(SMALL, EPOCH, SizeClass::Small).unwrap();
    for key in 0..200 {
        put(&store, SMALL, key, 500).await.unwrap();
    }
    while files_like(dir.path(), "checkpoint").is_empty() {
        tokio::task::yield_now().await;
    }
    let copy = crash_copy(dir.path());
    let store = open(copy.path());
    for key in 0..200 {
        holds(&store, SMALL, key, 500).await;
    }
}

#[tokio::test]
async fn durability_async_syncs_later_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        durability: hay_common::model::Durability::Async,
        checkpoint_every_bytes: 5000,
        ..config(dir.path())
    };
    let store = try_open(config, RealDisk::shared()).unwrap();
    store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    for key in 0..100 {
        put(&store, LARGE, key, 500).await.unwrap();
    }
    let copy = crash_copy(dir.path());
    let copied = open(copy.path());
    for key in 0..100 {
        holds(&copied, LARGE, key, 500).await;
    }
    store.close();
    drop(store);
    holds(&open(dir.path()), LARGE, 99, 500).await;
}

#[test]
fn directories_that_are_not_ours_or_not_whole_are_refused() {
    let (dir, store) = fresh();
    store.close();
    drop(store);
    let foreign = StoreConfig { cluster: ClusterId::from_random(6), ..config(dir.path()) };
    assert!(matches!(try_open(foreign, RealDisk::shared()), Err(StoreError::ForeignCluster { .. })));
    for gone in ["node", "inventory", "00000007.vol"] {
        let copy = crash_copy(dir.path());
        std::fs::remove_file(copy.path().join(gone)).unwrap();
        let error = try_open(config(copy.path()), RealDisk::shared()).err().unwrap();
        assert!(matches!(error, StoreError::Missing { .. }), "{gone}: {error}");
    }
    for damaged in ["node", "inventory"] {
        let copy = crash_copy(dir.path());
        let path = copy.path().join(damaged);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        let error = try_open(config(copy.path()), RealDisk::shared()).err().unwrap();
        assert!(matches!(error, StoreError::Unusable { .. }), "{damaged}: {error}");
    }
    assert_eq!(open(dir.path()).node(), open(crash_copy(dir.path()).path()).node());
}

#[tokio::test]
async fn a_volume_that_cannot_be_opened_is_not_absent_and_stops_no_other() {
    let (dir, store) = fresh();
    put(&store, SMALL, 1, 10).await.unwrap();
    put(&store, LARGE, 1, 10).await.unwrap();
    store.close();
    drop(store);
    for (what, file) in
        [("superblock", "00000007.vol"), ("state", "00000007.state"), ("no state", "00000007.state")]
    {
        let copy = crash_copy(dir.path());
        let path = copy.path().join(file);
        if what == "no state" {
            std::fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[30] ^= 4;
            std::fs::write(&path, bytes).unwrap();
        }
        let store = open(copy.path());
        assert!(
            matches!(store.read(SMALL, NeedleKey(1), Cookie(1)).await, Err(ReadError::Broken { .. })),
            "{what}"
        );
        assert_eq!(store.broken().len(), 1);
        holds(&store, LARGE, 1, 10).await;
        assert!(
            store.create(SMALL, EPOCH, SizeClass::Small).is_err(),
            "{what}: never made anew over what is there"
        );
    }
}

#[test]
fn a_volume_without_a_state_and_without_needles_is_made_anew() {
    let (dir, store) = fresh();
    // As an earlier program left it, killed after the data file was there, and nothing else.
    let copy = crash_copy(dir.path());
    drop(store);
    std::fs::remove_file(copy.path().join("00000008.state")).unwrap();
    std::fs::write(copy.path().join("inventory"), {
        let body = "haystore volumes 1\n7\n";
        format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
    })
    .unwrap();
    let store = open(copy.path());
    assert_eq!(store.infos().len(), 1, "who else has it nobody knows");
    let members = [NodeId::from_random(1), store.node()];
    store.create_replica(LARGE, EPOCH, SizeClass::Large, &members).unwrap();
    assert_eq!((store.infos()[1].epoch, &store.state(LARGE).unwrap().members[..]), (EPOCH, &members[..]));
}
