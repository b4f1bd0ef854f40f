//! The log alone: random histories against a model, reopened and crashed in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hay_common::disk::{RealDisk, SharedDisk};
use hay_common::ids::ClusterId;
use hay_common::model::Durability;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{LogConfig, LogStore, open};
use crate::tests::disk::{Event, Failing, FailingDisk};
use crate::types::{Batch, Entry, LogId, Vote};

fn log_config(dir: &Path) -> LogConfig {
    LogConfig {
        dir: dir.join("log"),
        cluster: ClusterId::from_random(5),
        name: "log".to_owned(),
        segment_bytes: 2048,
        durability: Durability::Sync,
    }
}

fn store(dir: &Path, disk: SharedDisk) -> LogStore {
    LogStore { log: open(log_config(dir), disk).unwrap(), reached: None }
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let command = Bytes::from(format!("{term}/{index}/{}", "x".repeat(bytes)));
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(term, 1), index),
        payload: EntryPayload::Normal(Batch::new(vec![command])),
    }
}

/// What a log must hold.
#[derive(Debug, Default, Clone)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, e)| e.log_id).or(self.purged)
    }

    async fn check(&self, store: &mut LogStore, seed: u64) {
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, self.purged, "seed {seed}");
        assert_eq!(state.last_log_id, self.last(), "seed {seed}");
        assert_eq!(store.read_vote().await.unwrap(), self.vote, "seed {seed}");
        let entries = store.try_get_log_entries(..).await.unwrap();
        assert_eq!(entries, self.entries.values().cloned().collect::<Vec<_>>(), "seed {seed}");
    }
}

async fn step(store: &mut LogStore, model: &mut Model, random: &mut StdRng) {
    match random.random_range(0..20) {
        0..12 => {
            let count = random.random_range(1..6u64);
            let first = model.next();
            let new: Vec<Entry> =
                (first..first + count).map(|i| entry(model.term, i, random.random_range(0..400))).collect();
            store.blocking_append(new.clone()).await.unwrap();
            model.entries.extend(new.into_iter().map(|e| (e.log_id.index, e)));
        }
        12..14 => {
            let vote = Vote::new(model.term + 1, 1);
            store.save_vote(&vote).await.unwrap();
            model.vote = Some(vote);
        }
        14..17 if !model.entries.is_empty() => {
            let low = *model.entries.keys().next().unwrap();
            let at = random.random_range(low..model.next());
            store.truncate(model.entries[&at].log_id).await.unwrap();
            model.entries.retain(|index, _| *index < at);
            model.term += 1;
        }
        17..19 if !model.entries.is_empty() => {
            let low = *model.entries.keys().next().unwrap();
            let at = random.random_range(low..model.next());
            let id = model.entries[&at].log_id;
            store.purge(id).await.unwrap();
            model.entries.retain(|index, _| *index > at);
            model.purged = Some(id);
        }
        // A snapshot from elsewhere: the log jumps.
        19 if random.random_bool(0.3) => {
            let id =
                LogId::new(CommittedLeaderId::new(model.term, 1), model.next() + random.random_range(0..50));
            store.purge(id).await.unwrap();
            model.entries.clear();
            model.purged = Some(id);
        }
        _ => {}
    }
}

#[tokio::test]
async fn random_histories_reopen_as_they_were() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        for _ in 0..8 {
            let mut store = store(dir.path(), RealDisk::shared());
            model.check(&mut store, seed).await;
            for _ in 0..random.random_range(0..40) {
                step(&mut store, &mut model, &mut random).await;
            }
            model.check(&mut store, seed).await;
            store.log.stop();
        }
    }
}

#[tokio::test]
async fn old_entries_are_read_from_disk_and_committed_is_remembered_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = store(dir.path(), RealDisk::shared());
    for index in 0..50u64 {
        log.save_committed(index.checked_sub(1).map(|i| entry(1, i, 0).log_id)).await.unwrap();
        log.blocking_append([entry(1, index, 100)]).await.unwrap();
    }
    let syncs = log.log.shared.counters.syncs.load(Ordering::Relaxed);
    assert!(syncs < 50 + 10, "{syncs} syncs");
    log.log.stop();
    let mut log = store(dir.path(), RealDisk::shared());
    assert_eq!(log.read_committed().await.unwrap(), Some(entry(1, 48, 0).log_id));
    let read = log.try_get_log_entries(10..20).await.unwrap();
    assert_eq!(read, (10..20).map(|i| entry(1, i, 100)).collect::<Vec<_>>());
    let limited = log.limited_get_log_entries(3, 50).await.unwrap();
    assert_eq!(limited.first(), Some(&entry(1, 3, 100)));
    log.log.stop();
}

/// The process dies after each possible number of changes to the disk; what was acknowledged must be there.
#[tokio::test]
async fn a_crash_after_any_change_leaves_what_was_acknowledged() {
    for after in 0..120 {
        let dir = tempfile::tempdir().unwrap();
        let before = store(dir.path(), RealDisk::shared());
        before.log.stop();
        let failing = Failing::after(after);
        let Ok(log) = open(log_config(dir.path()), FailingDisk::shared(&failing)) else { continue };
        let mut log = LogStore { log, reached: None };
        let history = play(&mut log).await;
        log.log.stop();
        let mut log = store(dir.path(), RealDisk::shared());
        check_crashed(&mut log, &history, after).await;
        // It goes on.
        let next = log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
        log.blocking_append([entry(99, next, 10)]).await.unwrap();
        log.log.stop();
        let mut log = store(dir.path(), RealDisk::shared());
        assert_eq!(
            log.get_log_state().await.unwrap().last_log_id,
            Some(entry(99, next, 0).log_id),
            "after {after}"
        );
        log.log.stop();
    }
}

/// What was done before the disk failed, and the one thing that failed.
struct History {
    done: Model,
    /// The state if the failed step has happened all the same.
    or: Model,
}

/// Appends, a truncation, a purge, a vote: stops at the first failure.
async fn play(log: &mut LogStore) -> History {
    let mut done = Model { term: 1, ..Model::default() };
    for round in 0..12u64 {
        let mut next = done.clone();
        let result = match round {
            5 => {
                let id = next.entries[&5].log_id;
                next.entries.retain(|index, _| *index < 5);
                next.term = 2;
                log.truncate(id).await
            }
            8 => {
                let id = next.entries[&3].log_id;
                next.entries.retain(|index, _| *index > 3);
                next.purged = Some(id);
                log.purge(id).await
            }
            9 => {
                next.vote = Some(Vote::new(3, 1));
                log.save_vote(&Vote::new(3, 1)).await
            }
            _ => {
                let first = next.next();
                let new: Vec<Entry> = (first..first + 3).map(|i| entry(next.term, i, 300)).collect();
                next.entries.extend(new.iter().cloned().map(|e| (e.log_id.index, e)));
                log.blocking_append(new).await
            }
        };
        if result.is_err() {
            return History { done, or: next };
        }
        done = next;
    }
    History { or: done.clone(), done }
}

async fn check_crashed(log: &mut LogStore, history: &History, after: i64) {
    let state = log.get_log_state().await.unwrap();
    let entries = log.try_get_log_entries(..).await.unwrap();
    let purged = state.last_purged_log_id;
    assert!(purged == history.done.purged || purged == history.or.purged, "after {after}: {purged:?}");
    let vote = log.read_vote().await.unwrap();
    assert!(vote == history.done.vote || vote == history.or.vote, "after {after}: {vote:?}");
    let first = purged.map_or(0, |id| id.index + 1);
    for (offset, found) in entries.iter().enumerate() {
        let index = first + offset as u64;
        assert_eq!(found.log_id.index, index, "after {after}: no gap");
        let known = history.done.entries.get(&index).or(history.or.entries.get(&index));
        assert_eq!(Some(found), known, "after {after}");
    }
    // A truncation may have happened or not; nothing else may take entries away.
    let kept = |model: &Model| model.entries.keys().filter(|i| **i >= first).count();
    let least = kept(&history.done).min(kept(&history.or));
    assert!(entries.len() >= least, "after {after}: {} entries of at least {least}", entries.len());
}

#[tokio::test]
async fn a_failed_sync_is_never_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), RealDisk::shared()).log.stop();
    let failing = Failing::syncs_after(i64::MAX);
    let disk = FailingDisk::shared(&failing);
    let mut log = store(dir.path(), disk);
    log.blocking_append([entry(1, 0, 10)]).await.unwrap();
    failing.left.store(0, Ordering::SeqCst);
    log.blocking_append([entry(1, 1, 10)]).await.unwrap_err();
    // The disk is well again, but what it holds is not known.
    failing.left.store(i64::MAX, Ordering::SeqCst);
    let error = log.blocking_append([entry(1, 2, 10)]).await.unwrap_err();
    assert!(error.to_string().contains("failed before"), "{error}");
    log.save_vote(&Vote::new(9, 1)).await.unwrap_err();
    log.log.stop();
}

/// What a sync failed for looks whole when it is read again, but no sync of the kernel's will ever write it.
#[tokio::test]
async fn a_tail_that_may_not_be_durable_is_written_again_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), RealDisk::shared()).log.stop();
    let failing = Failing::syncs_after(i64::MAX);
    let mut log = store(dir.path(), FailingDisk::shared(&failing));
    log.blocking_append([entry(1, 0, 10)]).await.unwrap();
    let durable = failing.written_to();
    failing.left.store(0, Ordering::SeqCst);
    log.blocking_append([entry(1, 1, 300), entry(1, 2, 10)]).await.unwrap_err();
    let end = failing.written_to();
    assert!(durable < end);
    log.log.stop();

    let well = Failing::after(i64::MAX);
    let mut log = store(dir.path(), FailingDisk::shared(&well));
    let events = well.events.lock().clone();
    let again = events.iter().position(|e| *e == Event::Wrote(durable, end - durable));
    let again = again.unwrap_or_else(|| panic!("{durable}..{end} was not written again: {events:?}"));
    assert!(events[again..].contains(&Event::Synced), "{events:?}");
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 3);
    log.log.stop();
    // A start that can't make it durable is none.
    let failing = Failing::syncs_after(1);
    assert!(open(log_config(dir.path()), FailingDisk::shared(&failing)).is_err());
}

/// The segment after the next is ordered long before it is needed: what went wrong then may be over.
#[tokio::test]
async fn a_disk_that_was_full_while_a_segment_was_prepared_does_not_end_the_log_later() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::after(i64::MAX);
    let mut log = store(dir.path(), FailingDisk::shared(&failing));
    while failing.zeroed() < 2 {
        tokio::task::yield_now().await;
    }
    // The first fills a segment, the second goes into the one that is ready; then none more can be prepared.
    failing.zeros_left.store(0, Ordering::SeqCst);
    for index in 0..2 {
        log.blocking_append([entry(1, index, 1800)]).await.unwrap();
    }
    while failing.zeros_refused.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    failing.zeros_left.store(i64::MAX, Ordering::SeqCst);
    for index in 2..5 {
        log.blocking_append([entry(1, index, 1800)]).await.unwrap();
    }
    log.log.stop();
    let names = std::fs::read_dir(dir.path().join("log")).unwrap();
    let unfinished = names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".new"));
    assert_eq!(unfinished.count(), 0, "what was not finished is removed");
    let mut log = store(dir.path(), RealDisk::shared());
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 5);
    log.log.stop();
}
