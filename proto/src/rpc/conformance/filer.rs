//! The filer service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use super::control::Control;
use super::shared::{CALLS_MAX, Subject, check, request};
use super::stage::{BINDINGS, Binding, Caller, Cluster, stage};
use crate::rpc::{DynFiler, MESSAGE_BYTES_MAX, Role, Rpc, permissions, to_failure};
use crate::v1::command::Op;
use crate::v1::filer_server::Filer;
use crate::v1::{
    BeginReply, BeginRequest, Command, CommitBatchReply, CommitBatchRequest, Delete, Entry, FilerStatusReply,
    FilerStatusRequest, FindOwnReply, FindOwnRequest, ListReply, ListRequest, OpenSessionsReply,
    OpenSessionsRequest, Outcome, PutFile, ReadManifestReply, ReadManifestRequest, ResolveBatchReply,
    ResolveBatchRequest, ResolveItem, Resolved, WhoamiReply, WhoamiRequest,
};

/// Paths in memory.
#[derive(Default)]
pub struct Core {
    control: Control,
    paths: Mutex<BTreeMap<Bytes, Entry>>,
}

impl Core {
    fn apply(&self, command: Command) -> Outcome {
        let mut paths = self.paths.lock();
        match command.op {
            Some(Op::PutFile(put)) => {
                let entry = Entry { path: put.path.clone(), ..Entry::default() };
                let created = paths.insert(put.path, entry.clone()).is_none();
                Outcome { entry: Some(entry), created, ..Outcome::default() }
            }
            Some(Op::Delete(delete)) => match paths.remove(&delete.path) {
                Some(_) => Outcome { removed: 1, ..Outcome::default() },
                None => failed(Failure::new(ErrorCode::NotFound, "nothing is there")),
            },
            _ => failed(Failure::new(ErrorCode::InvalidArgument, "no such command")),
        }
    }
}

fn failed(failure: Failure) -> Outcome {
    Outcome { failure: Some(failure.into()), ..Outcome::default() }
}

#[tonic::async_trait]
impl Filer for Core {
    async fn whoami(&self, request: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(WhoamiReply { tenant_name: "default".into(), ..WhoamiReply::default() }))
    }

    async fn begin(&self, request: Request<BeginRequest>) -> Result<Response<BeginReply>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(BeginReply::default()))
    }

    async fn commit_batch(
        &self,
        request: Request<CommitBatchRequest>,
    ) -> Result<Response<CommitBatchReply>, Status> {
        self.control.enter(&request).await?;
        let outcomes = request.into_inner().commands.into_iter().map(|command| self.apply(command)).collect();
        Ok(Response::new(CommitBatchReply { outcomes }))
    }

    async fn resolve_batch(
        &self,
        request: Request<ResolveBatchRequest>,
    ) -> Result<Response<ResolveBatchReply>, Status> {
        self.control.enter(&request).await?;
        let paths = self.paths.lock();
        let items = request.into_inner().items.into_iter().map(|item| match paths.get(&item.path) {
            Some(entry) => Resolved { entry: Some(entry.clone()), ..Resolved::default() },
            None => Resolved {
                failure: Some(Failure::new(ErrorCode::NotFound, "nothing is there").into()),
                ..Resolved::default()
            },
        });
        Ok(Response::new(ResolveBatchReply { items: items.collect() }))
    }

    async fn read_manifest(
        &self,
        request: Request<ReadManifestRequest>,
    ) -> Result<Response<ReadManifestReply>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(ReadManifestReply::default()))
    }

    async fn find_own(&self, request: Request<FindOwnRequest>) -> Result<Response<FindOwnReply>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(FindOwnReply { owned: vec![false; request.get_ref().hashes.len()] }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(ListReply { entries: self.paths.lock().values().cloned().collect(), more: false }))
    }

    async fn open_sessions(
        &self,
        request: Request<OpenSessionsRequest>,
    ) -> Result<Response<OpenSessionsReply>, Status> {
        self.control.enter(&request).await?;
        Ok(Response::new(OpenSessionsReply { ttl_ms: 1000 }))
    }

    async fn filer_status(
        &self,
        request: Request<FilerStatusRequest>,
    ) -> Result<Response<FilerStatusReply>, Status> {
        self.control.enter(&request).await?;
        let cluster = self.control.padding().into();
        Ok(Response::new(FilerStatusReply { cluster, ready: true, ..FilerStatusReply::default() }))
    }
}

stage!(Stage, Core, DynFiler, RemoteFiler, serve_filer);

impl Subject for Stage {
    const FRIEND: Role = Role::Admin;
    const STRANGER: Role = Role::VolumeServer;

    fn control(&self) -> &Control {
        &self.core.control
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    async fn ping(&self, caller: Caller, timeout: Option<Duration>) -> Result<(), Status> {
        self.client(caller).filer_status(request(FilerStatusRequest {}, timeout)).await.map(drop)
    }
}

fn put(path: &str) -> Command {
    let put = PutFile { path: Bytes::copy_from_slice(path.as_bytes()), ..PutFile::default() };
    Command { op: Some(Op::PutFile(put)), ..Command::default() }
}

fn delete(path: &'static str) -> Command {
    let delete = Delete { path: path.into(), ..Delete::default() };
    Command { op: Some(Op::Delete(delete)), ..Command::default() }
}

async fn commit(client: &DynFiler, commands: Vec<Command>) -> Result<Vec<Outcome>, Status> {
    let reply = client.commit_batch(Request::new(CommitBatchRequest { commands })).await?;
    Ok(reply.into_inner().outcomes)
}

async fn batches(stage: &Stage) {
    let client = stage.client(Caller::Role(Role::Gateway));
    let outcomes =
        commit(&client, vec![put("a"), put("b"), put("a"), delete("c"), delete("b")]).await.unwrap();
    let created: Vec<_> = outcomes.iter().map(|outcome| outcome.created).collect();
    assert_eq!(created, [true, true, false, false, false]);
    let failures: Vec<_> = outcomes.into_iter().map(|o| o.failure.map(|f| Failure::from(f).code)).collect();
    assert_eq!(failures, [None, None, None, Some(ErrorCode::NotFound), None]);

    let items = ["a", "b"].map(|path| ResolveItem { path: path.into(), ..ResolveItem::default() }).to_vec();
    let reply = client.resolve_batch(Request::new(ResolveBatchRequest { items })).await.unwrap().into_inner();
    assert_eq!(reply.items[0].entry.as_ref().unwrap().path, "a");
    assert_eq!(Failure::from(reply.items[1].failure.clone().unwrap()).code, ErrorCode::NotFound);

    let huge = put(&"x".repeat(MESSAGE_BYTES_MAX));
    assert_eq!(to_failure(&commit(&client, vec![huge]).await.unwrap_err()).code, ErrorCode::TooLarge);
    assert_eq!(stage.core.paths.lock().len(), 1, "a batch beyond the limit does nothing");
}

/// Every method that acts for a principal refuses every role but the gateway's.
async fn principals_come_from_gateways_alone(stage: &Stage) {
    for role in [Role::Master, Role::VolumeServer, Role::Filer, Role::Gateway, Role::Admin] {
        let client = stage.client(Caller::Role(role));
        let answers = [
            client.whoami(Request::new(Default::default())).await.err(),
            client.begin(Request::new(Default::default())).await.err(),
            client.commit_batch(Request::new(Default::default())).await.err(),
            client.resolve_batch(Request::new(Default::default())).await.err(),
            client.read_manifest(Request::new(Default::default())).await.err(),
            client.find_own(Request::new(Default::default())).await.err(),
            client.list(Request::new(Default::default())).await.err(),
            client.open_sessions(Request::new(Default::default())).await.err(),
        ];
        for answer in answers {
            let code = answer.map(|status| to_failure(&status).code);
            assert_eq!(code, (role != Role::Gateway).then_some(ErrorCode::Forbidden), "{role:?}");
        }
    }
    assert_eq!(permissions::roles(Rpc::FilerBegin), [Role::Gateway]);
}

/// All that holds for a filer service.
async fn conformance(binding: Binding) {
    let stage = Arc::new(Stage::new(binding, CALLS_MAX).await);
    check(stage.clone()).await;
    batches(&stage).await;
    principals_come_from_gateways_alone(&stage).await;
}

#[tokio::test]
async fn filer_service_conforms_on_both_bindings() {
    for binding in BINDINGS {
        conformance(binding).await;
    }
}
