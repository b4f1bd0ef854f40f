//! Files of many chunks.

use super::*;

fn add(manifest: u128, first: u32, offset: u64, chunks: &[u64]) -> Action {
    let one = |n: &u64| ChunkRef { chunk: chunk(*n), new_copy: Some(copy(u128::from(*n) + 500)) };
    Action::AddReferences(AddReferences {
        manifest: ManifestId::from_random(manifest),
        first_number: first,
        first_offset: offset,
        chunks: chunks.iter().map(one).collect(),
    })
}

fn manifest(id: u128, chunk_count: u32, size: u64) -> NewContent {
    NewContent::Manifest { id: ManifestId::from_random(id), root: ContentHash([9; 32]), chunk_count, size }
}

#[test]
fn a_manifest_takes_batches_that_fit() {
    let mut world = World::new();
    // Chunks 1..=4 have 101..=104 bytes.
    for (action, expected) in [
        (add(1, 1, 5, &[]), Err(ErrorCode::InvalidArgument)),
        (add(1, 0, 7, &[1]), Err(ErrorCode::InvalidArgument)),
        (add(1, 2, 203, &[3]), Ok(Answer::Added)),
        (add(1, 0, 0, &[1, 2, 3]), Err(ErrorCode::InvalidArgument)),
        (add(1, 1, 0, &[2]), Err(ErrorCode::InvalidArgument)),
        (add(1, 1, 101, &[2]), Ok(Answer::Added)),
        (add(1, 1, 101, &[2]), Ok(Answer::Added)),
        (add(1, 1, 101, &[3]), Err(ErrorCode::InvalidArgument)),
        (add(1, FILE_CHUNKS_MAX, 0, &[1]), Err(ErrorCode::TooLarge)),
        (Action::PutFile(put("f", manifest(1, 3, 306))), Err(ErrorCode::InvalidArgument)),
        (add(1, 0, 0, &[1]), Ok(Answer::Added)),
        (Action::PutFile(put("f", manifest(1, 3, 305))), Err(ErrorCode::InvalidArgument)),
        (Action::PutFile(put("f", manifest(1, 2, 306))), Err(ErrorCode::InvalidArgument)),
        (Action::PutFile(put("f", manifest(2, 3, 306))), Err(ErrorCode::CopyGone)),
    ] {
        assert_eq!(world.act(action.clone()), expected, "{action:?}");
    }
    world.put("f", manifest(1, 3, 306)).unwrap();
    assert_eq!(world.act(add(1, 3, 306, &[4])), Err(ErrorCode::InvalidArgument), "published");
    let abandon = Action::AbandonManifest { manifest: ManifestId::from_random(1) };
    assert_eq!(world.act(abandon), Err(ErrorCode::InvalidArgument));
    assert_eq!(world.counters().references, 3);
}

#[test]
fn ranges_of_a_large_file_are_found() {
    let mut world = World::new();
    // Rows of unequal lengths, chunks of unequal sizes.
    let (mut number, mut offset, mut starts) = (0u32, 0u64, Vec::new());
    for len in [1usize, 64, 2, 33, 64, 64, 5, 64, 1] {
        let chunks: Vec<u64> = (0..len as u64).map(|n| (u64::from(number) + n) * 37 % 5000).collect();
        world.act(add(1, number, offset, &chunks)).unwrap();
        for n in &chunks {
            starts.push(offset);
            offset += u64::from(chunk(*n).size);
        }
        number += len as u32;
    }
    world.put("big", manifest(1, number, offset)).unwrap();
    for (nth, start) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).copied().unwrap_or(offset);
        for at in [*start, end - 1] {
            let wanted = WantedChunks { offset: at, suffix: None, count: 2 };
            let (_, size, numbers) = world.resolve("big", wanted).unwrap();
            let expected: Vec<u32> = (nth as u32..number.min(nth as u32 + 2)).collect();
            assert_eq!((size, numbers), (offset, expected), "byte {at}");
        }
    }
    let suffix = |bytes| WantedChunks { offset: 3, suffix: Some(bytes), count: 99 };
    assert_eq!(world.resolve("big", suffix(1)).unwrap().2, [number - 1]);
    assert_eq!(world.resolve("big", suffix(0)).unwrap().2, [0u32; 0]);
    assert_eq!(world.resolve("big", suffix(u64::MAX)).unwrap().2.len(), REFS_PER_ROW_MAX);
    let beyond = WantedChunks { offset, suffix: None, count: 1 };
    assert!(world.resolve("big", beyond).unwrap().2.is_empty());
    // Pages of the manifest, from any number.
    let id = ManifestId::from_random(1);
    let mut seen = Vec::new();
    while (seen.len() as u32) < number {
        let page = query::read_manifest(&world.rows, &TOKEN, id, seen.len() as u32, 50).unwrap();
        assert!(!page.is_empty() && page.len() <= 50);
        seen.extend(page);
    }
    assert_eq!(seen.iter().map(|c| c.offset).collect::<Vec<_>>(), starts);
    assert!(query::read_manifest(&world.rows, &TOKEN, id, number, 50).unwrap().is_empty());
    assert!(query::read_manifest(&world.rows, &TOKEN, ManifestId::from_random(8), 0, 1).is_err());
}

#[test]
fn draining_goes_in_bounded_pieces() {
    let mut world = World::new();
    let rows = DRAIN_BATCH_MAX as u32 / 64 * 2 + 1;
    for row in 0..rows {
        let (first, offset) = (row * 64, u64::from(row) * 64 * 101);
        let command = world.command(add(1, first, offset, &[1; 64]));
        world.send(&command).unwrap();
    }
    let (count, size) = (rows * 64, u64::from(rows) * 64 * 101);
    world.put("big", manifest(1, count, size)).unwrap();
    world.put("small", without_copy(1)).unwrap();
    world.act(delete("big", false)).unwrap();
    assert_eq!(world.counters().references, u64::from(count) + 1);
    let mut pieces = Vec::new();
    loop {
        let Reply::Swept { done, more } = world.op(Op::Drain) else { panic!() };
        audit(&world.rows);
        pieces.push(done);
        if !more {
            break;
        }
    }
    assert_eq!(pieces, [1024, 1024, 64]);
    let counters = world.counters();
    assert_eq!((counters.references, counters.manifests_draining, counters.delete_queue), (1, 0, 0));
}

#[test]
fn an_upload_that_nobody_finishes_is_given_up() {
    let mut world = World::new();
    world.act(add(1, 0, 0, &[1, 2])).unwrap();
    world.advance(MANIFEST_TTL.as_millis() as u64 / 2);
    world.op(Op::OpenSessions { sessions: vec![SessionId::from_random(10)] });
    world.session = SessionId::from_random(10);
    world.act(add(1, 2, 203, &[3])).unwrap();
    world.advance(MANIFEST_TTL.as_millis() as u64 - 1);
    world.op(Op::Expire);
    assert_eq!(world.counters().manifests_unpublished, 1, "each batch renews it");
    world.advance(1);
    world.op(Op::Expire);
    assert_eq!(world.counters().manifests_draining, 1);
    world.op(Op::Drain);
    let counters = world.counters();
    assert_eq!((counters.references, counters.delete_queue, counters.manifests_draining), (0, 3, 0));
}
