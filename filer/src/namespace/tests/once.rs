//! Commands that act once, and the time that forgets them.

use super::*;

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

fn open(world: &mut World, from: u128, count: u128) -> Result<(), ErrorCode> {
    let sessions = (from..from + count).map(SessionId::from_random).collect();
    match world.op(Op::OpenSessions { sessions }) {
        Reply::Sessions(result) => result.map(|_| ()).map_err(|f| f.code),
        other => panic!("{other:?}"),
    }
}

fn use_session(world: &mut World, n: u128) -> Result<Answer, ErrorCode> {
    let mut command = world.command(Action::PutFile(put("a", NewContent::Empty)));
    command.session = SessionId::from_random(n);
    world.send(&command)
}

/// A tenant with as many sessions as there may be: those from 1000 on, opened a second after one another. The session of
/// the world itself is used last.
fn full_world() -> World {
    let mut world = World::new();
    for n in 0..u128::from(SESSIONS_MAX) - 1 {
        if n % 16 == 0 {
            world.wall_ms += 1000;
            world.op(Op::Tick);
        }
        open(&mut world, 1000 + n, 1).unwrap();
    }
    world.put("own", NewContent::Empty).unwrap();
    assert_eq!(world.counters().sessions, SESSIONS_MAX);
    world
}

#[test]
fn at_the_limit_the_longest_unused_session_makes_room() {
    let mut world = World::new();
    assert_eq!(open(&mut world, 1, 0), Err(ErrorCode::InvalidArgument));
    assert_eq!(open(&mut world, 1, u128::from(SESSIONS_PER_GRANT_MAX) + 1), Err(ErrorCode::InvalidArgument));
    let mut world = full_world();
    use_session(&mut world, 1001).unwrap();
    // Gateways start again and again: each takes the place of those that went away.
    open(&mut world, 10_000, 16).unwrap();
    audit(&world.rows);
    assert_eq!(use_session(&mut world, 1000), Err(ErrorCode::SessionExpired), "never used, and the oldest");
    assert_eq!(use_session(&mut world, 1016), Err(ErrorCode::SessionExpired));
    for stays in [1001, 1017, 10_000, 10_015] {
        assert!(use_session(&mut world, stays).is_ok(), "{stays}");
    }
    assert!(world.put("still", NewContent::Empty).is_ok());
    // What is over is swept at the next tick; opening the same ones once more ends none.
    open(&mut world, 10_000, 16).unwrap();
    assert_eq!(world.counters().sessions, SESSIONS_MAX + 16);
    world.op(Op::Expire);
    assert_eq!(world.counters().sessions, SESSIONS_MAX);
}

#[test]
fn a_session_in_use_is_never_ended_to_make_room() {
    let mut world = full_world();
    for n in 0..u128::from(SESSIONS_MAX) - 1 {
        use_session(&mut world, 1000 + n).unwrap();
    }
    assert_eq!(open(&mut world, 10_000, 1), Err(ErrorCode::Overloaded));
    // All but one were used long ago.
    world.advance(SESSION_IDLE_MIN.as_millis() as u64 - 1);
    assert_eq!(open(&mut world, 10_000, 1), Err(ErrorCode::Overloaded));
    use_session(&mut world, 1000).unwrap();
    world.advance(1);
    open(&mut world, 10_000, 1).unwrap();
    assert!(use_session(&mut world, 1000).is_ok());
    // Nor do those of one grant take each other's place.
    let mut world = full_world();
    for n in 8..u128::from(SESSIONS_MAX) - 1 {
        use_session(&mut world, 1000 + n).unwrap();
    }
    let before = dump(&world.rows);
    assert_eq!(open(&mut world, 10_000, 9), Err(ErrorCode::Overloaded));
    assert_eq!(dump(&world.rows), before, "a grant is refused as a whole");
    open(&mut world, 10_000, 8).unwrap();
}

#[test]
fn an_idempotency_key_acts_once_for_its_time() {
    let mut world = World::new();
    let key = |fingerprint| Some(Idempotency { key: "k-1".into(), fingerprint: [fingerprint; 32] });
    let wanted = |fingerprint| PutFile { idempotency: key(fingerprint), ..put("a", with_copy(1, 100)) };
    let first = world.act(Action::PutFile(wanted(1))).unwrap();
    world.act(delete("a", false)).unwrap();
    assert_eq!(world.act(Action::PutFile(wanted(1))), Ok(first), "another sequence, the same request");
    let checked = query::check_put(&world.rows, &TOKEN, &wanted(1), None, None).unwrap();
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

/// After a standstill the log time runs faster than the clock until it has caught up.
#[test]
fn lives_last_as_long_as_promised_while_the_log_time_catches_up() {
    let mut world = World::new();
    world.wall_ms += 10 * 3_600_000;
    let key = Some(Idempotency { key: "k".into(), fingerprint: [1; 32] });
    let wanted = PutFile { idempotency: key, ..put("a", with_copy(1, 100)) };
    let first = world.act(Action::PutFile(wanted.clone())).unwrap();
    let manifest = ManifestId::from_random(5);
    let chunks = vec![ChunkRef { chunk: chunk(2), new_copy: Some(copy(101)) }];
    let add = AddReferences { manifest, first_number: 0, first_offset: 0, chunks };
    world.act(Action::AddReferences(add)).unwrap();
    open(&mut world, 1000, 1).unwrap();
    let pass = |world: &mut World, seconds: u64| {
        for _ in 0..seconds / 10 {
            world.wall_ms += 10_000;
            world.op(Op::Tick);
            world.op(Op::Expire);
        }
    };
    pass(&mut world, IDEMPOTENCY_KEPT.as_secs() - 10);
    assert_eq!(world.act(Action::PutFile(wanted.clone())), Ok(first), "still known");
    pass(&mut world, 23 * 3600);
    assert_eq!(world.counters().manifests_unpublished, 1);
    assert!(use_session(&mut world, 1000).is_ok());
    // By then the log time has caught up, and all is over when it should be.
    pass(&mut world, 3600 + 10);
    assert_eq!((world.counters().manifests_unpublished, world.counters().sessions), (0, 0));
    // A clock that is wrong by years for a moment keeps nothing for years.
    let mut world = World::new();
    world.wall_ms += 20 * 365 * 24 * 3_600_000;
    open(&mut world, 1000, 1).unwrap();
    world.wall_ms = START_MS;
    world.advance((SESSION_TTL + LOG_TIME_LEAD_MAX).as_millis() as u64);
    world.op(Op::Expire);
    assert_eq!(world.counters().sessions, 0);
}

#[test]
fn a_begin_whose_answer_was_lost_gets_it_again() {
    let mut world = World::new();
    world.put("a", with_copy(1, 100)).unwrap();
    let wanted = PutFile {
        condition: Condition { if_none_match_any: true, ..Condition::default() },
        ..put("b", without_copy(1))
    };
    let known = Some(&wanted.content);
    let command = world.command(Action::PutFile(wanted.clone()));
    let numbered = Some((command.session, command.sequence));
    let before = query::check_put(&world.rows, &TOKEN, &wanted, known, numbered).unwrap();
    assert_eq!((before.answered, before.needs_no_bytes), (None, true));
    let answer = world.send(&command).unwrap();
    // The condition does not hold any more, because of this very put.
    let again = query::check_put(&world.rows, &TOKEN, &wanted, known, numbered).unwrap();
    assert_eq!(again.answered, Some(answer));
    let code = |session, sequence| match query::check_put(
        &world.rows,
        &TOKEN,
        &wanted,
        known,
        Some((session, sequence)),
    ) {
        Err(Refusal::Failure(failure)) => failure.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(command.session, command.sequence + 1), ErrorCode::PreconditionFailed);
    assert_eq!(code(SessionId::from_random(77), 1), ErrorCode::PreconditionFailed);
    let remove = world.command(delete("a", false));
    world.send(&remove).unwrap();
    let code = |sequence| match query::check_put(
        &world.rows,
        &TOKEN,
        &wanted,
        known,
        Some((command.session, sequence)),
    ) {
        Err(Refusal::Failure(failure)) => failure.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(remove.sequence), ErrorCode::InvalidArgument);
}
