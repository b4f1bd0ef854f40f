use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use hay_common::clock::ManualClock;
use hay_common::error::{ErrorCode, Failure};
use hay_proto::rpc::{DynFiler, direct_filer, to_status};
use hay_proto::v1::command::Op;
use hay_proto::v1::filer_server::Filer;
use hay_proto::v1::{
    BeginReply, BeginRequest, Command, CommitBatchReply, CommitBatchRequest, Entry, EntryKind,
    FilerStatusReply, FilerStatusRequest, FindOwnReply, FindOwnRequest, ListReply, ListRequest,
    OpenSessionsReply, OpenSessionsRequest, Outcome, ReadManifestReply, ReadManifestRequest,
    ResolveBatchReply, ResolveBatchRequest, WhoamiReply, WhoamiRequest,
};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

/// What becomes of a commit that comes in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Applied, and its answer lost on the way.
    AnswerLost,
    /// Lost on the way there.
    Lost,
    /// Refused for good.
    Refused(ErrorCode),
}

/// Applies each command once for its session and sequence.
pub(crate) struct FakeFiler {
    pub ttl_ms: AtomicU64,
    pub sessions: Mutex<HashSet<Bytes>>,
    pub grants: AtomicUsize,
    answers: Mutex<HashMap<(Bytes, u64), Outcome>>,
    /// Paths in the order in which they were really applied.
    pub applied: Mutex<Vec<Bytes>>,
    /// Of the next commits, in turn.
    pub fates: Mutex<VecDeque<Fate>>,
    /// What every other call answers.
    pub failure: Mutex<Option<ErrorCode>>,
    pub calls: AtomicUsize,
}

impl FakeFiler {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ttl_ms: AtomicU64::new(60_000),
            sessions: Mutex::default(),
            grants: AtomicUsize::new(0),
            answers: Mutex::default(),
            applied: Mutex::default(),
            fates: Mutex::default(),
            failure: Mutex::default(),
            calls: AtomicUsize::new(0),
        })
    }

    pub(crate) fn served(self: &Arc<Self>) -> DynFiler {
        direct_filer(self.clone(), super::guard(ManualClock::at(1)), super::gateway())
    }

    fn called(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.failure.lock().map_or(Ok(()), |code| Err(to_status(Failure::new(code, "as told"))))
    }

    fn apply(&self, command: Command) -> Outcome {
        if !self.sessions.lock().contains(&command.session) {
            return failed(ErrorCode::SessionExpired);
        }
        let name = (command.session.clone(), command.sequence);
        if let Some(before) = self.answers.lock().get(&name) {
            return before.clone();
        }
        let path = match command.op {
            Some(Op::PutFile(put)) => put.path,
            Some(Op::MakeDirectory(make)) => make.path,
            Some(Op::Delete(delete)) => delete.path,
            Some(Op::ReportDamaged(report)) => [report.hash, report.copy].concat().into(),
            Some(Op::AddReferences(_) | Op::AbandonManifest(_)) | None => Bytes::new(),
        };
        self.applied.lock().push(path.clone());
        let entry = Entry { id: vec![1; 16].into(), path, kind: EntryKind::File.into(), ..Entry::default() };
        let outcome = Outcome { entry: Some(entry), created: true, removed: 1, ..Outcome::default() };
        self.answers.lock().insert(name, outcome.clone());
        outcome
    }
}

fn failed(code: ErrorCode) -> Outcome {
    Outcome { failure: Some(Failure::new(code, "as told").into()), ..Outcome::default() }
}

#[tonic::async_trait]
impl Filer for FakeFiler {
    async fn whoami(&self, _: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        self.called()?;
        let id = Bytes::from(vec![2; 16]);
        let reply = WhoamiReply {
            principal: id.clone(),
            tenant: id,
            tenant_name: "default".into(),
            administrator: true,
        };
        Ok(Response::new(reply))
    }

    async fn begin(&self, request: Request<BeginRequest>) -> Result<Response<BeginReply>, Status> {
        self.called()?;
        if !self.sessions.lock().contains(&request.get_ref().session) {
            return Err(to_status(Failure::new(ErrorCode::SessionExpired, "as told")));
        }
        Ok(Response::new(BeginReply { tenant: vec![2; 16].into(), finished: None }))
    }

    async fn commit_batch(
        &self,
        request: Request<CommitBatchRequest>,
    ) -> Result<Response<CommitBatchReply>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let lost = || to_status(Failure::new(ErrorCode::Unavailable, "lost on the way"));
        let fate = self.fates.lock().pop_front();
        let commands = request.into_inner().commands;
        let outcomes = match fate {
            Some(Fate::Lost) => return Err(lost()),
            Some(Fate::Refused(code)) => commands.iter().map(|_| failed(code)).collect(),
            Some(Fate::AnswerLost) | None => {
                commands.into_iter().map(|command| self.apply(command)).collect()
            }
        };
        match fate {
            Some(Fate::AnswerLost) => Err(lost()),
            _ => Ok(Response::new(CommitBatchReply { outcomes })),
        }
    }

    async fn resolve_batch(
        &self,
        _: Request<ResolveBatchRequest>,
    ) -> Result<Response<ResolveBatchReply>, Status> {
        self.called()?;
        Ok(Response::new(ResolveBatchReply::default()))
    }

    async fn read_manifest(
        &self,
        _: Request<ReadManifestRequest>,
    ) -> Result<Response<ReadManifestReply>, Status> {
        self.called()?;
        Ok(Response::new(ReadManifestReply::default()))
    }

    async fn find_own(&self, _: Request<FindOwnRequest>) -> Result<Response<FindOwnReply>, Status> {
        self.called()?;
        Ok(Response::new(FindOwnReply { owned: vec![true] }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        self.called()?;
        assert_eq!(request.get_ref().after, "b");
        Ok(Response::new(ListReply { entries: Vec::new(), more: true }))
    }

    async fn open_sessions(
        &self,
        request: Request<OpenSessionsRequest>,
    ) -> Result<Response<OpenSessionsReply>, Status> {
        self.called()?;
        // Others may come in meanwhile.
        tokio::task::yield_now().await;
        self.grants.fetch_add(1, Ordering::SeqCst);
        self.sessions.lock().extend(request.into_inner().sessions);
        Ok(Response::new(OpenSessionsReply { ttl_ms: self.ttl_ms.load(Ordering::SeqCst) }))
    }

    async fn filer_status(
        &self,
        _: Request<FilerStatusRequest>,
    ) -> Result<Response<FilerStatusReply>, Status> {
        self.called()?;
        Ok(Response::new(FilerStatusReply::default()))
    }
}
