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
