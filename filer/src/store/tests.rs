use std::path::{Path, PathBuf};

use hay_common::clock::SystemClock;
use hay_common::disk::RealDisk;
use hay_common::ids::SessionId;
use hay_consensus::StateMachine;

use super::rocks::{SnapshotRows, Tier};
use super::*;
use crate::namespace::command::*;
use crate::namespace::model::*;
use crate::namespace::query::{self, WantedChunks};
use crate::namespace::rows::{MemoryRows, Rows};
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
        let db = self.machine.as_ref().unwrap().1.shared.db();
        look(&SnapshotRows::of(&db, Tier::Disk));
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
        let db = reader.shared.db();
        let wanted = WantedChunks::default();
        let cold = query::resolve(&SnapshotRows::of(&db, Tier::Memory), &TOKEN, "d3/3", wanted);
        assert!(
            matches!(cold, Err(crate::namespace::apply::Refusal::Rows(RowsError::NotCached))),
            "{cold:?}"
        );
    }
    let wanted = WantedChunks { count: 1, ..WantedChunks::default() };
    let (entry, chunks) =
        reader.query(Effort::Small, move |rows| query::resolve(rows, &TOKEN, "d3/3", wanted)).await.unwrap();
    assert_eq!((entry.size, chunks.len()), (103, 1));
    let db = reader.shared.db();
    let warm = query::resolve(&SnapshotRows::of(&db, Tier::Memory), &TOKEN, "d3/3", wanted);
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
    let db = rocks.machine.as_ref().unwrap().1.shared.db();
    let wanted = WantedChunks { count: 1, ..WantedChunks::default() };
    for n in 1..=20_000u64 {
        query::resolve(&SnapshotRows::of(&db, Tier::Disk), &TOKEN, &format!("d{}/{n}", n % 7), wanted)
            .unwrap();
    }
    let start = clock.monotonic();
    for n in 1..=20_000u64 {
        let n = n * 7919 % 20_000 + 1;
        let rows = SnapshotRows::of(&db, Tier::Disk);
        query::resolve(&rows, &TOKEN, &format!("d{}/{n}", n % 7), wanted).unwrap();
    }
    let each = (clock.monotonic() - start).as_nanos() / 20_000;
    println!("resolve with one chunk: {each} ns");
    audit(&rocks);
}
