//! What replay makes of whole, cut, holed and flipped volumes.

use hay_common::ids::{Cookie, NeedleKey};
use proptest::prelude::*;

use super::{record, superblock};
use crate::*;

/// A volume in memory, written as the appender writes it.
struct Image {
    bytes: Vec<u8>,
    /// Where each batch begins.
    batches: Vec<u64>,
    /// (key, offset, record length) of each needle.
    needles: Vec<(NeedleKey, u64, u64)>,
}

fn image(batches: &[Vec<usize>], zeros: usize) -> Image {
    let seeds = superblock().seeds();
    let mut out = Image { bytes: superblock().encode(), batches: Vec::new(), needles: Vec::new() };
    for lengths in batches {
        let start = out.bytes.len() as u64;
        let bytes = lengths.iter().map(|n| padded_len(*n as u32)).sum::<u64>() as u32;
        let batch = Batch { synced: start, records: lengths.len() as u32, bytes };
        out.batches.push(start);
        out.bytes.extend_from_slice(&Header::Batch(batch).encode(seeds, start));
        for length in lengths {
            let offset = out.bytes.len() as u64;
            let key = NeedleKey(1000 + out.needles.len() as u128);
            let header = NeedleHeader { key, cookie: Cookie(5), codec: 0, length: *length as u32 };
            // Zeros too, so that holes inside a needle's data mislead nobody.
            let data: Vec<u8> = (0..*length).map(|i| if i % 64 < 40 { 0 } else { i as u8 }).collect();
            let bytes = record(seeds, offset, header, &data);
            out.needles.push((key, offset, bytes.len() as u64));
            out.bytes.extend_from_slice(&bytes);
        }
    }
    out.bytes.resize(out.bytes.len() + zeros, 0);
    out
}

fn replay(bytes: &[u8], from: u64, synced: u64) -> (Outcome, Index) {
    let mut index = Index::new();
    let mut replay = Replay::new(superblock().seeds(), from, bytes.len() as u64, synced);
    while let Some(range) = replay.wants() {
        replay.feed(&bytes[range.start as usize..range.end as usize], &mut index);
    }
    (replay.finish(), index)
}

fn start() -> u64 {
    SUPERBLOCK_BYTES as u64
}

#[test]
fn a_whole_volume_replays_with_and_without_zeros_after_it() {
    for zeros in [0, 8, 24, 4096, 3 << 20] {
        let image = image(&[vec![1, 100, 0], vec![5000], vec![9 << 10, 3]], zeros);
        let (outcome, index) = replay(&image.bytes, start(), start());
        assert_eq!(outcome.end, (image.bytes.len() - zeros) as u64);
        assert_eq!((outcome.torn, outcome.corrupt_count, outcome.records), (None, 0, 6));
        assert_eq!(outcome.synced, image.batches[2]);
        for (key, offset, _) in &image.needles {
            assert_eq!(index.get(*key, Cookie(5)).unwrap().offset, *offset);
        }
    }
}

#[test]
fn an_empty_volume_is_clean() {
    for zeros in [0, 1 << 20] {
        let image = image(&[], zeros);
        let (outcome, index) = replay(&image.bytes, start(), start());
        assert_eq!((outcome.end, outcome.torn, index.len()), (start(), None, 0));
    }
}

#[test]
fn needles_longer_than_a_window_replay() {
    let image = image(&[vec![3 << 20, 10], vec![8 << 20], vec![1]], 100);
    let (outcome, index) = replay(&image.bytes, start(), start());
    assert_eq!((outcome.torn, outcome.corrupt_count, index.len()), (None, 0, 4));
}

#[test]
fn a_cut_at_every_byte_of_the_last_batch_is_a_torn_tail() {
    let image = image(&[vec![10, 20], vec![30, 40, 50]], 0);
    let last = image.batches[1];
    for len in last..image.bytes.len() as u64 {
        for zeros in [0, 4096] {
            let mut bytes = image.bytes[..len as usize].to_vec();
            bytes.resize(bytes.len() + zeros, 0);
            let (outcome, index) = replay(&bytes, start(), start());
            assert_eq!(outcome.corrupt_count, 0, "cut at {len}");
            let whole = image.needles.iter().filter(|(_, o, n)| o + n <= len).count();
            // A cut inside the zeros of a padding loses nothing when zeros follow.
            assert!(index.len() == whole || (zeros > 0 && index.len() == whole + 1), "cut at {len}");
            assert!(index.len() >= 2);
            if let Some(torn) = outcome.torn {
                assert!(torn >= last && torn == outcome.end && torn <= len, "cut at {len}: {outcome:?}");
            }
        }
    }
}

#[test]
fn holes_in_the_last_batch_cut_what_follows_them() {
    let mut image = image(&[vec![10], vec![300, 300, 300]], 1000);
    let (_, second, len) = image.needles[2];
    image.bytes[second as usize..(second + len) as usize].fill(0);
    let (outcome, index) = replay(&image.bytes, start(), start());
    assert_eq!(outcome.torn, Some(second));
    assert_eq!(index.len(), 2);
}

#[test]
fn damage_below_the_synced_length_is_kept_and_skipped() {
    let whole = image(&[vec![100], vec![100, 100], vec![100]], 512);
    for (n, (key, offset, len)) in whole.needles.iter().take(3).enumerate() {
        // The header: the needle is lost, those around it are not.
        let mut bytes = whole.bytes.clone();
        bytes[*offset as usize + 9] ^= 4;
        let (outcome, index) = replay(&bytes, start(), start());
        assert_eq!((outcome.torn, outcome.corrupt_count, index.len()), (None, 1, 3), "needle {n}");
        assert_eq!(outcome.corrupt[0].range, *offset..offset + len);
        assert!(outcome.lost, "nobody knows whose it was");
        // The data: it stays in the index, so that a read says "corrupt" and not "absent".
        let mut bytes = whole.bytes.clone();
        bytes[*offset as usize + 40] ^= 4;
        let (outcome, index) = replay(&bytes, start(), start());
        assert_eq!((outcome.torn, outcome.corrupt_count, index.len()), (None, 1, 4), "needle {n}");
        assert!(index.contains(*key, Cookie(5)));
        assert!(!outcome.lost, "its name is known");
    }
}

#[test]
fn a_known_synced_length_makes_the_last_batch_corruption_too() {
    let whole = image(&[vec![100], vec![100]], 512);
    let end = (whole.bytes.len() - 512) as u64;
    let mut bytes = whole.bytes.clone();
    bytes[whole.needles[1].1 as usize + 50] ^= 1;
    assert_eq!(replay(&bytes, start(), start()).0.torn, Some(whole.needles[1].1));
    let (outcome, _) = replay(&bytes, start(), end);
    assert_eq!((outcome.torn, outcome.corrupt_count), (None, 1));
    // Zeros, or nothing at all, below the synced length are corruption as well.
    let mut zeroed = whole.bytes.clone();
    zeroed[whole.batches[1] as usize..].fill(0);
    for bytes in [&zeroed[..], &whole.bytes[..whole.batches[1] as usize]] {
        let (outcome, _) = replay(bytes, start(), end);
        assert_eq!((outcome.torn, outcome.corrupt_count, outcome.lost), (None, 1, true));
    }
    assert_eq!(
        replay(&whole.bytes[..4096], end, end).0.corrupt_count,
        1,
        "shorter than the checkpoint covers"
    );
}

#[test]
fn content_that_looks_like_records_misleads_no_search() {
    // Data made of records of the same volume number, of an incarnation that the writer guessed.
    let seeds = superblock().seeds();
    let guessed =
        Seeds::new(superblock().volume, hay_common::ids::Incarnation::from_slice(&[0; 16]).unwrap());
    let mut bytes = superblock().encode();
    let at = bytes.len() as u64;
    bytes.extend_from_slice(&Header::Batch(Batch { synced: at, records: 1, bytes: 200 }).encode(seeds, at));
    let at = bytes.len() as u64;
    let inner = (at + 32..at + 32 + 4096)
        .step_by(32)
        .flat_map(|o| Header::Batch(Batch { synced: 4096, records: 0, bytes: 0 }).encode(guessed, o));
    let data: Vec<u8> = inner.collect();
    let header = NeedleHeader { key: NeedleKey(1), cookie: Cookie(1), codec: 0, length: data.len() as u32 };
    let mut needle = record(seeds, at, header, &data);
    needle[3] ^= 1;
    bytes.extend_from_slice(&needle);
    let (outcome, index) = replay(&bytes, start(), start());
    assert_eq!((outcome.torn, index.len()), (Some(at), 0));
}

/// Every bit of a small volume: a flip is torn tail or corruption or in the superblock, never silence.
#[test]
fn every_flipped_bit_shows() {
    let whole = image(&[vec![3, 17], vec![40]], 64);
    for bit in SUPERBLOCK_BYTES * 8..whole.bytes.len() * 8 {
        let mut bytes = whole.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (outcome, _) = replay(&bytes, start(), start());
        let at = (bit / 8) as u64;
        if at < whole.batches[1] {
            assert_eq!((outcome.torn, outcome.corrupt_count), (None, 1), "bit {bit}");
        } else {
            assert!(
                outcome.torn.is_some_and(|t| t <= at) && outcome.corrupt_count == 0,
                "bit {bit}: {outcome:?}"
            );
        }
    }
}

proptest! {
    /// Whatever is overwritten: what lay before the damage is there, nothing is there that was not written, and what
    /// was synced is never taken for a torn tail.
    #[test]
    fn any_damage_is_judged(
        batches in prop::collection::vec(prop::collection::vec(0usize..3000, 1..6), 1..8),
        zeros in 0usize..9000,
        place in 0.0f64..1.0,
        junk in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let whole = image(&batches, zeros);
        let at = SUPERBLOCK_BYTES + ((whole.bytes.len() - SUPERBLOCK_BYTES) as f64 * place) as usize;
        let mut bytes = whole.bytes.clone();
        for (to, from) in bytes[at..].iter_mut().zip(&junk) {
            *to = *from;
        }
        let (outcome, index) = replay(&bytes, start(), start());
        for (key, offset, len) in &whole.needles {
            let found = index.get(*key, Cookie(5));
            prop_assert!(found.is_none_or(|slot| slot.offset == *offset));
            if offset + len <= at as u64 {
                prop_assert!(found.is_some(), "before the damage");
            }
        }
        prop_assert!(index.len() <= whole.needles.len());
        if bytes == whole.bytes {
            prop_assert_eq!(outcome.torn, None);
            prop_assert_eq!(outcome.corrupt_count, 0);
        } else {
            prop_assert!(outcome.torn.is_some() || outcome.corrupt_count > 0);
        }
        let hit_to = (at + junk.len()) as u64;
        let last = *whole.batches.last().unwrap();
        if hit_to <= last {
            prop_assert_eq!(outcome.torn, None);
            for (key, offset, _) in &whole.needles {
                if *offset >= hit_to {
                    prop_assert!(index.contains(*key, Cookie(5)), "after the damage");
                }
            }
        }
        if let Some(torn) = outcome.torn {
            let spared = whole.batches.iter().filter(|b| **b + 32 <= at as u64 || **b >= hit_to).max();
            prop_assert!(torn >= spared.copied().unwrap_or(0));
        }
    }

    /// Foreign bytes decode to an error or a value, and never panic.
    #[test]
    fn parsers_take_anything(bytes in prop::collection::vec(any::<u8>(), 0..300), offset in 0u64..1 << 35) {
        let block = superblock();
        let _ = Superblock::decode(&bytes);
        let _ = State::decode(&bytes);
        let _ = Checkpoint::decode(&bytes, block.volume, block.incarnation);
        let _ = step(block.seeds(), offset / 8 * 8, &bytes);
        let _ = resync(block.seeds(), offset / 8 * 8, &bytes);
    }
}
