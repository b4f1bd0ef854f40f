use hay_common::error::ErrorCode;
use hay_common::ids::{ContentHash, EntryId, ManifestId, PrincipalId, SessionId};
use hay_common::limits::*;
use hay_common::model::{Chunk, CopyState, EntryKind};

use super::apply::Refusal;
use super::command::*;
use super::model::*;
use super::query::{self, ListQuery, WantedChunks};
use super::rows::MemoryRows;
use crate::schema::keys;
use crate::schema::values::*;

/// A tenant with an open session, and commands numbered by themselves.
struct World {
    rows: MemoryRows,
    session: SessionId,
    sequence: u64,
    wall_ms: u64,
}

impl World {
    fn new() -> Self {
        let mut rows = MemoryRows::new();
        let session = SessionId::from_random(9);
        rows.apply(&[bootstrap()]);
        let mut world = Self { rows, session, sequence: 0, wall_ms: START_MS };
        assert!(matches!(world.op(Op::OpenSessions { sessions: vec![session] }), Reply::Sessions(Ok(_))));
        let reader = TokenRow {
            principal: PrincipalId::from_random(77),
            tenant: tenant(),
            administrator: false,
            access: Access::Read,
        };
        world.rows.insert(keys::token(&READER), reader.encode());
        world
    }

    fn op(&mut self, op: Op) -> Reply {
        self.rows.apply(&[Proposal { wall_ms: self.wall_ms, op }]).remove(0)
    }

    fn send(&mut self, command: &ClientCommand) -> Result<Answer, ErrorCode> {
        match self.op(Op::Client(command.clone())) {
            Reply::Client(result) => result.map_err(|f| f.code),
            other => panic!("{other:?}"),
        }
    }

    fn command(&mut self, action: Action) -> ClientCommand {
        self.sequence += 1;
        ClientCommand { token: TOKEN, session: self.session, sequence: self.sequence, action }
    }

    fn act(&mut self, action: Action) -> Result<Answer, ErrorCode> {
        let command = self.command(action);
        let result = self.send(&command);
        audit(&self.rows);
        result
    }

    fn put(&mut self, path: &str, content: NewContent) -> Result<Answer, ErrorCode> {
        self.act(Action::PutFile(put(path, content)))
    }

    fn mkdir(&mut self, path: &str, exist_ok: bool) -> Result<Answer, ErrorCode> {
        self.act(Action::MakeDirectory(MakeDirectory {
            path: path.to_owned(),
            entry_id: EntryId::from_random(0x3000),
            directory_seed: 0x4000,
            exist_ok,
            idempotency: None,
        }))
    }

    fn advance(&mut self, ms: u64) {
        let until = self.wall_ms + ms;
        while self.wall_ms < until {
            self.wall_ms = until.min(self.wall_ms + LOG_TIME_JUMP_MAX.as_millis() as u64);
            self.op(Op::Tick);
        }
    }

    fn counters(&self) -> Counters {
        audit(&self.rows)
    }

    fn resolve(&self, path: &str, wanted: WantedChunks) -> Result<(EntryKind, u64, Vec<u32>), ErrorCode> {
        match query::resolve(&self.rows, &TOKEN, path, wanted) {
            Ok((entry, chunks)) => Ok((entry.kind, entry.size, chunks.iter().map(|c| c.number).collect())),
            Err(Refusal::Failure(failure)) => Err(failure.code),
            Err(Refusal::Rows(error)) => panic!("{error}"),
        }
    }

    fn list(&self, directory: &str, recursive: bool, limit: usize, after: &str) -> (Vec<String>, bool) {
        let query = ListQuery { directory: directory.into(), recursive, limit, after: after.into() };
        let (entries, more) = query::list(&self.rows, &TOKEN, &query).unwrap();
        (entries.into_iter().map(|e| e.path).collect(), more)
    }
}

#[test]
fn what_may_stand_where() {
    let mut world = World::new();
    world.put("file", NewContent::Empty).unwrap();
    world.put("dir/inner", NewContent::Empty).unwrap();
    for (path, expected) in [
        ("file", Ok(())),
        ("new", Ok(())),
        ("x/y/z", Ok(())),
        ("file/below", Err(ErrorCode::NotDirectory)),
        ("file/far/below", Err(ErrorCode::NotDirectory)),
        ("dir", Err(ErrorCode::IsDirectory)),
        ("x/y", Err(ErrorCode::IsDirectory)),
        ("dir/", Err(ErrorCode::InvalidPath)),
        ("", Err(ErrorCode::InvalidPath)),
        ("a/../b", Err(ErrorCode::InvalidPath)),
        ("/a", Err(ErrorCode::InvalidPath)),
    ] {
        assert_eq!(world.put(path, NewContent::Empty).map(|_| ()), expected, "put {path:?}");
    }
    for (path, exist_ok, expected) in [
        ("dir/", true, Ok(())),
        ("dir/", false, Err(ErrorCode::IsDirectory)),
        ("", true, Ok(())),
        ("file/", true, Err(ErrorCode::NotDirectory)),
        ("file/sub/", true, Err(ErrorCode::NotDirectory)),
        ("m/n/o/", false, Ok(())),
        ("m/n/", false, Err(ErrorCode::IsDirectory)),
        ("m", false, Err(ErrorCode::InvalidPath)),
    ] {
        assert_eq!(world.mkdir(path, exist_ok).map(|_| ()), expected, "mkdir {path:?}");
    }
    for (path, expected) in [
        ("file", Ok(EntryKind::File)),
        ("dir/", Ok(EntryKind::Directory)),
        ("", Ok(EntryKind::Directory)),
        ("dir", Err(ErrorCode::IsDirectory)),
        ("file/", Err(ErrorCode::NotDirectory)),
        ("nothing", Err(ErrorCode::NotFound)),
        ("nothing/", Err(ErrorCode::NotFound)),
        ("file/below", Err(ErrorCode::NotFound)),
        ("..", Err(ErrorCode::InvalidPath)),
    ] {
        assert_eq!(world.resolve(path, WantedChunks::default()).map(|r| r.0), expected, "resolve {path:?}");
    }
    for (path, recursive, expected) in [
        ("nothing", false, Err(ErrorCode::NotFound)),
        ("dir", false, Err(ErrorCode::IsDirectory)),
        ("file/", false, Err(ErrorCode::NotDirectory)),
        ("dir/", false, Err(ErrorCode::DirectoryNotEmpty)),
        ("", true, Err(ErrorCode::InvalidPath)),
        ("dir/", true, Ok(Answer::Deleted { removed: 2, more: false })),
        ("m/n/o/", false, Ok(Answer::Deleted { removed: 1, more: false })),
        ("file", false, Ok(Answer::Deleted { removed: 1, more: false })),
        ("file", false, Err(ErrorCode::NotFound)),
    ] {
        assert_eq!(world.act(delete(path, recursive)), expected, "delete {path:?}");
    }
}

#[test]
fn conditions_of_a_put() {
    let (there, other) = (chunk(1).hash, chunk(2).hash);
    let condition = |m: &[ContentHash], m_any, n: &[ContentHash], n_any| Condition {
        if_match: m.to_vec(),
        if_match_any: m_any,
        if_none_match: n.to_vec(),
        if_none_match_any: n_any,
    };
    for (path, condition, holds) in [
        ("f", condition(&[there], false, &[], false), true),
        ("f", condition(&[other, there], false, &[], false), true),
        ("f", condition(&[other], false, &[], false), false),
        ("f", condition(&[], true, &[], false), true),
        ("f", condition(&[], false, &[there], false), false),
        ("f", condition(&[], false, &[other], false), true),
        ("f", condition(&[], false, &[], true), false),
        ("new", condition(&[], true, &[], false), false),
        ("new", condition(&[there], false, &[], false), false),
        ("new", condition(&[], false, &[there], false), true),
        ("new", condition(&[], false, &[], true), true),
    ] {
        let mut world = World::new();
        world.put("f", with_copy(1, 100)).unwrap();
        let wanted = PutFile { condition: condition.clone(), ..put(path, without_copy(1)) };
        let expected = if holds { Ok(()) } else { Err(ErrorCode::PreconditionFailed) };
        let checked = query::check_put(&world.rows, &TOKEN, &wanted, None);
        assert_eq!(checked.is_ok(), holds, "begin {path} {condition:?}");
        assert_eq!(world.act(Action::PutFile(wanted)).map(|_| ()), expected, "{path} {condition:?}");
    }
}

#[test]
fn a_replaced_file_keeps_its_id_and_drops_what_it_held() {
    let mut world = World::new();
    let Ok(Answer::Put { id, created: true, .. }) = world.put("f", with_copy(1, 100)) else { panic!() };
    let second = PutFile { entry_id: EntryId::from_random(0xbeef), ..put("f", with_copy(2, 101)) };
    let Ok(Answer::Put { id: same, created: false, .. }) = world.act(Action::PutFile(second)) else {
        panic!()
    };
    assert_eq!(id, same);
    let counters = world.counters();
    assert_eq!((counters.references, counters.copies, counters.delete_queue), (1, 2, 1));
    // The content that was dropped is not the tenant's any more.
    assert_eq!(world.put("g", without_copy(1)), Err(ErrorCode::CopyGone));
    assert_eq!(world.resolve("f", WantedChunks { count: 9, ..Default::default() }).unwrap().1, 102);
}

#[test]
fn the_same_content_is_held_once_and_counted_twice() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    world.put("b", without_copy(1)).unwrap();
    let counters = world.counters();
    assert_eq!((counters.contents_owned, counters.references, counters.copies), (1, 2, 1));
    world.act(delete("a", false)).unwrap();
    assert_eq!(world.counters().delete_queue, 0);
    world.act(delete("b", false)).unwrap();
    let counters = world.counters();
    assert_eq!((counters.contents_owned, counters.references, counters.delete_queue), (0, 0, 1));
    assert_eq!(query::find_own(&world.rows, &TOKEN, &[chunk(1).hash]).unwrap(), [false]);
}

#[test]
fn a_second_upload_of_the_same_content_does_not_leak() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    world.put("b", with_copy(1, 101)).unwrap();
    let counters = world.counters();
    assert_eq!(
        (counters.copies, counters.copy_bytes, counters.delete_queue, counters.references),
        (2, 100, 1, 2)
    );
    // The very copy that the tenant uses comes again, under another session: it must not be queued.
    world.put("c", with_copy(1, 100)).unwrap();
    let counters = world.counters();
    assert_eq!((counters.copies, counters.delete_queue, counters.references), (2, 1, 3));
}

#[test]
fn a_condemned_copy_is_not_relied_on() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    let key = keys::copy(&chunk(1).hash, copy(100).id);
    let mut row = CopyRow::decode(&world.rows[&key]).unwrap();
    row.copy.state = CopyState::Condemned;
    world.rows.insert(key, row.encode());
    assert_eq!(query::find_own(&world.rows, &TOKEN, &[chunk(1).hash]).unwrap(), [false]);
    assert_eq!(world.put("b", without_copy(1)), Err(ErrorCode::CopyGone));
    assert_eq!(world.put("b", with_copy(1, 100)), Err(ErrorCode::CopyGone));
    // The row moves to the copy that came; the condemned one is the collector's.
    let command = world.command(Action::PutFile(put("b", with_copy(1, 102))));
    assert!(world.send(&command).is_ok());
    let own = OwnRow::decode(&world.rows[&keys::own(tenant(), &chunk(1).hash)]).unwrap();
    assert_eq!((own.references, own.copy), (2, copy(102).id));
}

#[test]
fn chunks_of_impossible_sizes_are_refused() {
    let mut world = World::new();
    for size in [0, CHUNK_BYTES_MAX as u32 + 1] {
        let wanted = ChunkRef { chunk: Chunk { size, ..chunk(1) }, new_copy: Some(copy(1)) };
        assert_eq!(world.put("a", NewContent::Chunk(wanted)), Err(ErrorCode::InvalidArgument));
    }
    world.put("a", with_copy(1, 100)).unwrap();
    let other = ChunkRef { chunk: Chunk { size: 5, ..chunk(1) }, new_copy: None };
    assert_eq!(world.put("b", NewContent::Chunk(other)), Err(ErrorCode::InvalidArgument));
}

#[test]
fn a_repeated_command_acts_once() {
    let mut world = World::new();
    let first = world.command(Action::PutFile(put("a", with_copy(1, 100))));
    let answer = world.send(&first).unwrap();
    let remove = world.command(delete("a", false));
    world.send(&remove).unwrap();
    // The late twin of the put must not bring the file back.
    assert_eq!(world.send(&first), Ok(answer));
    assert_eq!(world.resolve("a", WantedChunks::default()), Err(ErrorCode::NotFound));
    assert_eq!(world.send(&remove), Ok(Answer::Deleted { removed: 1, more: false }));
    // Another command under a used sequence is an error, never applied.
    let other = ClientCommand { action: delete("b", false), ..first.clone() };
    assert_eq!(world.send(&other), Err(ErrorCode::InvalidArgument));
    assert_eq!(world.send(&ClientCommand { sequence: 0, ..first }), Err(ErrorCode::InvalidArgument));
}

#[test]
fn a_refused_command_leaves_its_sequence_and_no_trace() {
    let mut world = World::new();
    let before = dump(&world.rows);
    let refused = world.command(Action::PutFile(put("x/y/a", without_copy(1))));
    assert_eq!(world.send(&refused), Err(ErrorCode::CopyGone));
    assert_eq!(dump(&world.rows), before);
    let with = ClientCommand { action: Action::PutFile(put("x/y/a", with_copy(1, 100))), ..refused };
    assert!(world.send(&with).is_ok());
}

#[test]
fn commands_below_the_window_are_refused() {
    let mut world = World::new();
    let mut numbered = |sequence, path: &str| {
        let action = Action::PutFile(put(path, NewContent::Empty));
        let command = ClientCommand { token: TOKEN, session: world.session, sequence, action };
        world.send(&command).map(|_| ())
    };
    assert_eq!(numbered(1, "a"), Ok(()));
    assert_eq!(numbered(SESSION_WINDOW, "b"), Ok(()));
    assert_eq!(numbered(1, "a"), Ok(()), "kept");
    assert_eq!(numbered(SESSION_WINDOW + 1, "c"), Ok(()));
    assert_eq!(numbered(1, "a"), Err(ErrorCode::SequencePassed));
    assert_eq!(numbered(2, "d"), Ok(()), "late but in the window");
    assert_eq!(numbered(10 * SESSION_WINDOW, "e"), Ok(()));
    for passed in [1, 2, SESSION_WINDOW, SESSION_WINDOW + 1, 9 * SESSION_WINDOW] {
        assert_eq!(numbered(passed, "f"), Err(ErrorCode::SequencePassed), "{passed}");
    }
    assert_eq!(numbered(9 * SESSION_WINDOW + 1, "g"), Ok(()));
    let answers = rows_of::<Answer>(&dump(&world.rows), keys::Family::Answer);
    assert_eq!(answers.len(), 2, "answers below the window are forgotten");
}

#[test]
fn sessions_end_in_log_time_and_are_swept() {
    let mut world = World::new();
    for n in 0..3000 {
        let command = world.command(Action::PutFile(put(&format!("{n}"), NewContent::Empty)));
        world.send(&command).unwrap();
    }
    world.advance(SESSION_TTL.as_millis() as u64 - 1);
    assert!(world.put("still", NewContent::Empty).is_ok());
    world.advance(1);
    assert_eq!(world.put("over", NewContent::Empty), Err(ErrorCode::SessionExpired));
    let mut rounds = 0;
    while let Reply::Swept { more: true, .. } = world.op(Op::Expire) {
        rounds += 1;
        audit(&world.rows);
    }
    assert!(rounds >= 2, "bounded by EXPIRE_BATCH_MAX");
    assert_eq!(world.counters().sessions, 0);
    assert!(rows_of::<Answer>(&dump(&world.rows), keys::Family::Answer).is_empty());
    assert_eq!(world.put("unknown", NewContent::Empty), Err(ErrorCode::SessionExpired));
}

#[test]
fn there_are_only_so_many_sessions() {
    let mut world = World::new();
    let mut next = 1000u128;
    let mut open = |world: &mut World, count: u32| {
        let sessions = (0..count)
            .map(|_| {
                SessionId::from_random({
                    next += 1;
                    next
                })
            })
            .collect();
        match world.op(Op::OpenSessions { sessions }) {
            Reply::Sessions(result) => result.map(|_| ()).map_err(|f| f.code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(open(&mut world, 0), Err(ErrorCode::InvalidArgument));
    assert_eq!(open(&mut world, SESSIONS_PER_GRANT_MAX + 1), Err(ErrorCode::InvalidArgument));
    for _ in 0..(SESSIONS_MAX - 1) / u64::from(SESSIONS_PER_GRANT_MAX) {
        open(&mut world, SESSIONS_PER_GRANT_MAX).unwrap();
    }
    assert_eq!(open(&mut world, SESSIONS_PER_GRANT_MAX), Err(ErrorCode::Overloaded));
    open(&mut world, SESSIONS_PER_GRANT_MAX - 1).unwrap();
    assert_eq!(world.counters().sessions, SESSIONS_MAX);
}

#[test]
fn an_idempotency_key_acts_once_for_its_time() {
    let mut world = World::new();
    let key = |fingerprint| Some(Idempotency { key: "k-1".into(), fingerprint: [fingerprint; 32] });
    let wanted = |fingerprint| PutFile { idempotency: key(fingerprint), ..put("a", with_copy(1, 100)) };
    let first = world.act(Action::PutFile(wanted(1))).unwrap();
    world.act(delete("a", false)).unwrap();
    assert_eq!(world.act(Action::PutFile(wanted(1))), Ok(first), "another sequence, the same request");
    let checked = query::check_put(&world.rows, &TOKEN, &wanted(1), None).unwrap();
    assert_eq!(checked.answered, Some(first));
    assert_eq!(world.act(Action::PutFile(wanted(2))), Err(ErrorCode::IdempotencyConflict));
    let remove = Action::Delete(Delete {
        path: "a".into(),
        condition: Condition::default(),
        recursive: false,
        idempotency: key(1),
    });
    assert_eq!(world.act(remove), Err(ErrorCode::InvalidArgument), "a put's answer is none of a delete");
    world.advance(IDEMPOTENCY_KEPT.as_millis() as u64);
    assert!(matches!(world.act(Action::PutFile(wanted(2))), Ok(Answer::Put { created: true, .. })));
    world.advance(IDEMPOTENCY_KEPT.as_millis() as u64);
    world.op(Op::Expire);
    audit(&world.rows);
    assert!(rows_of::<IdempotencyRow>(&dump(&world.rows), keys::Family::Idempotency).is_empty());
}

#[test]
fn who_may_do_what() {
    let mut world = World::new();
    world.put("a", NewContent::Empty).unwrap();
    let mut command = world.command(delete("a", false));
    command.token = READER;
    assert_eq!(world.send(&command), Err(ErrorCode::Forbidden));
    command.token = TokenHash([99; 32]);
    assert_eq!(world.send(&command), Err(ErrorCode::Unauthenticated));
    let code = |result: Result<_, Refusal>| match result {
        Ok(_) => None,
        Err(Refusal::Failure(f)) => Some(f.code),
        Err(Refusal::Rows(error)) => panic!("{error}"),
    };
    let nobody = TokenHash([99; 32]);
    let rows = &world.rows;
    let wanted = put("b", NewContent::Empty);
    assert_eq!(code(query::check_put(rows, &READER, &wanted, None).map(|_| ())), Some(ErrorCode::Forbidden));
    assert_eq!(code(query::resolve(rows, &READER, "a", WantedChunks::default()).map(|_| ())), None);
    let unauthenticated = [
        code(query::check_put(rows, &nobody, &wanted, None).map(|_| ())),
        code(query::resolve(rows, &nobody, "a", WantedChunks::default()).map(|_| ())),
        code(query::list(rows, &nobody, &ListQuery::default()).map(|_| ())),
        code(query::find_own(rows, &nobody, &[]).map(|_| ())),
        code(query::read_manifest(rows, &nobody, ManifestId::from_random(1), 0, 1).map(|_| ())),
        code(query::whoami(rows, &nobody).map(|_| ())),
    ];
    assert_eq!(unauthenticated, [Some(ErrorCode::Unauthenticated); 6]);
    assert_eq!(query::whoami(rows, &TOKEN).unwrap().tenant_name, "default");
}

#[test]
fn a_bootstrap_may_be_repeated() {
    let mut world = World::new();
    let before = dump(&world.rows);
    let reply = world.rows.apply(&[bootstrap()]).remove(0);
    assert!(matches!(reply, Reply::Bootstrapped(Ok(Bootstrapped { created: false, .. }))));
    assert_eq!(dump(&world.rows), before);
    for name in ["", "a/b"] {
        let Op::Bootstrap(wanted) = bootstrap().op else { panic!() };
        let reply = world.op(Op::Bootstrap(Bootstrap { tenant_name: name.into(), ..wanted }));
        assert!(matches!(reply, Reply::Bootstrapped(Err(_))));
    }
}

fn add(manifest: u128, first: u32, offset: u64, chunks: &[u64]) -> Action {
    let one = |n: &u64| ChunkRef { chunk: chunk(*n), new_copy: Some(copy(u128::from(*n) + 500)) };
    Action::AddReferences(AddReferences {
        manifest: ManifestId::from_random(manifest),
        first_number: first,
        first_offset: offset,
        chunks: chunks.iter().map(one).collect(),
    })
}

fn manifest(id: u128, chunk_count: u32, size: u64) -> NewContent {
    NewContent::Manifest { id: ManifestId::from_random(id), root: ContentHash([9; 32]), chunk_count, size }
}

#[test]
fn a_manifest_takes_batches_that_fit() {
    let mut world = World::new();
    // Chunks 1..=4 have 101..=104 bytes.
    for (action, expected) in [
        (add(1, 1, 5, &[]), Err(ErrorCode::InvalidArgument)),
        (add(1, 0, 7, &[1]), Err(ErrorCode::InvalidArgument)),
        (add(1, 2, 203, &[3]), Ok(Answer::Added)),
        (add(1, 0, 0, &[1, 2, 3]), Err(ErrorCode::InvalidArgument)),
        (add(1, 1, 0, &[2]), Err(ErrorCode::InvalidArgument)),
        (add(1, 1, 101, &[2]), Ok(Answer::Added)),
        (add(1, 1, 101, &[2]), Ok(Answer::Added)),
        (add(1, 1, 101, &[3]), Err(ErrorCode::InvalidArgument)),
        (add(1, FILE_CHUNKS_MAX, 0, &[1]), Err(ErrorCode::TooLarge)),
        (Action::PutFile(put("f", manifest(1, 3, 306))), Err(ErrorCode::InvalidArgument)),
        (add(1, 0, 0, &[1]), Ok(Answer::Added)),
        (Action::PutFile(put("f", manifest(1, 3, 305))), Err(ErrorCode::InvalidArgument)),
        (Action::PutFile(put("f", manifest(1, 2, 306))), Err(ErrorCode::InvalidArgument)),
        (Action::PutFile(put("f", manifest(2, 3, 306))), Err(ErrorCode::CopyGone)),
    ] {
        assert_eq!(world.act(action.clone()), expected, "{action:?}");
    }
    world.put("f", manifest(1, 3, 306)).unwrap();
    assert_eq!(world.act(add(1, 3, 306, &[4])), Err(ErrorCode::InvalidArgument), "published");
    let abandon = Action::AbandonManifest { manifest: ManifestId::from_random(1) };
    assert_eq!(world.act(abandon), Err(ErrorCode::InvalidArgument));
    assert_eq!(world.counters().references, 3);
}

#[test]
fn ranges_of_a_large_file_are_found() {
    let mut world = World::new();
    // Rows of unequal lengths, chunks of unequal sizes.
    let (mut number, mut offset, mut starts) = (0u32, 0u64, Vec::new());
    for len in [1usize, 64, 2, 33, 64, 64, 5, 64, 1] {
        let chunks: Vec<u64> = (0..len as u64).map(|n| (u64::from(number) + n) * 37 % 5000).collect();
        world.act(add(1, number, offset, &chunks)).unwrap();
        for n in &chunks {
            starts.push(offset);
            offset += u64::from(chunk(*n).size);
        }
        number += len as u32;
    }
    world.put("big", manifest(1, number, offset)).unwrap();
    for (nth, start) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).copied().unwrap_or(offset);
        for at in [*start, end - 1] {
            let wanted = WantedChunks { offset: at, suffix: None, count: 2 };
            let (_, size, numbers) = world.resolve("big", wanted).unwrap();
            let expected: Vec<u32> = (nth as u32..number.min(nth as u32 + 2)).collect();
            assert_eq!((size, numbers), (offset, expected), "byte {at}");
        }
    }
    let suffix = |bytes| WantedChunks { offset: 3, suffix: Some(bytes), count: 99 };
    assert_eq!(world.resolve("big", suffix(1)).unwrap().2, [number - 1]);
    assert_eq!(world.resolve("big", suffix(0)).unwrap().2, [0u32; 0]);
    assert_eq!(world.resolve("big", suffix(u64::MAX)).unwrap().2.len(), REFS_PER_ROW_MAX);
    let beyond = WantedChunks { offset, suffix: None, count: 1 };
    assert!(world.resolve("big", beyond).unwrap().2.is_empty());
    // Pages of the manifest, from any number.
    let id = ManifestId::from_random(1);
    let mut seen = Vec::new();
    while (seen.len() as u32) < number {
        let page = query::read_manifest(&world.rows, &TOKEN, id, seen.len() as u32, 50).unwrap();
        assert!(!page.is_empty() && page.len() <= 50);
        seen.extend(page);
    }
    assert_eq!(seen.iter().map(|c| c.offset).collect::<Vec<_>>(), starts);
    assert!(query::read_manifest(&world.rows, &TOKEN, id, number, 50).unwrap().is_empty());
    assert!(query::read_manifest(&world.rows, &TOKEN, ManifestId::from_random(8), 0, 1).is_err());
}

#[test]
fn draining_goes_in_bounded_pieces() {
    let mut world = World::new();
    let rows = DRAIN_BATCH_MAX as u32 / 64 * 2 + 1;
    for row in 0..rows {
        let (first, offset) = (row * 64, u64::from(row) * 64 * 101);
        let command = world.command(add(1, first, offset, &[1; 64]));
        world.send(&command).unwrap();
    }
    let (count, size) = (rows * 64, u64::from(rows) * 64 * 101);
    world.put("big", manifest(1, count, size)).unwrap();
    world.put("small", without_copy(1)).unwrap();
    world.act(delete("big", false)).unwrap();
    assert_eq!(world.counters().references, u64::from(count) + 1);
    let mut pieces = Vec::new();
    loop {
        let Reply::Swept { done, more } = world.op(Op::Drain) else { panic!() };
        audit(&world.rows);
        pieces.push(done);
        if !more {
            break;
        }
    }
    assert_eq!(pieces, [1024, 1024, 64]);
    let counters = world.counters();
    assert_eq!((counters.references, counters.manifests_draining, counters.delete_queue), (1, 0, 0));
}

#[test]
fn an_upload_that_nobody_finishes_is_given_up() {
    let mut world = World::new();
    world.act(add(1, 0, 0, &[1, 2])).unwrap();
    world.advance(MANIFEST_TTL.as_millis() as u64 / 2);
    world.op(Op::OpenSessions { sessions: vec![SessionId::from_random(10)] });
    world.session = SessionId::from_random(10);
    world.act(add(1, 2, 203, &[3])).unwrap();
    world.advance(MANIFEST_TTL.as_millis() as u64 - 1);
    world.op(Op::Expire);
    assert_eq!(world.counters().manifests_unpublished, 1, "each batch renews it");
    world.advance(1);
    world.op(Op::Expire);
    assert_eq!(world.counters().manifests_draining, 1);
    world.op(Op::Drain);
    let counters = world.counters();
    assert_eq!((counters.references, counters.delete_queue, counters.manifests_draining), (0, 3, 0));
}

#[test]
fn a_recursive_delete_goes_in_batches_and_keeps_parents() {
    let mut world = World::new();
    let count = DELETE_BATCH_MAX * 2 + 7;
    for n in 0..count {
        let path = format!("d/{}/{n}", n % 9);
        let command = world.command(Action::PutFile(put(&path, NewContent::Empty)));
        world.send(&command).unwrap();
    }
    world.put("d-beside", NewContent::Empty).unwrap();
    let remove = |world: &mut World| {
        world.act(Action::Delete(Delete {
            path: "d/".into(),
            condition: Condition::default(),
            recursive: true,
            idempotency: Some(Idempotency { key: "once".into(), fingerprint: [1; 32] }),
        }))
    };
    let mut removed = Vec::new();
    loop {
        let Ok(Answer::Deleted { removed: now, more }) = remove(&mut world) else { panic!() };
        removed.push(now as usize);
        if !more {
            break;
        }
    }
    assert_eq!(removed, [DELETE_BATCH_MAX, DELETE_BATCH_MAX, 7 + 10]);
    assert_eq!(remove(&mut world), Ok(Answer::Deleted { removed: 17, more: false }), "asked again");
    assert_eq!(world.list("", true, 0, "").0, ["d-beside"]);
}

#[test]
fn listings_in_pages() {
    let mut world = World::new();
    for path in ["a", "b/1", "b/2", "b/c/3", "b-", "b0", "z/y/x"] {
        world.put(path, NewContent::Empty).unwrap();
    }
    let list = |d: &str, r, l, a: &str| {
        let (names, more) = world.list(d, r, l, a);
        (names.join(" "), more)
    };
    for (directory, recursive, limit, after, expected, more) in [
        ("", false, 0, "", "a b- b/ b0 z/", false),
        ("", false, 3, "", "a b- b/", true),
        ("", false, 3, "b/", "b0 z/", false),
        ("", false, 1, "b/1", "b0", true),
        ("", false, 1, "aa", "b-", true),
        ("", true, 0, "", "a b- b/ b/1 b/2 b/c/ b/c/3 b0 z/ z/y/ z/y/x", false),
        ("", true, 2, "b/", "b/1 b/2", true),
        ("b/", false, 0, "", "b/1 b/2 b/c/", false),
        ("b/", true, 0, "2", "b/c/ b/c/3", false),
        ("b/", true, 0, "zzz", "", false),
        ("z/y/", false, 5, "", "z/y/x", false),
    ] {
        assert_eq!(
            list(directory, recursive, limit, after),
            (expected.to_owned(), more),
            "{directory:?} {recursive} {limit} {after:?}"
        );
    }
    for (directory, code) in
        [("nothing/", ErrorCode::NotFound), ("a/", ErrorCode::NotDirectory), ("a", ErrorCode::InvalidPath)]
    {
        let query = ListQuery { directory: directory.into(), ..Default::default() };
        let Err(Refusal::Failure(failure)) = query::list(&world.rows, &TOKEN, &query) else { panic!() };
        assert_eq!(failure.code, code, "{directory:?}");
    }
}

#[test]
fn the_log_time_never_goes_back_and_follows_jumps_in_steps() {
    let mut world = World::new();
    let step = LOG_TIME_JUMP_MAX.as_millis() as u64;
    let mut tick = |wall_ms| match world.rows.apply(&[Proposal { wall_ms, op: Op::Tick }]).remove(0) {
        Reply::Ticked { log_ms, behind_ms } => (log_ms - START_MS, behind_ms),
        other => panic!("{other:?}"),
    };
    assert_eq!(tick(START_MS + 10), (10, 0));
    assert_eq!(tick(START_MS - 5000), (10, 0));
    assert_eq!(tick(START_MS + 10 + step), (10 + step, 0));
    assert_eq!(tick(START_MS + 10 + 4 * step), (10 + 2 * step, 2 * step));
    assert_eq!(tick(START_MS + 10 + 4 * step), (10 + 3 * step, step));
    assert_eq!(tick(START_MS + 10 + 4 * step), (10 + 4 * step, 0));
}

#[test]
fn attributes_have_limits() {
    let mut world = World::new();
    let pairs = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), "v".to_owned())).collect::<Vec<_>>();
    let many: Vec<(String, String)> = (0..65).map(|n| (format!("{n:03}"), String::new())).collect();
    let large = vec![("k".to_owned(), "v".repeat(USER_METADATA_BYTES_MAX))];
    for (metadata, expected) in [
        (pairs(&["a", "b"]), Ok(())),
        (pairs(&["b", "a"]), Err(ErrorCode::InvalidArgument)),
        (pairs(&["a", "a"]), Err(ErrorCode::InvalidArgument)),
        (pairs(&["A"]), Err(ErrorCode::InvalidArgument)),
        (pairs(&[""]), Err(ErrorCode::InvalidArgument)),
        (many, Err(ErrorCode::TooLarge)),
        (large, Err(ErrorCode::TooLarge)),
    ] {
        let wanted = PutFile { user_metadata: metadata.clone(), ..put("f", NewContent::Empty) };
        assert_eq!(world.act(Action::PutFile(wanted)).map(|_| ()), expected, "{metadata:?}");
    }
    let wanted = PutFile { content_type: Some("x".repeat(256)), ..put("f", NewContent::Empty) };
    assert_eq!(world.act(Action::PutFile(wanted)), Err(ErrorCode::TooLarge));
    let wanted = PutFile {
        content_type: Some("text/plain".into()),
        user_metadata: pairs(&["a"]),
        ..put("f", NewContent::Empty)
    };
    world.act(Action::PutFile(wanted)).unwrap();
    let (entry, _) = query::resolve(&world.rows, &TOKEN, "f", WantedChunks::default()).unwrap();
    assert_eq!((entry.content_type.as_deref(), entry.user_metadata), (Some("text/plain"), pairs(&["a"])));
}

#[test]
fn random_histories_agree_with_the_reference() {
    for seed in 0..60 {
        let run = std::panic::catch_unwind(|| {
            let mut rows = MemoryRows::new();
            let mut history = History::new(&mut rows, seed);
            history.run(150);
            history.finish();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
