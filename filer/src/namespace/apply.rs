//! Applies one command of the log to a batch.

use std::time::Duration;

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::TenantId;
use hay_common::limits::{LOG_TIME_JUMP_MAX, LOG_TIME_LEAD_MAX};

use super::command::{Action, Bootstrap, Bootstrapped, ClientCommand, Op, Proposal, Reply};
use super::rows::{Batch, Rows, RowsError, read};
use super::session::Admission;
use super::{content, delete, directory, manifest, path, put, session, sweep};
use crate::schema::keys::{self, Key};
use crate::schema::values::{
    Access, Answer, Counters, EntryRow, LogTimeRow, Row, TenantNameRow, TenantRow, TokenRow, UsageRow,
};

/// Why an operation did not happen.
#[derive(Debug)]
pub enum Refusal {
    /// The state or the request forbids it: an answer to the caller.
    Failure(Failure),
    /// The rows can't be read: nothing can be said.
    Rows(RowsError),
}

impl From<RowsError> for Refusal {
    fn from(error: RowsError) -> Self {
        Self::Rows(error)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<path::PathError> for Refusal {
    fn from(error: path::PathError) -> Self {
        Self::Failure(error.into())
    }
}

/// What an operation gives.
pub type Applied<T> = Result<T, Refusal>;

/// A refusal of kind `code`.
pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Applied<T> {
    Err(Refusal::Failure(Failure::new(code, message)))
}

/// The batch and the moment in which a command is applied.
pub(super) struct Context<'c, 'b> {
    pub batch: &'c mut Batch<'b>,
    /// The proposer's clock.
    pub wall_ms: u64,
    /// The log's.
    pub log_ms: u64,
    /// The counters as the command has changed them so far: one command counts several times.
    counters: Option<Counters>,
}

impl Context<'_, '_> {
    pub fn read<R: Row>(&self, key: &[u8]) -> Result<Option<R>, RowsError> {
        read(self.batch, key)
    }

    pub fn exists(&self, key: &[u8]) -> Result<bool, RowsError> {
        Ok(self.batch.get(key)?.is_some())
    }

    /// When, in log time, something is over that is to live for `life`. While the log time is behind the clock it runs
    /// faster than that, so a life is reckoned from the clock; but a clock that is wrong for a moment must not keep things
    /// for years.
    pub fn lives_until(&self, life: Duration) -> u64 {
        let lead = self.log_ms.saturating_add(LOG_TIME_LEAD_MAX.as_millis() as u64);
        self.wall_ms.clamp(self.log_ms, lead).saturating_add(life.as_millis() as u64)
    }

    /// The counters.
    pub fn counters(&self) -> Result<Counters, RowsError> {
        match self.counters {
            Some(counters) => Ok(counters),
            None => Ok(self.read(&keys::counters())?.unwrap_or_default()),
        }
    }

    /// Changes the counters. They are written when the command is through.
    pub fn count(&mut self, change: impl FnOnce(&mut Counters)) -> Result<(), RowsError> {
        let mut counters = self.counters()?;
        change(&mut counters);
        self.counters = Some(counters);
        Ok(())
    }

    /// Changes a tenant's usage.
    pub fn account(&mut self, tenant: TenantId, change: impl FnOnce(&mut UsageRow)) -> Result<(), RowsError> {
        self.change(keys::usage(tenant), change)
    }

    fn change<R: Row + Default>(&mut self, key: Key, change: impl FnOnce(&mut R)) -> Result<(), RowsError> {
        let mut row: R = self.read(&key)?.unwrap_or_default();
        change(&mut row);
        self.batch.put(key, &row);
        Ok(())
    }
}

/// The log time of `rows`; 0 before the first.
///
/// # Errors
/// When it can't be read.
pub fn log_time(rows: &dyn Rows) -> Result<u64, RowsError> {
    Ok(read::<LogTimeRow>(rows, &keys::log_time())?.map_or(0, |row| row.ms))
}

/// Applies `proposal` to `batch`. What is refused leaves the batch as it was.
///
/// # Errors
/// Only when rows can't be read: the command is then neither applied nor refused.
pub fn apply(batch: &mut Batch<'_>, proposal: &Proposal) -> Result<Reply, RowsError> {
    let mut log_ms = log_time(batch)?;
    if log_ms == 0 {
        // The first command of all sets the log time: no expiry may be reckoned from 1970.
        log_ms = proposal.wall_ms;
        batch.put(keys::log_time(), &LogTimeRow { ms: log_ms });
    }
    let mut context = Context { batch, wall_ms: proposal.wall_ms, log_ms, counters: None };
    let reply = match &proposal.op {
        Op::Client(command) => settle(&mut context, |c| client(c, command)).map(Reply::Client),
        Op::OpenSessions { sessions } => {
            settle(&mut context, |c| session::open(c, sessions)).map(Reply::Sessions)
        }
        Op::Bootstrap(wanted) => settle(&mut context, |c| bootstrap(c, wanted)).map(Reply::Bootstrapped),
        Op::Tick => Ok(tick(&mut context)),
        Op::Drain => sweep::drain(&mut context),
        Op::Expire => sweep::expire(&mut context),
    };
    match &reply {
        Ok(_) => {
            if let Some(counters) = context.counters {
                context.batch.put(keys::counters(), &counters);
            }
            context.batch.keep();
        }
        Err(_) => context.batch.take_back(),
    }
    reply
}

/// Runs an operation and takes back what it wrote where it refused.
fn settle<T>(
    context: &mut Context<'_, '_>,
    operation: impl FnOnce(&mut Context<'_, '_>) -> Applied<T>,
) -> Result<Result<T, Failure>, RowsError> {
    match operation(context) {
        Ok(done) => Ok(Ok(done)),
        Err(Refusal::Failure(failure)) => {
            context.counters = None;
            context.batch.take_back();
            Ok(Err(failure))
        }
        Err(Refusal::Rows(error)) => Err(error),
    }
}

fn client(context: &mut Context<'_, '_>, command: &ClientCommand) -> Applied<Answer> {
    let who = authenticate(context.batch, &command.token)?;
    let mut admitted = match session::admit(context, command, &who)? {
        Admission::Answered(answer) => return Ok(answer),
        Admission::New(admitted) => admitted,
    };
    if command.action.changes_tree() {
        may_write(&who)?;
    }
    let answer = match &command.action {
        Action::PutFile(wanted) => put::put_file(context, &who, wanted)?,
        Action::AddReferences(wanted) => manifest::add_references(context, &who, wanted)?,
        Action::AbandonManifest { manifest } => manifest::abandon(context, &who, *manifest)?,
        Action::MakeDirectory(wanted) => directory::make_directory(context, &who, wanted)?,
        Action::Delete(wanted) => delete::delete(context, &who, wanted)?,
        Action::ReportDamaged { hash, copy } => content::report_damaged(context, &who, hash, *copy)?,
    };
    session::record(context, command, &who, &mut admitted, answer)?;
    Ok(answer)
}

/// The principal behind a token.
///
/// # Errors
/// `unauthenticated` where there is none.
pub fn authenticate(rows: &dyn Rows, token: &super::command::TokenHash) -> Applied<TokenRow> {
    match read(rows, &keys::token(token))? {
        Some(who) => Ok(who),
        None => refuse(ErrorCode::Unauthenticated, "the bearer token is not known here"),
    }
}

/// Whether a principal may change its tenant's tree.
///
/// # Errors
/// `forbidden` where it may not.
pub(super) fn may_write(who: &TokenRow) -> Applied<()> {
    match who.access {
        Access::Write => Ok(()),
        Access::Read => refuse(ErrorCode::Forbidden, format!("principal {} may only read", who.principal)),
    }
}

fn tick(context: &mut Context<'_, '_>) -> Reply {
    let ms = advance(context.log_ms, context.wall_ms);
    if ms > context.log_ms {
        context.batch.put(keys::log_time(), &LogTimeRow { ms });
    }
    Reply::Ticked { log_ms: ms, behind_ms: context.wall_ms.saturating_sub(ms) }
}

/// The log time never goes back, and follows a jump of the clock only step by step: a clock that is wrong for a
/// moment must not end every session.
fn advance(log_ms: u64, wall_ms: u64) -> u64 {
    wall_ms.clamp(log_ms, log_ms.saturating_add(LOG_TIME_JUMP_MAX.as_millis() as u64))
}

fn bootstrap(context: &mut Context<'_, '_>, wanted: &Bootstrap) -> Applied<Bootstrapped> {
    let name = wanted.tenant_name.as_str();
    if name.is_empty() || name.len() > hay_common::limits::SEGMENT_BYTES_MAX || name.contains(['/', '\0']) {
        return refuse(ErrorCode::InvalidArgument, format!("{name:?} can't be a tenant's name"));
    }
    let known = context.read::<TenantNameRow>(&keys::tenant_name(name))?;
    let tenant = known.map_or(wanted.tenant, |row| row.tenant);
    if known.is_none() {
        context.batch.put(keys::tenant_name(name), &TenantNameRow { tenant });
        context
            .batch
            .put(keys::tenant(tenant), &TenantRow { name: name.to_owned(), created_ms: context.wall_ms });
        context.batch.put(keys::entry(tenant, b""), &EntryRow::directory(wanted.root, context.wall_ms));
        context.batch.put(keys::usage(tenant), &UsageRow::default());
    }
    let key = keys::token(&wanted.token);
    let principal = match context.read::<TokenRow>(&key)? {
        Some(row) if row.tenant == tenant => row.principal,
        Some(_) => return refuse(ErrorCode::InvalidArgument, "the token belongs to another tenant"),
        None => {
            let row =
                TokenRow { principal: wanted.principal, tenant, administrator: true, access: Access::Write };
            context.batch.put(key, &row);
            wanted.principal
        }
    };
    Ok(Bootstrapped { tenant, principal, created: known.is_none() })
}
