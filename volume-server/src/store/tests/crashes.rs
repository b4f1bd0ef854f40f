//! Files as crashes and bad disks leave them.

use super::*;

/// A directory whose volumes hold needles 0..4 in batches of their own and then 10, 11 and 12 in one last batch; and where
/// that begins.
async fn prepared(volume: VolumeId) -> (tempfile::TempDir, u64, u64) {
    let (dir, store) = fresh();
    for key in 0..4 {
        put(&store, volume, key, 90 + key as usize).await.unwrap();
    }
    let last = end_of(&store, volume);
    let answers = store.append(volume, vec![needle(10, 60), needle(11, 0), needle(12, 30)]).await;
    assert_eq!(answers, [Ok(()), Ok(()), Ok(())]);
    let end = end_of(&store, volume);
    (crash_copy(dir.path()), last, end)
}

#[tokio::test]
async fn a_file_cut_at_every_byte_of_the_last_batch_keeps_the_rest_and_goes_on() {
    for volume in [SMALL, LARGE] {
        let (dir, last, end) = prepared(volume).await;
        let whole = std::fs::read(vol(dir.path(), volume)).unwrap();
        for cut in last..=end {
            let copy = crash_copy(dir.path());
            let mut bytes = whole[..cut as usize].to_vec();
            if volume == SMALL {
                bytes.resize(whole.len(), 0);
            }
            std::fs::write(vol(copy.path(), volume), &bytes).unwrap();
            let store = open(copy.path());
            assert_eq!(read_only(&store, volume), None, "cut at {cut}");
            for key in 0..4 {
                holds(&store, volume, key, 90 + key as usize).await;
            }
            // What was torn is kept aside, byte for byte up to its zeros, and is gone from the volume.
            let kept = files_like(copy.path(), "torn");
            let own_end = end_of(&store, volume);
            assert!(own_end >= last && own_end <= end);
            if let Some(kept) = kept.first() {
                let kept = std::fs::read(kept).unwrap();
                assert_eq!(kept, bytes[own_end as usize..own_end as usize + kept.len()], "cut at {cut}");
                assert!(bytes[own_end as usize + kept.len()..].iter().all(|b| *b == 0));
            }
            let answers = store.append(volume, vec![needle(20, 500)]).await;
            assert_eq!(answers, [Ok(())]);
            store.close();
            drop(store);
            let store = open(copy.path());
            holds(&store, volume, 3, 93).await;
            holds(&store, volume, 20, 500).await;
            // Whether what was cut had been acknowledged can't be told, so it is not called absent, ever after.
            let unknown = store.read(volume, NeedleKey(12), Cookie(1)).await;
            match unknown {
                Ok(_) | Err(ReadError::Absent(_)) => assert!(kept.is_empty(), "cut at {cut}"),
                Err(ReadError::Lost(_)) => assert!(!kept.is_empty(), "cut at {cut}"),
                Err(error) => panic!("cut at {cut}: {error}"),
            }
            assert_eq!(
                files_like(copy.path(), "torn").len(),
                kept.len(),
                "the second opening finds nothing torn"
            );
        }
    }
}

#[tokio::test]
async fn flipped_bits_are_found_and_nothing_synced_is_cut() {
    let (dir, last, end) = prepared(SMALL).await;
    let path = vol(dir.path(), SMALL);
    let whole = std::fs::read(&path).unwrap();
    let keys = || (0..4).map(|k| (k, 90 + k as usize)).chain([(10, 60), (11, 0), (12, 30)]);
    // Every bit is hay_needle's test; here each third byte has one flipped, over files and openings.
    let chosen = |bit: &usize| {
        bit % 8 == (bit / 24) % 8
            && if *bit < 4096 * 8 { bit / 8 % 509 == 30 } else { (bit / 8).is_multiple_of(3) }
    };
    for bit in (0..end as usize * 8).filter(chosen) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).unwrap();
        let at = (bit / 8) as u64;
        let Ok(store) = try_open(config(dir.path()), RealDisk::shared()) else {
            panic!("bit {bit}: one damaged volume stops the server");
        };
        for (key, len) in keys() {
            match store.read(SMALL, NeedleKey(key), Cookie(1)).await {
                Ok(found) => assert!(found.data == data(key, len), "bit {bit}: wrong bytes"),
                // All were acknowledged: to say that one was never there would be a lie.
                Err(ReadError::Corrupt { .. } | ReadError::Broken { .. } | ReadError::Lost(_)) => {}
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
        if at < 4096 {
            assert_eq!(store.broken().len(), 1, "bit {bit}");
        } else if at < last {
            assert!(read_only(&store, SMALL).is_some(), "bit {bit} is below the synced length");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "bit {bit}: the file was changed");
        } else {
            assert_eq!(files_like(dir.path(), "torn").len(), 1, "bit {bit}");
        }
        store.close();
        drop(store);
        for left in ["torn", "00000007.state", "checkpoint"] {
            files_like(dir.path(), left).iter().for_each(|p| std::fs::remove_file(p).unwrap());
        }
        let block = hay_needle::Superblock::decode(&whole).unwrap();
        std::fs::write(dir.path().join("00000007.state"), super::recover::first_state(&block).encode())
            .unwrap();
    }
}

#[tokio::test]
async fn the_last_batch_of_a_cleanly_closed_or_sealed_volume_is_never_torn() {
    for sealed in [false, true] {
        let (dir, store) = fresh();
        put(&store, SMALL, 1, 100).await.unwrap();
        if sealed {
            store.seal(SMALL, Epoch(4)).unwrap();
        }
        let end = end_of(&store, SMALL);
        store.close();
        drop(store);
        let path = vol(dir.path(), SMALL);
        let bytes = std::fs::read(&path).unwrap();
        if sealed {
            // The state file alone says it, too.
            std::fs::remove_file(dir.path().join("00000007.checkpoint")).unwrap();
        }
        std::fs::write(&path, &bytes[..end as usize - 20]).unwrap();
        let store = open(dir.path());
        assert!(read_only(&store, SMALL).is_some(), "sealed: {sealed}");
        assert!(files_like(dir.path(), "torn").is_empty());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), end - 20);
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_recovery_is_recovered_from() {
    let (dir, last, end) = prepared(LARGE).await;
    let path = vol(dir.path(), LARGE);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..end as usize - 5]).unwrap();
    // Set aside, not yet cut.
    std::fs::write(dir.path().join(format!("00000008.torn-{}", end - 72)), b"earlier").unwrap();
    let store = open(dir.path());
    assert_eq!(files_like(dir.path(), "torn").len(), 2, "what an earlier try kept is not overwritten");
    assert!(end_of(&store, LARGE) > last);
    holds(&store, LARGE, 10, 60).await;
}

#[tokio::test]
async fn a_checkpoint_of_another_incarnation_is_not_believed() {
    let (dir, store) = fresh();
    put(&store, SMALL, 1, 100).await.unwrap();
    store.close();
    drop(store);
    let (other, store) = fresh_with_other_incarnation().await;
    put(&store, SMALL, 2, 100).await.unwrap();
    let copy = crash_copy(other.path());
    std::fs::copy(dir.path().join("00000007.checkpoint"), copy.path().join("00000007.checkpoint")).unwrap();
    let store = open(copy.path());
    holds(&store, SMALL, 2, 100).await;
    assert!(matches!(store.read(SMALL, NeedleKey(1), Cookie(1)).await, Err(ReadError::Absent(_))));
}

async fn fresh_with_other_incarnation() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(config(dir.path()), RealDisk::shared(), SystemClock::shared(), SeededRandom::shared(77))
            .unwrap();
    store.create(SMALL, EPOCH, SizeClass::Small).unwrap();
    (dir, store)
}
