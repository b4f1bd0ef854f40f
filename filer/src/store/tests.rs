use std::path::{Path, PathBuf};

use hay_common::clock::SystemClock;
use hay_common::disk::RealDisk;
use hay_common::error::ErrorCode;
use hay_common::ids::SessionId;
use hay_consensus::StateMachine;

use super::rocks::{SnapshotRows, Tier};
use super::*;
use crate::namespace::apply::Refusal;
use crate::namespace::command::*;
use crate::namespace::model::*;
use crate::namespace::query::{self, WantedChunks};
use crate::namespace::rows::{MemoryRows, Order, Rows, first};
use crate::schema::values::*;

/// A machine with the log that would be replayed into it.
struct Rocks {
    dir: PathBuf,
    machine: Option<(Machine, Reader)>,
    log: Vec<bytes::Bytes>,
}

impl Rocks {
    fn open(dir: &Path) -> Self {
        let machine = Some(open(dir, 8 << 20, RealDisk::shared()).unwrap());
        Self { dir: dir.to_owned(), machine, log: Vec::new() }
    }

    fn machine(&mut self) -> &mut Machine {
        &mut self.machine.as_mut().unwrap().0
    }

    /// How many commands the state holds.
    fn applied(&self) -> usize {
        let applied = self.machine.as_ref().unwrap().0.applied().unwrap();
        applied.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()) as usize)
    }

    fn apply_log(&mut self, from: usize) -> Vec<Reply> {
        let commands = self.log[from..].to_vec();
        let applied = bytes::Bytes::copy_from_slice(&(self.log.len() as u64).to_be_bytes());
        let replies = self.machine().apply(commands, applied).unwrap();
        replies.iter().map(|r| decode(r).unwrap()).collect()
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Engine for Rocks {
    fn apply(&mut self, proposals: &[Proposal]) -> Vec<Reply> {
        let from = self.log.len();
        self.log.extend(proposals.iter().map(encode));
        let replies = self.apply_log(from);
        if self.log.len().is_multiple_of(5) {
            // As the engine does by itself when a memtable is full: a crash then leaves a part.
            rocks::flush(&self.machine.as_ref().unwrap().1.shared.db()).unwrap();
        }
        replies
    }

    fn read(&self, look: &mut dyn FnMut(&dyn Rows)) {
        let view = self.machine.as_ref().unwrap().1.shared.view();
        look(&SnapshotRows::of(&view, Tier::Disk));
    }

    fn restart(&mut self, crash: bool) {
        let next = self.dir.with_extension("next");
        if crash {
            // What lies on the disk while the process still runs is what a crash leaves of it. Only tables that a
            // compaction replaces must not go away while they are copied.
            let quiet = rocksdb::WaitForCompactOptions::default();
            self.machine.as_ref().unwrap().1.shared.db().wait_for_compact(&quiet).unwrap();
            copy_dir(&self.dir, &next);
            self.machine = None;
            std::fs::remove_dir_all(&self.dir).unwrap();
            std::fs::rename(&next, &self.dir).unwrap();
        }
        self.machine = None;
        self.machine = Some(open(&self.dir, 8 << 20, RealDisk::shared()).unwrap());
        let applied = self.applied();
        assert!(applied <= self.log.len());
        assert!(crash || applied == self.log.len(), "a clean end keeps everything");
        self.apply_log(applied);
    }
}

#[test]
fn random_histories_agree_with_the_reference_through_restarts_and_crashes() {
    for seed in 1000..1012 {
        let run = std::panic::catch_unwind(|| {
            let dir = tempfile::tempdir().unwrap();
            let mut rocks = Rocks::open(&dir.path().join("filer"));
            let mut history = History::new(&mut rocks, seed);
            history.run(120);
            history.finish();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}

fn commands(count: u64) -> Vec<Proposal> {
    let session = SessionId::from_random(9);
    let mut all =
        vec![bootstrap(), Proposal { wall_ms: START_MS, op: Op::OpenSessions { sessions: vec![session] } }];
    all.extend((1..=count).map(|n| {
        let wanted = put(&format!("d{}/{n}", n % 7), with_copy(n, u128::from(n) + 100));
        let command = ClientCommand { token: TOKEN, session, sequence: n, action: Action::PutFile(wanted) };
        Proposal { wall_ms: START_MS + n, op: Op::Client(command) }
    }));
    all
}

#[test]
fn memory_and_rocksdb_hold_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    let mut memory = MemoryRows::new();
    for batch in commands(200).chunks(17) {
        assert_eq!(rocks.apply(batch), memory.apply(batch));
    }
    assert_eq!(dump(&rocks), dump(&memory));
}

#[test]
fn a_snapshot_is_durable_whole_and_can_be_installed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    let all = commands(300);
    rocks.apply(&all[..203]);
    let at_snapshot = dump(&rocks);
    let snapshot = dir.path().join("snapshot");
    std::fs::create_dir(&snapshot).unwrap();
    rocks.machine().snapshot(&snapshot).unwrap();
    // The log is purged below it: a crash right after it must lose none of it.
    let crashed = dir.path().join("crashed");
    copy_dir(&rocks.dir, &crashed);
    let crashed = Rocks::open(&crashed);
    assert_eq!((crashed.applied(), dump(&crashed)), (203, at_snapshot.clone()));
    rocks.apply(&all[203..]);
    let whole = dump(&rocks);
    rocks.restart(true);
    assert_eq!(dump(&rocks), whole);
    // Another member takes the snapshot over what it has, and keeps it over a crash.
    let mut other = Rocks::open(&dir.path().join("other"));
    other.apply(&all[..20]);
    let reader = other.machine.as_ref().unwrap().1.clone();
    let applied = bytes::Bytes::copy_from_slice(&203u64.to_be_bytes());
    other.machine().install(&snapshot, applied.clone()).unwrap();
    assert_eq!(dump(&other), at_snapshot);
    assert!(Arc::ptr_eq(&reader.shared, &other.machine.as_ref().unwrap().1.shared), "readers follow");
    // A crash ends readers too.
    drop(reader);
    other.log = rocks.log[..203].to_vec();
    other.restart(true);
    assert_eq!((other.applied(), dump(&other)), (203, at_snapshot.clone()));
    // Once more, and the snapshot itself is as it was.
    other.machine().install(&snapshot, applied).unwrap();
    let replies = other.apply(&all[203..]);
    assert!(replies.iter().all(|r| matches!(r, Reply::Client(Ok(_)))));
    assert_eq!(dump(&other), whole);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("other")).unwrap().collect();
    assert!(left.len() <= 3, "{left:?}");
}

#[test]
fn an_unknown_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filer");
    drop(Rocks::open(&path));
    let rewrite = |value: Option<Vec<u8>>| {
        let db = rocks::open(&path.join("state-1"), &Cache::new_lru_cache(1 << 20)).unwrap();
        match value {
            Some(value) => db.put(keys::format(), value).unwrap(),
            None => db.delete(keys::format()).unwrap(),
        }
    };
    let refused = |wanted: u32| match open(&path, 1 << 20, RealDisk::shared()) {
        Err(OpenStoreError::Format { found, known, .. }) => {
            assert_eq!((found, known), (wanted, FORMAT_VERSION))
        }
        other => panic!("{:?}", other.err()),
    };
    rewrite(Some(FormatRow { version: FORMAT_VERSION + 1 }.encode()));
    refused(FORMAT_VERSION + 1);
    rewrite(Some(vec![9]));
    refused(9);
    rewrite(None);
    refused(0);
    rewrite(Some(FormatRow { version: FORMAT_VERSION }.encode()));
    drop(Rocks::open(&path));
    std::fs::write(path.join("current"), "nonsense").unwrap();
    let error = open(&path, 1 << 20, RealDisk::shared()).err().unwrap();
    assert!(matches!(error, OpenStoreError::Layout(LayoutError::Corrupt { .. })), "{error}");
}

#[test]
fn a_command_of_a_newer_program_stops_the_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    let mut command = encode(&bootstrap()).to_vec();
    command[0] = 2;
    let result = rocks.machine().apply(vec![command.into()], bytes::Bytes::from_static(b"x"));
    assert!(matches!(result, Err(hay_consensus::StateError::NewerVersion { .. })), "{result:?}");
    assert_eq!(rocks.machine().applied().unwrap(), None, "nothing of it was written");
}

#[tokio::test]
async fn what_is_not_in_memory_is_read_by_a_thread_that_may_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    rocks.apply(&commands(500));
    rocks.restart(false);
    let reader = rocks.machine.as_ref().unwrap().1.clone();
    // After a restart nothing is in the block cache.
    {
        let view = reader.shared.view();
        let wanted = WantedChunks::default();
        let cold = query::resolve(&SnapshotRows::of(&view, Tier::Memory), &TOKEN, "d3/3", wanted);
        assert!(matches!(cold, Err(Refusal::Rows(RowsError::NotCached))), "{cold:?}");
    }
    let wanted = WantedChunks { count: 1, ..WantedChunks::default() };
    let (entry, chunks) =
        reader.query(Effort::Small, move |rows| query::resolve(rows, &TOKEN, "d3/3", wanted)).await.unwrap();
    assert_eq!((entry.size, chunks.len()), (103, 1));
    let view = reader.shared.view();
    let warm = query::resolve(&SnapshotRows::of(&view, Tier::Memory), &TOKEN, "d3/3", wanted);
    assert!(warm.is_ok(), "{warm:?}");
}

#[test]
fn prints_what_a_put_and_a_resolve_cost() {
    let clock = SystemClock::shared();
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    let all = commands(20_000);
    let start = clock.monotonic();
    for (n, batch) in all.chunks(16).enumerate() {
        let commands = batch.iter().map(encode).collect();
        rocks.machine().apply(commands, bytes::Bytes::copy_from_slice(&n.to_be_bytes())).unwrap();
    }
    let each = (clock.monotonic() - start).as_nanos() / 20_000;
    println!("apply of a put, 16 a batch: {each} ns");
    let view = rocks.machine.as_ref().unwrap().1.shared.view();
    let wanted = WantedChunks { count: 1, ..WantedChunks::default() };
    for n in 1..=20_000u64 {
        query::resolve(&SnapshotRows::of(&view, Tier::Disk), &TOKEN, &format!("d{}/{n}", n % 7), wanted)
            .unwrap();
    }
    let start = clock.monotonic();
    for n in 1..=20_000u64 {
        let n = n * 7919 % 20_000 + 1;
        let rows = SnapshotRows::of(&view, Tier::Disk);
        query::resolve(&rows, &TOKEN, &format!("d{}/{n}", n % 7), wanted).unwrap();
    }
    let each = (clock.monotonic() - start).as_nanos() / 20_000;
    println!("resolve with one chunk: {each} ns");
    audit(&rocks);
}

/// Changes the token's row as a command that does so would, in the machine's own order.
fn rewrite_token(shared: &Shared, row: Option<Vec<u8>>, meanwhile: impl FnOnce()) {
    let changes = std::collections::BTreeMap::from([(keys::token(&TOKEN), row)]);
    assert!(shared.known.shut(changes.keys()));
    rocks::write(&shared.db(), &changes, b"applied").unwrap();
    meanwhile();
    shared.known.open();
}

#[test]
fn a_revoked_token_is_at_hand_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    rocks.apply(&commands(3));
    let shared = rocks.machine.as_ref().unwrap().1.shared.clone();
    let key = keys::token(&TOKEN);
    let at_hand = || shared.known.get(shared.known.pass(), &key);
    assert_eq!(at_hand(), None);
    let view = shared.view();
    let early = SnapshotRows::of(&view, Tier::Disk);
    let row = early.get(&key).unwrap().unwrap();
    assert_eq!(at_hand(), Some(row.clone()), "a miss fills it");
    let mut during = None;
    rewrite_token(&shared, None, || {
        // Between the write and the answer: the write counts, and what an older snapshot holds comes in no more.
        let view = shared.view();
        assert_eq!(SnapshotRows::of(&view, Tier::Disk).get(&key).unwrap(), None);
        assert_eq!(early.get(&key).unwrap(), Some(row.clone()), "its own snapshot");
        during = Some(view);
    });
    assert_eq!(early.get(&key).unwrap(), Some(row.clone()), "its own snapshot");
    assert_eq!(at_hand(), None, "a reader that read before the write put nothing back");
    let late = shared.view();
    assert_eq!(SnapshotRows::of(&late, Tier::Disk).get(&key).unwrap(), None);
    let refused = query::whoami(&SnapshotRows::of(&late, Tier::Disk), &TOKEN);
    assert!(matches!(refused, Err(Refusal::Failure(f)) if f.code == ErrorCode::Unauthenticated));
    // It comes back: neither the snapshot from before that nor one of the time of the write may take it.
    let between = SnapshotRows::of(&late, Tier::Disk);
    rewrite_token(&shared, Some(row.clone()), || {});
    let now = shared.view();
    assert_eq!(SnapshotRows::of(&now, Tier::Disk).get(&key).unwrap(), Some(row.clone()));
    assert_eq!(at_hand(), Some(row));
    assert_eq!(between.get(&key).unwrap(), None, "its own snapshot, not what is at hand by now");
    let during = during.unwrap();
    assert_eq!(shared.known.get(during.pass, &key), None, "it began while a write was under way");
}

#[test]
fn directories_at_hand_follow_the_commands_and_files_stay_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    rocks.apply(&commands(9));
    let shared = rocks.machine.as_ref().unwrap().1.shared.clone();
    let none = WantedChunks::default();
    let look = |path: &str| {
        let view = shared.view();
        query::resolve(&SnapshotRows::of(&view, Tier::Disk), &TOKEN, path, none).is_ok()
    };
    let at_hand =
        |path: &str| shared.known.get(shared.known.pass(), &keys::entry(tenant(), path.as_bytes())).is_some();
    assert!(look("d1/") && look("d1/1") && look("d2/"));
    assert!(at_hand("d1/") && at_hand("d2/") && !at_hand("d1/1"));
    let delete =
        Delete { path: "d1/".into(), condition: Condition::default(), recursive: true, idempotency: None };
    let command = ClientCommand {
        token: TOKEN,
        session: SessionId::from_random(9),
        sequence: 100,
        action: Action::Delete(delete),
    };
    rocks.apply(&[Proposal { wall_ms: START_MS + 100, op: Op::Client(command) }]);
    assert!(!look("d1/") && !look("d1/1") && look("d2/"));
    assert!(!at_hand("d1/") && at_hand("d2/"), "what did not change stays");
    let snapshot = dir.path().join("snapshot");
    std::fs::create_dir(&snapshot).unwrap();
    rocks.machine().snapshot(&snapshot).unwrap();
    rocks.machine().install(&snapshot, bytes::Bytes::from_static(b"x")).unwrap();
    assert!(!at_hand("d2/"), "another database");
    assert!(look("d2/") && at_hand("d2/"));
}

#[test]
fn readers_that_race_with_revocations_see_what_their_snapshots_hold() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let mut rocks = Rocks::open(&dir.path().join("filer"));
    rocks.apply(&commands(1));
    let shared = rocks.machine.as_ref().unwrap().1.shared.clone();
    let key = keys::token(&TOKEN);
    let row = shared.db().get(&key).unwrap().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let view = shared.view();
                    let rows = SnapshotRows::of(&view, Tier::Disk);
                    let seen = rows.get(&key).unwrap().is_some();
                    // A walk never takes what is at hand.
                    let held = first(&rows, &keys::under(key.clone()), Order::Forward).unwrap().is_some();
                    let again = rows.get(&key).unwrap().is_some();
                    if (seen, again) != (held, held) {
                        over.store(true, Ordering::Release);
                    }
                    assert_eq!((seen, again), (held, held), "what is at hand is what the snapshot holds");
                }
            });
        }
        for n in 1..=3_000 {
            let there = n % 2 == 0;
            rewrite_token(&shared, there.then(|| row.clone()), || {});
            let view = shared.view();
            let seen = SnapshotRows::of(&view, Tier::Disk).get(&key).unwrap().is_some();
            if seen != there || over.load(Ordering::Acquire) {
                over.store(true, Ordering::Release);
                assert_eq!(seen, there, "rewrite {n} is through");
                break;
            }
        }
        over.store(true, Ordering::Release);
    });
}

/// Counts a manifest as draining that is not there.
pub(crate) fn miscount_draining(dir: &Path) {
    let (_machine, reader) = open(dir, 8 << 20, RealDisk::shared()).unwrap();
    let db = reader.shared.db();
    let mut counters =
        db.get(keys::counters()).unwrap().map_or_else(Counters::default, |b| Counters::decode(&b).unwrap());
    counters.manifests_draining += 1;
    db.put_opt(keys::counters(), counters.encode(), &rocks::without_wal()).unwrap();
    rocks::flush(&db).unwrap();
}

#[test]
fn a_directory_that_lost_its_name_of_the_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filer");
    let mut rocks = Rocks::open(&path);
    rocks.apply(&commands(20));
    let before = dump(&rocks);
    rocks.restart(false);
    drop(rocks);
    std::fs::remove_file(path.join("current")).unwrap();
    let refused = || {
        matches!(
            open(&path, 1 << 20, RealDisk::shared()),
            Err(OpenStoreError::Layout(LayoutError::Lost { .. }))
        )
    };
    assert!(refused(), "a command was applied in state-1");
    std::fs::rename(path.join("state-1"), path.join("state-7")).unwrap();
    assert!(refused(), "under whatever number");
    std::fs::create_dir(path.join("raft")).unwrap();
    std::fs::rename(path.join("state-7"), dir.path().join("away")).unwrap();
    assert!(refused(), "the log holds what was acknowledged");
    std::fs::rename(dir.path().join("away"), path.join("state-1")).unwrap();
    std::fs::write(path.join("current"), "state-1\n").unwrap();
    assert_eq!(dump(&Rocks::open(&path)), before);
}

#[test]
fn what_a_crash_of_the_very_first_start_left_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filer");
    drop(Rocks::open(&path));
    std::fs::remove_file(path.join("current")).unwrap();
    drop(Rocks::open(&path));
    // Cut off before it was a database: kept, because that can't be told from damage.
    std::fs::remove_file(path.join("current")).unwrap();
    std::fs::remove_file(path.join("state-1/CURRENT")).unwrap();
    drop(Rocks::open(&path));
    assert!(path.join("unused-state-1-0").exists() && path.join("state-1").exists());
}
