//! The disk keeps what was synced and may lose the rest.

use super::*;
use hay_common::disk::atomic_publish;

fn write(file: &dyn DiskFile, bytes: &[u8], at: u64) {
    file.write_all_at(&[IoSlice::new(bytes)], at).unwrap();
}

fn whole(disk: &SharedDisk, path: &str) -> Option<Vec<u8>> {
    let len = disk.file_len(Path::new(path)).unwrap()?;
    let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
    let mut bytes = vec![1; len as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

#[test]
fn it_reads_what_was_written_like_any_file() {
    let disk = MachineDisk::new(1).switch_on();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    let file = disk.open(Path::new("/a/b/f"), OpenMode::CreateNew).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..3000 {
        let at = rng.random_range(0..5000usize);
        let len = rng.random_range(0..2000usize);
        match rng.random_range(0..10) {
            0..6 => {
                let bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
                write(file.as_ref(), &bytes, at as u64);
                if len > 0 {
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&bytes);
                }
            }
            6..8 => {
                file.zero_ahead(at as u64, (at + len) as u64).unwrap();
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].fill(0);
            }
            _ => {
                file.set_len(at as u64).unwrap();
                model.resize(at, 0);
            }
        }
        assert_eq!(whole(&disk, "/a/b/f").unwrap(), model, "step {step}");
    }
    assert_eq!(disk.read_dir(Path::new("/a")).unwrap(), [PathBuf::from("b")]);
    assert_eq!(
        disk.open(Path::new("/no/f"), OpenMode::CreateNew).err().unwrap().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn a_power_failure_keeps_what_was_synced_and_any_part_of_the_rest() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let machine = MachineDisk::new(seed);
        let disk = machine.switch_on();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
        write(file.as_ref(), &[1; 1024], 0);
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        write(file.as_ref(), &[2; 1024], 1024);
        disk.open(Path::new("/d/new"), OpenMode::CreateNew).unwrap();
        machine.end(Death::PowerLost);
        assert!(file.read_at(&mut [0], 0).is_err(), "the process is gone");
        let disk = machine.switch_on();
        let there = whole(&disk, "/d/f").unwrap();
        assert_eq!(there[..1024], [1; 1024]);
        match &there[1024..] {
            [] => lost += 1,
            rest if rest.iter().all(|b| *b == 2) => kept += 1,
            _ => torn += 1,
        }
        let names = disk.read_dir(Path::new("/d")).unwrap().len();
        assert!(names == 1 || names == 2);
    }
    assert!(kept > 10 && lost > 50 && torn > 30, "{kept} {lost} {torn}");
}

#[test]
fn what_is_published_is_old_or_new_and_whole() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let machine = MachineDisk::new(seed);
        let disk = machine.switch_on();
        disk.create_dir_all(Path::new("/d")).unwrap();
        atomic_publish(disk.as_ref(), Path::new("/d/f"), b"one").unwrap();
        let beside = disk.open(Path::new("/d/f.new"), OpenMode::CreateNew).unwrap();
        write(beside.as_ref(), b"two!", 0);
        beside.sync_data().unwrap();
        disk.rename(Path::new("/d/f.new"), Path::new("/d/f")).unwrap();
        machine.end(Death::PowerLost);
        seen.insert(whole(&machine.switch_on(), "/d/f").unwrap());
    }
    assert_eq!(seen, BTreeSet::from([b"one".to_vec(), b"two!".to_vec()]));
}

#[test]
fn a_kill_loses_nothing_and_frees_the_lock() {
    let machine = MachineDisk::new(1);
    let disk = machine.switch_on();
    let held = disk.lock(Path::new("/lock")).unwrap();
    assert_eq!(disk.lock(Path::new("/lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    write(disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap().as_ref(), b"x", 0);
    machine.end(Death::Killed);
    let disk = machine.switch_on();
    let again = disk.lock(Path::new("/lock")).unwrap();
    drop(held);
    assert!(disk.lock(Path::new("/lock")).is_err(), "a lock of the run before is not this one's");
    drop(again);
    assert_eq!(whole(&disk, "/f").unwrap(), b"x");
}

#[test]
fn a_process_dies_in_the_middle_of_a_write() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let machine = MachineDisk::new(seed);
        let disk = machine.switch_on();
        let file = disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
        machine.die_in(2, Death::Killed);
        write(file.as_ref(), &[1; 100], 0);
        assert!(!machine.has_died());
        assert!(file.write_all_at(&[IoSlice::new(&[2; 60]), IoSlice::new(&[3; 40])], 100).is_err());
        assert!(machine.has_died());
        assert!(file.sync_data().is_err() && disk.sync_dir(Path::new("/")).is_err(), "nobody can any more");
        machine.plug_in();
        let there = whole(&machine.switch_on(), "/f").unwrap();
        let wanted = [[1; 100].as_slice(), &[2; 60], &[3; 40]].concat();
        assert_eq!(there, wanted[..there.len()]);
        lengths.insert(there.len());
    }
    assert!(lengths.len() > 20 && lengths.contains(&100) && lengths.contains(&200), "{lengths:?}");
}

#[test]
fn power_fails_before_or_after_a_sync_or_a_rename_and_what_was_synced_is_kept() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let machine = MachineDisk::new(seed);
        let disk = machine.switch_on();
        disk.create_dir_all(Path::new("/d")).unwrap();
        atomic_publish(disk.as_ref(), Path::new("/d/f"), b"one").unwrap();
        machine.die_in(1 + (seed % 6) as u32, Death::PowerLost);
        let published = atomic_publish(disk.as_ref(), Path::new("/d/f"), b"two!").is_ok();
        machine.end(Death::PowerLost);
        machine.plug_in();
        let there = whole(&machine.switch_on(), "/d/f").unwrap();
        assert!(there == b"one" || there == b"two!", "{there:?}");
        assert!(!published || there == b"two!");
        seen.insert((there, published));
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn a_full_disk_takes_no_more_but_over_what_is_there() {
    let machine = MachineDisk::new(1);
    let disk = machine.switch_on();
    let file = disk.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
    write(file.as_ref(), &[1; 1000], 0);
    machine.fill_up(true);
    write(file.as_ref(), &[2; 10], 990);
    let full = |done: io::Result<()>| assert_eq!(done.unwrap_err().kind(), io::ErrorKind::StorageFull);
    full(file.write_all_at(&[IoSlice::new(&[3; 20])], 990));
    assert_eq!(whole(&disk, "/f").unwrap(), [[1; 990].as_slice(), &[3; 10]].concat());
    full(file.zero_ahead(1000, 5000));
    full(disk.open(Path::new("/g"), OpenMode::CreateNew).map(drop));
    assert_eq!(disk.space(Path::new("/")).unwrap().free, 0);
    machine.fill_up(false);
    file.zero_ahead(1000, 5000).unwrap();
    assert_eq!(file.len().unwrap(), 5000);
}

#[test]
fn a_disk_that_is_lost_comes_back_empty() {
    let machine = MachineDisk::new(1);
    let disk = machine.switch_on();
    atomic_publish(disk.as_ref(), Path::new("/f"), b"x").unwrap();
    machine.end(Death::PowerLost);
    machine.wipe();
    machine.plug_in();
    assert_eq!(whole(&machine.switch_on(), "/f"), None);
}
