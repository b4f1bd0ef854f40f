//! Both ways of doing blocking work do the same.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::disk::{DirLock, DiskFile, OpenMode, RealDisk, Space};

/// A disk whose work is done in turn.
struct Simulated;

impl Disk for Simulated {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.read_dir(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.file_len(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        RealDisk.lock(path)
    }
    fn takes(&self) -> Option<Duration> {
        Some(Duration::from_millis(1))
    }
}

fn both() -> [SharedDisk; 2] {
    [RealDisk::shared(), Arc::new(Simulated)]
}

/// An owner that remembers its orders and ends with 0.
fn owner(disk: &SharedDisk) -> (Orders<u32>, Arc<Mutex<Vec<u32>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let carry = move |order| {
        noted.lock().push(order);
        if order == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    (Orders::to(disk, "owner".to_owned(), || 0, carry).unwrap(), seen)
}

#[tokio::test]
async fn orders_are_carried_out_one_after_the_other_up_to_the_last() {
    for disk in both() {
        let (orders, seen) = owner(&disk);
        (1..100).for_each(|order| orders.give(order).unwrap());
        let ending = orders.clone();
        tokio::task::spawn_blocking(move || ending.end(0).unwrap()).await.unwrap();
        assert_eq!(*seen.lock(), (1..100).chain([0]).collect::<Vec<_>>());
        assert_eq!(orders.give(5), Err(Ended));
        orders.end(0).unwrap();
        assert_eq!(seen.lock().len(), 100);
    }
}

#[test]
fn whoever_ends_an_owner_waits_until_it_has_ended() {
    let has_begun = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::new(AtomicBool::new(false));
    let (begins, ends) = (has_begun.clone(), has_ended.clone());
    let carry = move |()| {
        begins.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        ends.store(true, Ordering::SeqCst);
        ControlFlow::Break(())
    };
    let orders = Orders::to(&RealDisk::shared(), "slow".to_owned(), || (), carry).unwrap();
    let first = orders.clone();
    let ending = std::thread::spawn(move || first.end(()).unwrap());
    while !has_begun.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    orders.end(()).unwrap();
    assert!(has_ended.load(Ordering::SeqCst));
    ending.join().unwrap();
}

#[tokio::test]
async fn in_turn_orders_are_carried_out_without_anybody_waiting() {
    let (orders, seen) = owner(&both()[1]);
    orders.give(1).unwrap();
    orders.give(2).unwrap();
    assert!(seen.lock().is_empty(), "not before its turn");
    while seen.lock().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    orders.give(3).unwrap();
    orders.catch_up();
    assert_eq!(*seen.lock(), [1, 2, 3]);
}

#[tokio::test]
async fn blocking_work_is_done_though_nobody_waits_for_it() {
    for disk in both() {
        let done = Arc::new(AtomicBool::new(false));
        let (own, beside_too) = (done.clone(), Arc::new(AtomicBool::new(false)));
        drop(blocking(disk.as_ref(), move || own.store(true, Ordering::SeqCst)));
        let own = beside_too.clone();
        beside(disk.as_ref(), "beside".to_owned(), move || own.store(true, Ordering::SeqCst)).unwrap();
        while !done.load(Ordering::SeqCst) || !beside_too.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(blocking(disk.as_ref(), || 7).await.unwrap(), 7);
    }
}
