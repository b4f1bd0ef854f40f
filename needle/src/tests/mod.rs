//! Golden bytes, truncation at every length, and every bit of a small volume flipped.

mod replays;

use hay_common::ids::{ClusterId, Cookie, Epoch, Incarnation, NeedleKey, NodeId, VolumeId};
use hay_common::model::SizeClass;

use super::*;

pub(super) fn superblock() -> Superblock {
    Superblock {
        cluster: ClusterId::from_slice(&(0..16).collect::<Vec<u8>>()).unwrap(),
        volume: VolumeId(7),
        incarnation: Incarnation::from_slice(&(16..32).collect::<Vec<u8>>()).unwrap(),
        epoch: Epoch(3),
        class: SizeClass::Small,
    }
}

const KEY: NeedleKey = NeedleKey(0xa0a1a2a3a4a5a6a7a8a9aaabacadaeaf);
const COOKIE: Cookie = Cookie(0xcafe_1234);

/// A needle's record as a writer puts it together.
pub(super) fn record(seeds: Seeds, offset: u64, header: NeedleHeader, data: &[u8]) -> Vec<u8> {
    let head = Header::Needle(header).encode(seeds, offset);
    let trailer = Trailer::combined(&head, header.length, crc32c::crc32c(data));
    let (front, back) = data.split_at(data.len() / 2);
    assert_eq!(trailer, Trailer::over(&head, header.length, [front, back].into_iter()));
    [&head, data, trailer.as_slice()].concat()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

// The expected bytes come from another program, written from docs/formats/volume.md.

#[test]
fn the_superblock_has_its_golden_bytes() {
    let bytes = superblock().encode();
    assert_eq!(bytes.len(), SUPERBLOCK_BYTES);
    let head = unhex(
        "484159564f4c554d0100010007000000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0300000000000000",
    );
    assert_eq!(bytes[..head.len()], head);
    assert!(bytes[head.len()..4092].iter().all(|b| *b == 0));
    assert_eq!(bytes[4092..], unhex("6771268f"));
    assert_eq!(Superblock::decode(&bytes), Ok(superblock()));
}

#[test]
fn records_have_their_golden_bytes() {
    let seeds = superblock().seeds();
    let header = NeedleHeader { key: KEY, cookie: COOKIE, codec: 5, length: 5 };
    let needle = record(seeds, 4128, header, b"hello");
    assert_eq!(
        needle,
        unhex(
            "480151003412fecaa0a1a2a3a4a5a6a7a8a9aaabacadaeaf050000004a9fd71768656c6c6fb8705d4100000000000000"
        )
    );
    assert_eq!(needle.len() as u64, padded_len(5));
    assert_eq!(check_needle(&needle, seeds, 4128, KEY, COOKIE), Ok(header));
    let tombstone = Header::Tombstone { key: KEY, cookie: COOKIE };
    let bytes = tombstone.encode(seeds, 4128);
    assert_eq!(bytes[..], unhex("480102003412fecaa0a1a2a3a4a5a6a7a8a9aaabacadaeaf00000000590a855c"));
    assert_eq!(Header::decode(&bytes, seeds, 4128).unwrap().0, tombstone);
    let batch = Header::Batch(Batch { synced: 4096, records: 1, bytes: 48 });
    let bytes = batch.encode(seeds, 4096);
    assert_eq!(bytes[..], unhex("4801030001000000001000000000000030000000000000000000000087ecda73"));
    assert_eq!(Header::decode(&bytes, seeds, 4096).unwrap().0, batch);
}

fn checkpoint() -> (Checkpoint, Index) {
    let block = superblock();
    let mut index = Index::new();
    assert!(index.insert(KEY, COOKIE, Slot { offset: 4128, length: 5 }));
    (Checkpoint { volume: block.volume, incarnation: block.incarnation, covered: 4176 }, index)
}

#[test]
fn a_checkpoint_has_its_golden_bytes() {
    let (head, index) = checkpoint();
    let bytes = head.encode(&index);
    assert_eq!(
        bytes,
        unhex(
            "48415943484b50540100000007000000101112131415161718191a1b1c1d1e1f50100000000000000100000000000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf3412feca0402000005000000c84c6464"
        )
    );
    let (back, entries) = Checkpoint::decode(&bytes, head.volume, head.incarnation).unwrap();
    assert_eq!(back, head);
    assert_eq!(entries.iter().collect::<Vec<_>>(), index.iter().collect::<Vec<_>>());
    let other = Incarnation::from_slice(&[9; 16]).unwrap();
    assert_eq!(Checkpoint::decode(&bytes, head.volume, other).unwrap_err(), CheckpointError::Foreign);
}

fn state() -> State {
    let block = superblock();
    State {
        volume: block.volume,
        incarnation: block.incarnation,
        epoch: Epoch(9),
        sealed: Some(4176),
        read_only: Some("fsync: Eingabefehler ä".to_owned()),
        incomplete: false,
        filling: false,
        members: Vec::new(),
    }
}

#[test]
fn a_state_file_has_its_golden_bytes() {
    assert_eq!(
        state().encode(),
        unhex(
            "48415953544154450100030007000000101112131415161718191a1b1c1d1e1f090000000000000050100000000000006673796e633a2045696e676162656665686c657220c3a4315fbda4"
        )
    );
    assert_eq!(State::decode(&state().encode()), Ok(state()));
    let incomplete = State { incomplete: true, ..state() };
    assert_eq!((incomplete.encode()[10], state().encode()[10]), (7, 3));
    assert_eq!(State::decode(&incomplete.encode()), Ok(incomplete));
    let plain = State { sealed: None, read_only: None, ..state() };
    assert_eq!(State::decode(&plain.encode()), Ok(plain));
    let member = |n| NodeId::from_slice(&[n; 16]).unwrap();
    let replicated = State { filling: true, members: vec![member(0xaa), member(0xbb)], ..state() };
    assert_eq!(
        replicated.encode(),
        unhex(concat!(
            "484159535441544502000b0207000000101112131415161718191a1b1c1d1e1f09000000000000005010000000000000",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "6673796e633a2045696e676162656665686c657220c3a4",
            "487de290"
        ))
    );
    assert_eq!(State::decode(&replicated.encode()), Ok(replicated));
    let long = State { read_only: Some("ä".repeat(2000)), ..state() };
    assert_eq!(State::decode(&long.encode()).unwrap().read_only.unwrap().len(), 1024);
}

#[test]
fn a_checkpoint_taken_shard_by_shard_holds_what_was_there_when_it_began() {
    let head = checkpoint().0;
    for key in [|n: u64| u128::from(n), |n: u64| u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060)]
    {
        let mut index = Index::new();
        let at = |n: u64| Slot { offset: 4096 + 64 * n, length: 20 };
        let count = 50_000;
        for n in 0..count {
            assert!(index.insert(NeedleKey(key(n)), COOKIE, at(n)));
        }
        let whole = Checkpoint { covered: 4096 + 64 * count, ..head };
        let mut encoder = whole.encoder(index.len());
        for shard in 0..Index::SHARDS {
            assert!(
                index.shard(shard).count() < 4 * count as usize / Index::SHARDS,
                "a lock would be held long"
            );
            encoder.add(index.shard(shard));
            // Appends go on in between.
            let n = count + shard as u64;
            assert!(index.insert(NeedleKey(key(n)), COOKIE, at(n)));
        }
        let bytes = encoder.finish();
        assert_eq!(bytes.len() as u64, Checkpoint::len_of(count as usize));
        let (back, entries) = Checkpoint::decode(&bytes, head.volume, head.incarnation).unwrap();
        assert_eq!((back, entries.len() as u64), (whole, count));
        assert!((0..count).all(|n| entries.get(NeedleKey(key(n)), COOKIE) == Some(at(n))));
    }
}

#[test]
fn another_version_is_told_from_damage() {
    for (mut bytes, at) in
        [(superblock().encode(), 8), (checkpoint().0.encode(&checkpoint().1), 8), (state().encode(), 8)]
    {
        bytes[at] = 9;
        let body = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..body]).to_le_bytes();
        bytes[body..].copy_from_slice(&crc);
        let block = superblock();
        let said = [
            Superblock::decode(&bytes).err().map(|e| e.to_string()),
            Checkpoint::decode(&bytes, block.volume, block.incarnation).err().map(|e| e.to_string()),
            State::decode(&bytes).err().map(|e| e.to_string()),
        ];
        assert_eq!(said.iter().flatten().filter(|s| s.contains("version is 9")).count(), 1, "{said:?}");
    }
}

#[test]
fn no_file_decodes_when_cut_or_with_a_bit_flipped() {
    let (head, index) = checkpoint();
    let block = superblock();
    type Decodes<'a> = &'a dyn Fn(&[u8]) -> bool;
    let files: [(Vec<u8>, Decodes<'_>); 3] = [
        (block.encode(), &|b| Superblock::decode(b).is_ok()),
        (head.encode(&index), &|b| Checkpoint::decode(b, block.volume, block.incarnation).is_ok()),
        (state().encode(), &|b| State::decode(b).is_ok()),
    ];
    for (bytes, decodes) in files {
        assert!(decodes(&bytes));
        for len in 0..bytes.len() {
            assert!(!decodes(&bytes[..len]), "cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!decodes(&flipped), "bit {bit}");
        }
    }
}

#[test]
fn a_needle_reads_back_only_whole_in_its_place_and_by_its_name() {
    let seeds = superblock().seeds();
    let header = NeedleHeader { key: KEY, cookie: COOKIE, codec: 0, length: 100 };
    let bytes = record(seeds, 4128, header, &[7; 100]);
    let needed = HEADER_BYTES + 100 + 4;
    for len in 0..needed {
        assert!(check_needle(&bytes[..len], seeds, 4128, KEY, COOKIE).is_err(), "cut to {len}");
    }
    for bit in 0..needed * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(check_needle(&flipped, seeds, 4128, KEY, COOKIE).is_err(), "bit {bit}");
    }
    let other = Seeds::new(VolumeId(8), superblock().incarnation);
    assert!(check_needle(&bytes, other, 4128, KEY, COOKIE).is_err(), "another volume");
    assert!(check_needle(&bytes, seeds, 4136, KEY, COOKIE).is_err(), "another place");
    assert_eq!(check_needle(&bytes, seeds, 4128, NeedleKey(1), COOKIE), Err(NeedleError::Other));
    assert_eq!(check_needle(&bytes, seeds, 4128, KEY, Cookie(1)), Err(NeedleError::Other));
}

#[test]
fn a_needle_costs_at_most_forty_bytes_on_average() {
    let lengths = 1..=4096u32;
    let over: u64 = lengths.clone().map(|n| padded_len(n) - u64::from(n)).sum();
    assert!(over <= 40 * lengths.count() as u64);
}

#[test]
fn the_index_keeps_what_came_first_and_refuses_impossible_places() {
    let mut index = Index::new();
    let slot = Slot { offset: (32 << 30) - 8, length: 9 };
    assert!(index.insert(KEY, COOKIE, slot));
    assert!(!index.insert(KEY, COOKIE, Slot { offset: 4096, length: 1 }));
    assert!(index.insert(KEY, Cookie(1), Slot { offset: 4096, length: 1 }));
    assert!(!index.insert(NeedleKey(1), COOKIE, Slot { offset: 32 << 30, length: 1 }));
    assert!(!index.insert(NeedleKey(1), COOKIE, Slot { offset: 4097, length: 1 }));
    assert_eq!(index.get(KEY, COOKIE), Some(slot));
    assert_eq!(index.get(NeedleKey(1), COOKIE), None);
    assert_eq!(index.iter().map(|(_, _, s)| s.length).sum::<u32>(), 10);
    assert_eq!(index.remove(KEY, COOKIE), Some(slot));
    assert_eq!(index.len(), 1);
}
