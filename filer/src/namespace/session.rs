//! Commands that act once: sessions, the answers that are kept, `Idempotency-Key`s.
//!
//! Only what took effect is recorded: a command that was refused changed nothing, so its sequence may be used again
//! (a `Begin` that found no copy is followed by a commit of the same sequence), and it still takes effect at most once.

use hay_common::error::ErrorCode;
use hay_common::ids::SessionId;
use hay_common::limits::{
    IDEMPOTENCY_KEPT, IDEMPOTENCY_KEY_BYTES_MAX, SESSION_IDLE_MIN, SESSION_TTL, SESSION_WINDOW, SESSIONS_MAX,
    SESSIONS_PER_GRANT_MAX,
};

use super::apply::{Applied, Context, refuse};
use super::command::{Action, ClientCommand, Idempotency, SessionsOpened};
use super::rows::{Order, Rows, RowsError, Walk, keys_of, read};
use crate::schema::keys::{self, Family};
use crate::schema::values::{Answer, IdempotencyRow, Mark, Row, SessionRow, TokenRow};

/// Whether a command is to be applied.
pub(super) enum Admission {
    /// It took effect before; this was the answer.
    Answered(Answer),
    /// It is new.
    New(Admitted),
}

/// What [`record`] needs of [`admit`].
pub(super) struct Admitted {
    session: SessionRow,
    /// A row under the same `Idempotency-Key` whose time is over but which was not yet swept.
    stale: Option<IdempotencyRow>,
}

/// Opens sessions. Those that are open already stay as they are.
pub(super) fn open(context: &mut Context<'_, '_>, sessions: &[SessionId]) -> Applied<SessionsOpened> {
    if sessions.is_empty() || sessions.len() > SESSIONS_PER_GRANT_MAX as usize {
        return refuse(
            ErrorCode::InvalidArgument,
            format!(
                "between 1 and {SESSIONS_PER_GRANT_MAX} sessions are opened at once, not {}",
                sessions.len()
            ),
        );
    }
    let expires_ms = context.lives_until(SESSION_TTL);
    for id in sessions {
        if context.exists(&keys::session(*id))? {
            continue;
        }
        make_room(context, sessions)?;
        let row = SessionRow { expires_ms, highest: 0, used_ms: context.log_ms };
        context.batch.put(keys::session(*id), &row);
        context.batch.put(keys::session_expiry(expires_ms, *id), &Mark);
        context.count(|c| c.sessions += 1)?;
    }
    Ok(SessionsOpened { expires_ms, log_ms: context.log_ms })
}

/// Makes sure that one more session may be opened. At the limit the one that was not used for longest is over: whoever
/// opened it went away without a word, else it would have been used. Its rows are swept like those of any that is over.
/// Those that are being `granted` take no place from each other.
fn make_room(context: &mut Context<'_, '_>, granted: &[SessionId]) -> Applied<()> {
    let counters = context.counters()?;
    if counters.sessions < SESSIONS_MAX {
        return Ok(());
    }
    if counters.sessions >= 2 * SESSIONS_MAX {
        return refuse(
            ErrorCode::Overloaded,
            "too many ingest sessions wait to be swept: try again in a moment",
        );
    }
    let idle_since = context.log_ms.checked_sub(SESSION_IDLE_MIN.as_millis() as u64);
    let (mut open, mut longest_unused): (u64, Option<(u64, SessionId)>) = (0, None);
    context.batch.walk(&keys::all(Family::Session), Order::Forward, &mut |key, value| {
        let row = SessionRow::decode(value)?;
        if row.expires_ms > context.log_ms {
            open += 1;
            let may_end = row.highest == 0 || Some(row.used_ms) <= idle_since;
            let id = keys::session_in(key).filter(|id| may_end && !granted.contains(id));
            let unused = id.map(|id| (row.used_ms, id));
            if let Some(unused) =
                unused.filter(|unused| longest_unused.is_none_or(|longest| *unused < longest))
            {
                longest_unused = Some(unused);
            }
        }
        Ok(Walk::On)
    })?;
    if open < SESSIONS_MAX {
        return Ok(());
    }
    match longest_unused {
        Some((_, id)) => Ok(end(context, id)?),
        None => refuse(
            ErrorCode::Overloaded,
            format!("{SESSIONS_MAX} ingest sessions are open and in use already"),
        ),
    }
}

/// Lets a session be over now.
fn end(context: &mut Context<'_, '_>, id: SessionId) -> Result<(), RowsError> {
    let key = keys::session(id);
    if let Some(mut row) = context.read::<SessionRow>(&key)? {
        tracing::warn!(session = %id, used_ms = row.used_ms, "an unused ingest session was ended to make room");
        context.batch.remove(keys::session_expiry(row.expires_ms, id));
        row.expires_ms = context.log_ms;
        context.batch.put(keys::session_expiry(row.expires_ms, id), &Mark);
        context.batch.put(key, &row);
    }
    Ok(())
}

/// Decides whether a command is new, was answered before, or can't be told any more.
pub(super) fn admit(
    context: &Context<'_, '_>,
    command: &ClientCommand,
    who: &TokenRow,
) -> Applied<Admission> {
    let Some(session) = context.read::<SessionRow>(&keys::session(command.session))? else {
        return refuse(ErrorCode::SessionExpired, "the ingest session is not known, or over: open another");
    };
    if session.expires_ms <= context.log_ms {
        return refuse(ErrorCode::SessionExpired, "the ingest session is over: open another");
    }
    if let Some(answer) = answered(context.batch, &session, command.session, command.sequence)? {
        return repeated(&command.action, answer).map(Admission::Answered);
    }
    let stale = match command.action.idempotency() {
        None => None,
        Some(wanted) => match asked_before(context.batch, who, wanted, context.log_ms)? {
            Asked::Answered(answer) => return repeated(&command.action, answer).map(Admission::Answered),
            Asked::Stale(row) => Some(row),
            Asked::Never => None,
        },
    };
    Ok(Admission::New(Admitted { session, stale }))
}

/// The answer that was given under a sequence.
fn answered(rows: &dyn Rows, session: &SessionRow, id: SessionId, sequence: u64) -> Applied<Option<Answer>> {
    if sequence == 0 {
        return refuse(ErrorCode::InvalidArgument, "sequences begin at 1");
    }
    if sequence.saturating_add(SESSION_WINDOW) <= session.highest {
        return refuse(
            ErrorCode::SequencePassed,
            "the command is older than the answers that are kept; whether it was applied can't be told any more",
        );
    }
    if sequence > session.highest {
        return Ok(None);
    }
    Ok(read(rows, &keys::answer(id, sequence))?)
}

/// The answer to a put that took effect under a sequence. A session that is not known is none of this one's business: the
/// commit is refused.
pub(super) fn put_before(rows: &dyn Rows, id: SessionId, sequence: u64) -> Applied<Option<Answer>> {
    let Some(session) = read::<SessionRow>(rows, &keys::session(id))? else { return Ok(None) };
    match answered(rows, &session, id, sequence)? {
        None => Ok(None),
        Some(answer @ Answer::Put { .. }) => Ok(Some(answer)),
        Some(_) => another(),
    }
}

fn another<T>() -> Applied<T> {
    refuse(ErrorCode::InvalidArgument, "the sequence was used for another command")
}

fn repeated(action: &Action, answer: Answer) -> Applied<Answer> {
    if action.could_answer(&answer) { Ok(answer) } else { another() }
}

/// What is known of an `Idempotency-Key`.
pub(super) enum Asked {
    /// Nothing.
    Never,
    /// Only what may be forgotten.
    Stale(IdempotencyRow),
    /// The same request took effect.
    Answered(Answer),
}

/// Looks an `Idempotency-Key` up.
///
/// # Errors
/// `idempotency_conflict` where another request came with it.
pub(super) fn asked_before(
    rows: &dyn Rows,
    who: &TokenRow,
    wanted: &Idempotency,
    log_ms: u64,
) -> Applied<Asked> {
    if wanted.key.is_empty() || wanted.key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return refuse(
            ErrorCode::InvalidArgument,
            format!("an Idempotency-Key has between 1 and {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
        );
    }
    match read::<IdempotencyRow>(rows, &keys::idempotency(who.principal, &wanted.key))? {
        None => Ok(Asked::Never),
        Some(row) if row.expires_ms <= log_ms => Ok(Asked::Stale(row)),
        Some(row) if row.fingerprint == wanted.fingerprint => Ok(Asked::Answered(row.answer)),
        Some(_) => refuse(
            ErrorCode::IdempotencyConflict,
            "the Idempotency-Key came before with another request: use a new key",
        ),
    }
}

/// Keeps the answer to a command that takes effect.
pub(super) fn record(
    context: &mut Context<'_, '_>,
    command: &ClientCommand,
    who: &TokenRow,
    admitted: &mut Admitted,
    answer: Answer,
) -> Result<(), RowsError> {
    let session = &mut admitted.session;
    if command.sequence > session.highest {
        forget_below(context, command.session, session.highest, command.sequence)?;
    }
    if command.sequence > session.highest || session.used_ms != context.log_ms {
        session.highest = session.highest.max(command.sequence);
        session.used_ms = context.log_ms;
        context.batch.put(keys::session(command.session), session);
    }
    context.batch.put(keys::answer(command.session, command.sequence), &answer);
    // A recursive delete that is not through yet has to run again under the same key.
    let through = !matches!(answer, Answer::Deleted { more: true, .. });
    if let Some(wanted) = command.action.idempotency().filter(|_| through) {
        if let Some(stale) = admitted.stale {
            context.batch.remove(keys::idempotency_expiry(stale.expires_ms, who.principal, &wanted.key));
        }
        let expires_ms = context.lives_until(IDEMPOTENCY_KEPT);
        let row = IdempotencyRow { fingerprint: wanted.fingerprint, expires_ms, answer };
        context.batch.put(keys::idempotency(who.principal, &wanted.key), &row);
        context.batch.put(keys::idempotency_expiry(expires_ms, who.principal, &wanted.key), &Mark);
    }
    Ok(())
}

/// Removes the answers that leave the window as `highest` rises.
fn forget_below(
    context: &mut Context<'_, '_>,
    session: SessionId,
    highest_before: u64,
    highest: u64,
) -> Result<(), RowsError> {
    let Some(last) = highest.checked_sub(SESSION_WINDOW).filter(|last| *last > 0) else { return Ok(()) };
    let first = (highest_before + 1).saturating_sub(SESSION_WINDOW).max(1);
    if last < first {
        return Ok(());
    }
    // The usual step is 1: removing blindly is cheaper than looking what is there.
    if last - first < 64 {
        for sequence in first..=last {
            context.batch.remove(keys::answer(session, sequence));
        }
        return Ok(());
    }
    let range = keys::answer(session, first)..keys::answer(session, last.saturating_add(1));
    for key in keys_of(context.batch, &range, Order::Forward, SESSION_WINDOW as usize)? {
        context.batch.remove(key);
    }
    Ok(())
}
