//! The store over real files, over copies of them as a crash leaves them, and over a disk that fails.

mod crash_points;
mod crashes;
pub(crate) mod disk;
mod faults;
mod model;
mod plain;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hay_common::clock::SystemClock;
use hay_common::disk::{Disk, RealDisk, SharedDisk};
use hay_common::ids::ClusterId;
use hay_common::random::SeededRandom;

use super::*;

pub(crate) const SMALL: VolumeId = VolumeId(7);
pub(crate) const LARGE: VolumeId = VolumeId(8);
pub(crate) const EPOCH: Epoch = Epoch(3);

pub(crate) fn cluster() -> ClusterId {
    ClusterId::from_random(5)
}

pub(crate) fn config(dir: &Path) -> StoreConfig {
    StoreConfig { zero_ahead_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::new(dir, cluster()) }
}

pub(crate) fn try_open(config: StoreConfig, disk: SharedDisk) -> Result<Store, StoreError> {
    Store::open(config, disk, SystemClock::shared(), SeededRandom::shared(9))
}

pub(crate) fn open(dir: &Path) -> Store {
    try_open(config(dir), RealDisk::shared()).unwrap()
}

/// A directory with one empty volume of each class, open.
pub(crate) fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.create(SMALL, EPOCH, SizeClass::Small).unwrap();
    store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    (dir, store)
}

/// Data that differ for each key, with runs of zeros.
pub(crate) fn data(key: u128, len: usize) -> Bytes {
    (0..len).map(|i| if i % 50 < 20 { 0 } else { (key as usize + i) as u8 }).collect::<Vec<u8>>().into()
}

pub(crate) fn needle(key: u128, len: usize) -> NewNeedle {
    NewNeedle::new(EPOCH, NeedleKey(key), Cookie(1), 2, vec![data(key, len)], None).unwrap()
}

pub(crate) async fn put(store: &Store, volume: VolumeId, key: u128, len: usize) -> Result<(), AppendError> {
    store.append(volume, vec![needle(key, len)]).await.pop().unwrap()
}

pub(crate) async fn holds(store: &Store, volume: VolumeId, key: u128, len: usize) {
    let found = store.read(volume, NeedleKey(key), Cookie(1)).await.unwrap();
    assert_eq!(found.codec, 2);
    assert!(found.data == data(key, len), "key {key} of {len} bytes differs");
}

/// The directory as another process would find it if this one were killed now.
pub(crate) fn crash_copy(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in RealDisk.read_dir(dir).unwrap() {
        match std::fs::copy(dir.join(&name), copy.path().join(&name)) {
            // Published, or removed, since the names were read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
    copy
}

pub(crate) fn vol(dir: &Path, volume: VolumeId) -> PathBuf {
    dir.join(format!("{:08}.vol", volume.0))
}

/// The records of a volume's file, without the zeros behind them.
pub(crate) fn end_of(store: &Store, volume: VolumeId) -> u64 {
    store.infos().iter().find(|i| i.id == volume).unwrap().size_bytes
}

pub(crate) fn read_only(store: &Store, volume: VolumeId) -> Option<String> {
    store.infos().iter().find(|i| i.id == volume).unwrap().read_only.clone()
}

pub(crate) fn files_like(dir: &Path, part: &str) -> Vec<PathBuf> {
    let names = RealDisk.read_dir(dir).unwrap();
    names.into_iter().filter(|n| n.to_str().unwrap().contains(part)).map(|n| dir.join(n)).collect()
}

pub(crate) type SharedStore = Arc<Store>;

/// A seal is answered before its file is cut.
pub(crate) fn wait_until_cut(store: &Store, volume: VolumeId) {
    drop(store.volume(volume).unwrap().sealing.lock());
}

/// For threads and for tests that are no tasks.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
