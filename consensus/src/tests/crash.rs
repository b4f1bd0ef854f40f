//! Directories as crashes leave them: everything acknowledged must be there after the next start.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hay_common::disk::RealDisk;
use openraft::CommittedLeaderId;
use tokio::task::spawn_blocking;

use super::disk::{Event, Failing, FailingDisk};
use super::{Journal, command, config, copy_dir, start};
use crate::open::open;
use crate::snapshot::Snapshots;
use crate::types::{LogId, SnapshotMeta};
use crate::{Group, GroupConfig, StartError};

/// Copies of the directory taken while commands are written. A file-by-file copy is not one moment; so that it is a
/// state which a crash could leave, snapshots are off and the segments are copied from the log's end to its front.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_taken_at_any_moment_hold_what_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let (group, _) = start(config(&dir.path().join("g"))).await.unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn({
        let (group, acknowledged) = (group.clone(), acknowledged.clone());
        async move {
            for n in 0..3000 {
                group.propose(command(n)).await.unwrap();
                acknowledged.store(n + 1, Ordering::SeqCst);
            }
        }
    });
    let mut taken = Vec::new();
    while !writing.is_finished() && taken.len() < 40 {
        let to = copies.path().join(taken.len().to_string());
        let at_least = acknowledged.load(Ordering::SeqCst);
        let from = dir.path().join("g");
        let copied = spawn_blocking({
            let to = to.clone();
            move || copy_in_order(&from, &to)
        });
        if copied.await.unwrap() {
            taken.push((to, at_least));
        }
    }
    writing.await.unwrap();
    group.shutdown().await.unwrap();
    assert!(taken.len() >= 3, "only {} copies", taken.len());
    for (copy, at_least) in taken {
        let (group, journal) = start(config(&copy)).await.unwrap();
        let commands = journal.commands();
        assert!(commands.len() as u64 >= at_least, "{} of {at_least} acknowledged", commands.len());
        let expected: Vec<Bytes> = (0..commands.len() as u64).map(command).collect();
        assert_eq!(commands, expected);
        group.propose(command(1)).await.unwrap();
        group.shutdown().await.unwrap();
    }
}

/// Segments, the last first; `false` where one went away meanwhile.
fn copy_in_order(from: &Path, to: &Path) -> bool {
    fs::create_dir_all(to.join("log")).unwrap();
    let mut names: Vec<_> = fs::read_dir(from.join("log")).unwrap().map(|e| e.unwrap().file_name()).collect();
    // The last first: what is written on while it is copied may move on to the next segment, and a copy of that must not
    // know more than the copy of the one before it.
    names.sort();
    names
        .iter()
        .rev()
        .filter(|name| !name.to_string_lossy().ends_with(".new"))
        .all(|name| fs::copy(from.join("log").join(name), to.join("log").join(name)).is_ok())
        && fs::copy(from.join("identity"), to.join("identity")).is_ok()
}

/// The segment that was written last, and where its records end.
fn last_segment(dir: &Path) -> (std::path::PathBuf, usize) {
    let mut names: Vec<_> = fs::read_dir(dir.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-"));
    names.sort();
    let used = |path: &std::path::PathBuf| fs::read(path).unwrap().iter().rposition(|b| *b != 0).unwrap() + 1;
    let path = names.iter().rev().find(|path| used(path) > 64).unwrap().clone();
    let end = used(&path);
    (path, end)
}

/// A crash of an append leaves any part of it: the log ends before it, with all that came earlier.
#[tokio::test]
async fn an_append_cut_at_any_byte_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let (group, _) = start(config(&whole)).await.unwrap();
    for n in 0..5 {
        group.propose(command(n)).await.unwrap();
    }
    let (path, before) = last_segment(&whole);
    let name = path.file_name().unwrap().to_owned();
    group.propose(Bytes::from_static(b"the last command")).await.unwrap();
    let (_, after) = last_segment(&whole);
    group.shutdown().await.unwrap();
    let record_start = before.next_multiple_of(8);
    assert!(after > record_start + 72);
    for (cut, garbage) in (record_start..after).flat_map(|cut| [(cut, false), (cut, true)]) {
        let torn = dir.path().join("torn");
        copy_dir(&whole, &torn);
        let file = torn.join("log").join(&name);
        let mut bytes = fs::read(&file).unwrap();
        if garbage {
            // The block that did not arrive is the first one.
            bytes[record_start..=cut].fill(0);
        } else {
            bytes[cut..].fill(0);
        }
        fs::write(&file, bytes).unwrap();
        let (group, journal) = start(config(&torn)).await.unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        assert_eq!(journal.commands(), (0..5).map(command).collect::<Vec<_>>(), "cut at {cut}");
        group.propose(command(5)).await.unwrap();
        group.shutdown().await.unwrap();
        let (group, journal) = start(config(&torn)).await.unwrap();
        assert_eq!(journal.commands(), (0..6).map(command).collect::<Vec<_>>(), "cut at {cut}");
        group.shutdown().await.unwrap();
        fs::remove_dir_all(&torn).unwrap();
    }
}

/// Damage to what was acknowledged before something else was is no torn tail, and nothing may be cut for it.
#[tokio::test]
async fn damage_below_the_synced_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let (group, _) = start(config(&whole)).await.unwrap();
    for n in 0..3 {
        group.propose(command(n)).await.unwrap();
    }
    let (path, before) = last_segment(&whole);
    group.propose(Bytes::from_static(b"the last command")).await.unwrap();
    group.shutdown().await.unwrap();
    let bytes = fs::read(&path).unwrap();
    // Padding is covered by nothing, and holds nothing.
    let mut refused = 0;
    for at in (0..before.next_multiple_of(8)).step_by(5) {
        let bad = dir.path().join("bad");
        copy_dir(&whole, &bad);
        let file = bad.join("log").join(path.file_name().unwrap());
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        fs::write(&file, &changed).unwrap();
        match start(config(&bad)).await {
            Err(
                StartError::Corrupt { .. } | StartError::NewerVersion { .. } | StartError::Foreign { .. },
            ) => {
                refused += 1;
                assert_eq!(fs::read(&file).unwrap(), changed, "nothing was changed");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok((group, journal)) => {
                assert_eq!(journal.commands().len(), 4, "byte {at}: only padding may be changed unnoticed");
                group.shutdown().await.unwrap();
            }
        }
        fs::remove_dir_all(&bad).unwrap();
    }
    assert!(refused > 100, "{refused}");
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = start(config(dir.path())).await.unwrap();
    for n in 0..400 {
        group.propose(command(n)).await.unwrap();
    }
    group.shutdown().await.unwrap();
    let mut names: Vec<_> =
        fs::read_dir(dir.path().join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-"));
    names.sort();
    assert!(names.len() > 4);
    for missing in [0, 2] {
        let aside = names[missing].with_extension("aside");
        fs::rename(&names[missing], &aside).unwrap();
        let error = start(config(dir.path())).await.err().unwrap();
        assert!(matches!(error, StartError::Corrupt { .. }), "{error}");
        fs::rename(&aside, &names[missing]).unwrap();
    }
    start(config(dir.path())).await.unwrap().0.shutdown().await.unwrap();
}

/// Segments are used again under new generations; what they held before never comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recycled_segments_never_show_what_they_held_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = GroupConfig { snapshot_every_entries: 40, ..config(dir.path()) };
    let mut expected = Vec::new();
    for _ in 0..6 {
        let (group, journal) = start(config.clone()).await.unwrap();
        assert_eq!(journal.commands(), expected);
        for n in 0..300 {
            // All of one length: records of an earlier use would stand exactly where new ones are looked for.
            let command = Bytes::from(format!("{:0100}", expected.len() + n));
            group.propose(command).await.unwrap();
        }
        expected = journal.commands();
        assert_eq!(expected.len() % 300, 0);
        group.shutdown().await.unwrap();
    }
    let names =
        fs::read_dir(dir.path().join("log")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let greatest =
        names.filter_map(|n| n.strip_prefix("log-").map(|g| u64::from_str_radix(g, 16).unwrap())).max();
    assert!(greatest > Some(12), "segments went round: {greatest:?}");
}

/// A power loss right after the first start must not take the directory's own name.
#[tokio::test]
async fn the_name_of_the_directory_is_durable_before_anything_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::after(i64::MAX);
    let config = config(&dir.path().join("g"));
    let group = Group::start(config, Box::new(Journal::default()), FailingDisk::shared(&disk)).await.unwrap();
    group.shutdown().await.unwrap();
    let events = disk.events.lock();
    for name in [dir.path().to_owned(), dir.path().join("g"), dir.path().join("g/log")] {
        assert!(events.contains(&Event::SyncedDir(name.clone())), "{}", name.display());
    }
}

/// As a crash leaves it between the keeping of a received snapshot and the purge of the log: what stands in the log was never
/// committed, and is of a later term than the snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_below_a_received_snapshot_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (group, _) = start(config(dir.path())).await.unwrap();
    for n in 0..5 {
        group.propose(command(n)).await.unwrap();
    }
    group.shutdown().await.unwrap();
    let received = LogId::new(CommittedLeaderId::new(0, 0), 500);
    let path = dir.path().to_owned();
    let state = spawn_blocking(move || {
        let snapshots = Snapshots::open(path.join("snapshots"), RealDisk::shared()).unwrap();
        let meta = SnapshotMeta { last_log_id: Some(received), ..SnapshotMeta::default() };
        let fill = |state: &Path| {
            let commands: Vec<Vec<u8>> = vec![command(7).to_vec()];
            fs::write(state.join("commands"), postcard::to_stdvec(&commands).unwrap())
        };
        snapshots.publish(&meta, fill).unwrap();
        drop(snapshots);
        let journal = Journal::default();
        let draw = || unreachable!("the directory has its member");
        let opened = open(&config(&path), Box::new(journal.clone()), RealDisk::shared(), draw).unwrap();
        let state = {
            let index = opened.log.shared.index.lock();
            (index.purged, index.last(), index.is_empty())
        };
        opened.applier.stop();
        opened.log.stop();
        assert_eq!(journal.commands(), [command(7)]);
        state
    });
    assert_eq!(state.await.unwrap(), (Some(received), Some(received), true));
}
