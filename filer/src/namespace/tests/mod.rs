use hay_common::error::ErrorCode;
use hay_common::ids::{ContentHash, CopyId, EntryId, ManifestId, PrincipalId, SessionId, TenantId};
use hay_common::limits::*;
use hay_common::model::{Chunk, Copy, CopyState, EntryKind};

use super::apply::Refusal;
use super::command::*;
use super::model::*;
use super::query::{self, ListQuery, WantedChunks};
use super::rows::MemoryRows;
use crate::schema::keys;
use crate::schema::values::*;

mod manifests;
mod once;

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
        let checked = query::check_put(&world.rows, &TOKEN, &wanted, None, None);
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

fn report(n: u64, copy_id: u128) -> Action {
    Action::ReportDamaged { hash: chunk(n).hash, copy: copy(copy_id).id }
}

fn copy_in_use(world: &World, n: u64) -> (CopyId, CopyState) {
    let own = OwnRow::decode(&world.rows[&keys::own(tenant(), &chunk(n).hash)]).unwrap();
    let row = CopyRow::decode(&world.rows[&keys::copy(&chunk(n).hash, own.copy)]).unwrap();
    (own.copy, row.copy.state)
}

#[test]
fn a_damaged_copy_is_read_on_and_replaced_by_the_next_upload() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    let wanted = WantedChunks { count: 1, ..WantedChunks::default() };
    let before = query::resolve(&world.rows, &TOKEN, "a", wanted).unwrap().1[0].copy;
    assert_eq!(world.act(report(1, 100)), Ok(Answer::Reported));
    assert_eq!(copy_in_use(&world, 1), (copy(100).id, CopyState::Damaged));
    assert_eq!(world.counters().delete_queue, 0, "it may be all there is");
    // It is read on: the fault may have passed.
    let after = query::resolve(&world.rows, &TOKEN, "a", wanted).unwrap().1[0].copy;
    assert_eq!((after.id, after.location), (before.id, before.location));
    // But nothing new relies on it, not even when its own commit is repeated.
    assert_eq!(query::find_own(&world.rows, &TOKEN, &[chunk(1).hash]).unwrap(), [false]);
    let known = without_copy(1);
    let checked = query::check_put(&world.rows, &TOKEN, &put("b", known), Some(&known), None).unwrap();
    assert!(!checked.needs_no_bytes);
    assert_eq!(world.put("b", without_copy(1)), Err(ErrorCode::CopyGone));
    assert_eq!(world.put("b", with_copy(1, 100)), Err(ErrorCode::CopyGone));
    // Bytes that come again heal every file of that content.
    world.put("b", with_copy(1, 101)).unwrap();
    assert_eq!(copy_in_use(&world, 1), (copy(101).id, CopyState::Live));
    let counters = world.counters();
    assert_eq!((counters.references, counters.copies, counters.delete_queue), (2, 2, 1));
    let healed = query::resolve(&world.rows, &TOKEN, "a", wanted).unwrap().1[0].copy;
    assert_eq!(healed.id, copy(101).id);
    // Told once more of the copy that was replaced: nothing to do.
    assert_eq!(world.act(report(1, 100)), Ok(Answer::Reported));
    assert_eq!(copy_in_use(&world, 1), (copy(101).id, CopyState::Live));
}

#[test]
fn a_damaged_copy_goes_with_its_last_reference_and_reports_of_others_change_nothing() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    let before = dump(&world.rows).remove(&keys::copy(&chunk(1).hash, copy(100).id));
    for elsewhere in [report(1, 999), report(2, 100)] {
        assert_eq!(world.act(elsewhere), Ok(Answer::Reported));
    }
    assert_eq!(dump(&world.rows).remove(&keys::copy(&chunk(1).hash, copy(100).id)), before);
    // Who may only read finds damage like anybody else.
    let mut command = world.command(report(1, 100));
    command.token = READER;
    assert_eq!(world.send(&command), Ok(Answer::Reported));
    assert_eq!(copy_in_use(&world, 1).1, CopyState::Damaged);
    let new = ChunkRef { chunk: chunk(2), new_copy: Some(Copy { state: CopyState::Damaged, ..copy(7) }) };
    assert_eq!(world.put("c", NewContent::Chunk(new)), Err(ErrorCode::InvalidArgument));
    world.act(delete("a", false)).unwrap();
    let counters = world.counters();
    assert_eq!((counters.contents_owned, counters.copies, counters.delete_queue), (0, 1, 1));
}

/// Two tenants that use one copy: it goes to the collector only when the second has let go of it too.
#[test]
fn a_damaged_copy_waits_for_all_who_point_to_it() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    let other = TokenHash([9; 32]);
    world.op(Op::Bootstrap(Bootstrap {
        tenant_name: "other".into(),
        tenant: TenantId::from_random(11),
        root: EntryId::from_random(12),
        principal: PrincipalId::from_random(13),
        token: other,
    }));
    let as_other = |world: &mut World, action| {
        let command = ClientCommand { token: other, ..world.command(action) };
        world.send(&command).unwrap()
    };
    as_other(&mut world, Action::PutFile(put("a", with_copy(1, 100))));
    world.act(report(1, 100)).unwrap();
    world.put("b", with_copy(1, 101)).unwrap();
    assert_eq!(world.counters().delete_queue, 0, "the other one has nothing else");
    as_other(&mut world, Action::PutFile(put("b", with_copy(1, 102))));
    let counters = world.counters();
    assert_eq!((counters.copies, counters.delete_queue, counters.references), (3, 1, 4));
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
    assert_eq!(
        code(query::check_put(rows, &READER, &wanted, None, None).map(|_| ())),
        Some(ErrorCode::Forbidden)
    );
    assert_eq!(code(query::resolve(rows, &READER, "a", WantedChunks::default()).map(|_| ())), None);
    let unauthenticated = [
        code(query::check_put(rows, &nobody, &wanted, None, None).map(|_| ())),
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
