//! Random operations against a map that says what must be there.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// (volume, key) → bytes.
type Model = BTreeMap<(VolumeId, u128), usize>;

async fn matches(store: &Store, model: &Model, seed: u64) {
    let needles: u64 = store.infos().iter().map(|i| i.needles).sum();
    assert_eq!(needles, model.len() as u64, "seed {seed}");
    for ((volume, key), len) in model {
        holds(store, *volume, *key, *len).await;
    }
}

async fn batch(store: &Store, model: &mut Model, rng: &mut StdRng, sealed: &[VolumeId], seed: u64) {
    let volume = if rng.random_bool(0.6) { SMALL } else { LARGE };
    let wanted: Vec<(u128, usize)> = (0..rng.random_range(1..8))
        .map(|_| (rng.random_range(0..400u128), rng.random_range(0..3000usize)))
        .collect();
    let answers = store.append(volume, wanted.iter().map(|(key, len)| needle(*key, *len)).collect()).await;
    for ((key, len), answer) in wanted.into_iter().zip(answers) {
        let known = model.contains_key(&(volume, key));
        match answer {
            Ok(()) => {
                assert!(
                    !known && !sealed.contains(&volume),
                    "seed {seed}: key {key} stored twice, or after the seal"
                );
                model.insert((volume, key), len);
            }
            Err(AppendError::Exists { .. }) => assert!(known, "seed {seed}: key {key} refused"),
            Err(AppendError::Sealed(_)) => assert!(sealed.contains(&volume), "seed {seed}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[tokio::test]
async fn whatever_happens_the_store_holds_what_it_acknowledged() {
    for seed in 0..12u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut dir, mut store) = fresh();
        let (mut model, mut sealed) = (Model::new(), Vec::new());
        for _ in 0..60 {
            match rng.random_range(0..100) {
                0..85 => batch(&store, &mut model, &mut rng, &sealed, seed).await,
                85..90 => {
                    store.close();
                    drop(store);
                    store = open(dir.path());
                }
                90..98 => {
                    // Killed, and started again on what was left.
                    let copy = crash_copy(dir.path());
                    drop(store);
                    store = open(copy.path());
                    dir = copy;
                }
                _ => {
                    store.seal(LARGE, Epoch(4)).unwrap();
                    sealed.push(LARGE);
                }
            }
        }
        matches(&store, &model, seed).await;
        store.close();
        drop(store);
        matches(&open(dir.path()), &model, seed).await;
    }
}
