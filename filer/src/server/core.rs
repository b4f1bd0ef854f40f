//! The operations of a filer, in its own types: queries over a snapshot, commands through the log.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::future::join_all;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ContentHash, ManifestId, SessionId};
use hay_common::limits::{LIST_PAGE_INLINE_MAX, RPC_BATCH_ITEMS_MAX, SESSION_TTL};
use hay_common::model::{EntryInfo, LocatedChunk};
use hay_common::random::SharedRandom;
use hay_consensus::Group;
use tokio::sync::Notify;

use super::space::Reserve;
use crate::namespace::apply::Refusal;
use crate::namespace::command::{
    Action, ClientCommand, NewContent, Op, Proposal, PutFile, Reply, TokenHash, decode, encode,
};
use crate::namespace::query::{self, Checked, ListQuery, Sums, WantedChunks, WhoIs};
use crate::namespace::rows::RowsError;
use crate::schema::values::Answer;
use crate::store::{Effort, Reader, to_failure};

/// What the handlers and the background share.
pub(crate) struct Core {
    pub group: Group,
    pub reader: Reader,
    pub clock: SharedClock,
    pub random: SharedRandom,
    pub reserve: Reserve,
    /// Whether the log time is one of this run.
    pub ticked: AtomicBool,
    /// Something may have to be drained.
    pub to_drain: Notify,
}

/// One question of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveItem {
    /// Who asks.
    pub token: TokenHash,
    /// For what.
    pub path: String,
    /// With which chunks.
    pub chunks: WantedChunks,
}

/// An entry with chunks.
pub type Resolved = Result<(EntryInfo, Vec<LocatedChunk>), Failure>;

/// What is known after a `begin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The bytes have to come.
    Go(Checked),
    /// The put took effect.
    Done(Checked, Answer),
}

pub(super) fn unexpected() -> Failure {
    Failure::new(ErrorCode::Internal, "the log gave the reply of another command")
}

impl Core {
    /// Has a command applied, durably.
    pub async fn propose(&self, op: Op) -> Result<Reply, Failure> {
        let proposal = Proposal { wall_ms: self.clock.wall_ms(), op };
        let reply = self.group.propose(encode(&proposal)).await?;
        decode(&reply).map_err(|error| Failure::new(ErrorCode::Internal, format!("the log's reply: {error}")))
    }

    /// Has a principal's command applied.
    pub async fn commit(&self, command: ClientCommand) -> Result<Answer, Failure> {
        if command.action.grows() {
            self.reserve.check()?;
        }
        // A put, a delete or an abandoned upload may leave a manifest without entries.
        let may_drain = !matches!(
            command.action,
            Action::AddReferences(_) | Action::MakeDirectory(_) | Action::ReportDamaged { .. }
        );
        let reply = self.propose(Op::Client(command)).await?;
        if may_drain {
            self.to_drain.notify_one();
        }
        match reply {
            Reply::Client(answer) => answer,
            _ => Err(unexpected()),
        }
    }

    /// Has commands applied, side by side.
    pub async fn commit_all(
        &self,
        mut commands: Vec<Result<ClientCommand, Failure>>,
    ) -> Vec<Result<Answer, Failure>> {
        let commit = async |command: Result<_, _>| self.commit(command?).await;
        match commands.pop() {
            // The usual batch, without a list of futures and wakers of its own.
            Some(only) if commands.is_empty() => vec![commit(only).await],
            last => join_all(commands.into_iter().chain(last).map(commit)).await,
        }
    }

    /// Checks a put before its bytes move, and commits it where it needs none.
    pub async fn begin(
        &self,
        token: TokenHash,
        wanted: PutFile,
        known: Option<NewContent>,
        numbered: Option<(SessionId, u64)>,
    ) -> Result<Begun, Failure> {
        self.group.read_barrier().await?;
        let put = Arc::new(wanted);
        let checked = {
            let put = put.clone();
            self.reader
                .query(Effort::Small, move |rows| {
                    query::check_put(rows, &token, &put, known.as_ref(), numbered)
                })
                .await?
        };
        if let Some(answer) = checked.answered {
            return Ok(Begun::Done(checked, answer));
        }
        self.reserve.check()?;
        let (true, Some((session, sequence)), Some(content)) = (checked.needs_no_bytes, numbered, known)
        else {
            return Ok(Begun::Go(checked));
        };
        let action = Action::PutFile(PutFile { content, ..PutFile::clone(&put) });
        match self.commit(ClientCommand { token, session, sequence, action }).await {
            Ok(answer) => Ok(Begun::Done(checked, answer)),
            // The copy went away in between: the bytes have to come after all. Nothing was recorded under the sequence.
            Err(failure) if failure.code == ErrorCode::CopyGone => Ok(Begun::Go(checked)),
            Err(failure) => Err(failure),
        }
    }

    /// Resolves paths, all in one snapshot.
    pub async fn resolve_all(
        &self,
        items: Vec<Result<ResolveItem, Failure>>,
    ) -> Result<Vec<Resolved>, Failure> {
        within_batch(items.len())?;
        self.group.read_barrier().await?;
        self.reader
            .query(Effort::Small, move |rows| {
                let one = |item: &Result<ResolveItem, Failure>| match item {
                    Ok(item) => match query::resolve(rows, &item.token, &item.path, item.chunks) {
                        // Only this makes the whole batch go to a thread that may wait.
                        Err(Refusal::Rows(RowsError::NotCached)) => Err(Refusal::Rows(RowsError::NotCached)),
                        other => Ok(other.map_err(to_failure)),
                    },
                    Err(failure) => Ok(Err(failure.clone())),
                };
                items.iter().map(one).collect()
            })
            .await
    }

    /// Who is behind a token.
    pub async fn whoami(&self, token: TokenHash) -> Result<WhoIs, Failure> {
        self.group.read_barrier().await?;
        self.reader.query(Effort::Small, move |rows| query::whoami(rows, &token)).await
    }

    /// Chunks of a manifest.
    pub async fn read_manifest(
        &self,
        token: TokenHash,
        id: ManifestId,
        first_number: u32,
        count: u32,
    ) -> Result<Vec<LocatedChunk>, Failure> {
        self.group.read_barrier().await?;
        self.reader
            .query(Effort::Small, move |rows| query::read_manifest(rows, &token, id, first_number, count))
            .await
    }

    /// Which contents the tenant owns.
    pub async fn find_own(&self, token: TokenHash, hashes: Vec<ContentHash>) -> Result<Vec<bool>, Failure> {
        within_batch(hashes.len())?;
        self.group.read_barrier().await?;
        self.reader.query(Effort::Small, move |rows| query::find_own(rows, &token, &hashes)).await
    }

    /// A page of a listing.
    pub async fn list(&self, token: TokenHash, wanted: ListQuery) -> Result<(Vec<EntryInfo>, bool), Failure> {
        self.group.read_barrier().await?;
        let small = (1..=LIST_PAGE_INLINE_MAX).contains(&wanted.limit);
        let effort = if small { Effort::Small } else { Effort::Large };
        self.reader.query(effort, move |rows| query::list(rows, &token, &wanted)).await
    }

    /// Opens sessions. Says how long they last, in ms.
    pub async fn open_sessions(&self, sessions: Vec<SessionId>) -> Result<u64, Failure> {
        self.reserve.check()?;
        match self.propose(Op::OpenSessions { sessions }).await? {
            Reply::Sessions(opened) => {
                let opened = opened?;
                let ttl_max = SESSION_TTL.as_millis() as u64;
                Ok(opened.expires_ms.saturating_sub(opened.log_ms).min(ttl_max))
            }
            _ => Err(unexpected()),
        }
    }

    /// Sums over all tenants.
    pub async fn sums(&self) -> Result<Sums, Failure> {
        self.reader.query(Effort::Large, |rows| query::sums(rows).map_err(Refusal::from)).await
    }
}

/// Refuses a batch that is too long.
pub(crate) fn within_batch(items: usize) -> Result<(), Failure> {
    if items > RPC_BATCH_ITEMS_MAX {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("a batch has at most {RPC_BATCH_ITEMS_MAX} items, not {items}"),
        ));
    }
    Ok(())
}
