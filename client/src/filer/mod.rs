//! The filer's operations in domain types, each command acting once however often it is sent.

mod session;
pub mod types;

use std::sync::Arc;
use std::time::Duration;

use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ContentHash, CopyId, ManifestId};
use hay_common::model::LocatedChunk;
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynFiler;
use hay_proto::v1;

use crate::grpc::filer as grpc;
use session::SessionPool;

pub use session::Session;
pub use types::*;

/// How often and how fast an unanswered call is repeated.
const RETRY: RetryPolicy = RetryPolicy {
    attempts_max: 4,
    pause_first: Duration::from_millis(20),
    pause_max: Duration::from_millis(500),
};
/// The same for filers in other processes, of which one may be starting again: some eight seconds in all.
const PATIENT: RetryPolicy = RetryPolicy { attempts_max: 24, ..RETRY };

/// A client of the filer. Cheap to clone.
#[derive(Clone)]
pub struct FilerClient(Arc<Inner>);

struct Inner {
    filer: DynFiler,
    random: SharedRandom,
    sessions: SessionPool,
    retry: RetryPolicy,
}

/// After which failures a call that acts once, or only reads, is sent again as it was.
fn unanswered(failure: &Failure) -> bool {
    matches!(failure.code, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::NotLeader)
}

impl FilerClient {
    /// Over `filer`.
    pub fn new(filer: DynFiler, clock: SharedClock, random: SharedRandom) -> Self {
        Self::with_retry(filer, clock, random, RETRY)
    }

    /// Over filers in other processes: waits out an election, or a restart.
    pub fn patient(filer: DynFiler, clock: SharedClock, random: SharedRandom) -> Self {
        Self::with_retry(filer, clock, random, PATIENT)
    }

    fn with_retry(filer: DynFiler, clock: SharedClock, random: SharedRandom, retry: RetryPolicy) -> Self {
        let sessions = SessionPool::new(filer.clone(), clock, random.clone(), retry);
        Self(Arc::new(Inner { filer, random, sessions, retry }))
    }

    /// A live ingest session. An upload takes one before its first append and uses it for all its commands: copies
    /// must be committed under the session that they were appended in.
    pub async fn session(&self) -> Result<Arc<Session>, Failure> {
        self.0.sessions.session().await
    }

    /// Who is behind the token.
    pub async fn whoami(&self, token: TokenHash) -> Result<Whoami, Failure> {
        self.once_more((), |()| grpc::whoami(&self.0.filer, token)).await
    }

    /// Asks before bytes move: may it be, and is it perhaps done already? `known`: of the content what is known
    /// (hash and size of the only chunk, no copy); `size`: bytes that will come.
    pub async fn begin(
        &self,
        token: TokenHash,
        session: &Session,
        put: &PutFile,
        known: Option<Content>,
        size: Option<u64>,
    ) -> Result<Begun, Failure> {
        let request = grpc::begin_request(token, session.ticket(), put, known, size);
        let begun = self.once_more(request, |request| grpc::begin(&self.0.filer, request)).await;
        self.noting_expiry(session, begun)
    }

    /// Makes the file appear. After `session_expired` or `copy_gone` its chunks must be stored again, under another
    /// session; all other failures that may pass were repeated here.
    pub async fn put(
        &self,
        token: TokenHash,
        session: &Session,
        put: PutFile,
        content: Content,
    ) -> Result<Put, Failure> {
        grpc::put_done(self.commit(token, session, grpc::put_op(put, content)).await?)
    }

    /// Adds references to an unpublished manifest. Failures as for [`FilerClient::put`].
    pub async fn add_references(
        &self,
        token: TokenHash,
        session: &Session,
        add: AddReferences,
    ) -> Result<(), Failure> {
        self.commit(token, session, grpc::add_references_op(add)).await.map(drop)
    }

    /// Gives an unpublished manifest up.
    pub async fn abandon_manifest(
        &self,
        token: TokenHash,
        session: &Session,
        manifest: ManifestId,
    ) -> Result<(), Failure> {
        self.commit(token, session, grpc::abandon_op(manifest)).await.map(drop)
    }

    /// Makes a directory.
    pub async fn make_directory(&self, token: TokenHash, make: MakeDirectory) -> Result<Put, Failure> {
        grpc::put_done(self.commit_anywhere(token, grpc::make_directory_op(make)).await?)
    }

    /// Removes a file or a directory; one command, to be repeated while there is `more`.
    pub async fn delete(&self, token: TokenHash, delete: Delete) -> Result<Deleted, Failure> {
        self.commit_anywhere(token, grpc::delete_op(delete)).await.map(|outcome| grpc::deleted(&outcome))
    }

    /// Says that `copy` of a content was found corrupt or missing: nothing relies on it any more, and the next put of
    /// the content brings a new one. Does nothing where the tenant has the content through another copy.
    pub async fn report_damaged(
        &self,
        token: TokenHash,
        hash: ContentHash,
        copy: CopyId,
    ) -> Result<(), Failure> {
        self.commit_anywhere(token, grpc::report_damaged_op(hash, copy)).await.map(drop)
    }

    /// An entry and where its chunks are, of one moment.
    pub async fn resolve(&self, token: TokenHash, resolve: Resolve) -> Result<Resolved, Failure> {
        // The usual case sends the path itself; only a repeated call needs another.
        self.once_more(resolve, |resolve| grpc::resolve(&self.0.filer, token, resolve)).await
    }

    /// Further chunks of a file: `count` of them from number `first_number`.
    pub async fn read_manifest(
        &self,
        token: TokenHash,
        manifest: ManifestId,
        first_number: u32,
        count: u32,
    ) -> Result<Vec<LocatedChunk>, Failure> {
        self.once_more((), |()| grpc::read_manifest(&self.0.filer, token, manifest, first_number, count))
            .await
    }

    /// Which of these contents the tenant owns, with a live copy.
    pub async fn find_own(&self, token: TokenHash, hashes: &[ContentHash]) -> Result<Vec<bool>, Failure> {
        self.once_more((), |()| grpc::find_own(&self.0.filer, token, hashes)).await
    }

    /// One page of a directory.
    pub async fn list(&self, token: TokenHash, list: List) -> Result<Page, Failure> {
        self.once_more(list, |list| grpc::list(&self.0.filer, token, list)).await
    }

    /// How the filer is.
    pub async fn status(&self) -> Result<FilerStatus, Failure> {
        grpc::status(&self.0.filer).await
    }

    /// Commits under `session`, once.
    async fn commit(
        &self,
        token: TokenHash,
        session: &Session,
        op: v1::command::Op,
    ) -> Result<v1::Outcome, Failure> {
        let command = grpc::command(token, session.ticket(), op);
        let committed = self.once_more(command, |command| grpc::commit(&self.0.filer, command)).await;
        self.noting_expiry(session, committed)
    }

    /// Commits what relies on no copy, so under whatever session lives.
    async fn commit_anywhere(&self, token: TokenHash, op: v1::command::Op) -> Result<v1::Outcome, Failure> {
        let session = self.session().await?;
        let command = grpc::command(token, session.ticket(), op.clone());
        // The first answer alone says surely that the command was not applied: after an unanswered try it may have
        // been, and must not be sent under another name.
        match grpc::commit(&self.0.filer, command.clone()).await {
            Err(failure) if failure.code == ErrorCode::SessionExpired => {
                self.0.sessions.retire(session.id());
                let session = self.session().await?;
                self.commit(token, &session, op).await
            }
            Err(failure) if unanswered(&failure) => {
                self.repeat(command, |command| grpc::commit(&self.0.filer, command), failure).await
            }
            answered => answered,
        }
    }

    fn noting_expiry<T>(&self, session: &Session, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result
            && failure.code == ErrorCode::SessionExpired
        {
            self.0.sessions.retire(session.id());
        }
        result
    }

    /// Sends `request`, and again as it is while no answer comes.
    async fn once_more<Q, T, F>(&self, request: Q, send: impl Fn(Q) -> F) -> Result<T, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<T, Failure>>,
    {
        match send(request.clone()).await {
            Err(failure) if unanswered(&failure) => self.repeat(request, send, failure).await,
            answered => answered,
        }
    }

    async fn repeat<Q, T, F>(&self, request: Q, send: impl Fn(Q) -> F, first: Failure) -> Result<T, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failure = first;
        for attempt in 1.. {
            let Some(pause) = self.0.retry.pause(attempt, self.0.random.as_ref()) else { break };
            tokio::time::sleep(pause).await;
            match send(request.clone()).await {
                Err(again) if unanswered(&again) => failure = again,
                // It was refused now, but whether an unanswered try before was applied is not known: the filer
                // keeps answers for a while only.
                Err(again) if matches!(again.code, ErrorCode::SequencePassed | ErrorCode::SessionExpired) => {
                    return Err(failure);
                }
                answered => return answered,
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests;
