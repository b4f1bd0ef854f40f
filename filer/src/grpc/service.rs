//! The handlers.

use hay_common::error::Failure;
use hay_common::ids::{ManifestId, SessionId};
use hay_common::model::Durability;
use hay_proto::convert::{WireId, required};
use hay_proto::rpc::to_status;
use hay_proto::v1;
use tonic::{Request, Response, Status};

use super::{inbound, outbound};
use crate::namespace::query::Sums;
use crate::server::Filer;
use crate::server::core::{Begun, within_batch};

fn reply<T>(result: Result<T, Failure>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(to_status)
}

#[tonic::async_trait]
impl v1::filer_server::Filer for Filer {
    async fn whoami(&self, request: Request<v1::WhoamiRequest>) -> Result<Response<v1::WhoamiReply>, Status> {
        let token = inbound::caller(request.into_inner().caller).map_err(to_status)?;
        reply(self.core.whoami(token).await.map(outbound::whoami))
    }

    async fn begin(&self, request: Request<v1::BeginRequest>) -> Result<Response<v1::BeginReply>, Status> {
        reply(self.begin_put(request.into_inner()).await)
    }

    async fn commit_batch(
        &self,
        request: Request<v1::CommitBatchRequest>,
    ) -> Result<Response<v1::CommitBatchReply>, Status> {
        let commands = request.into_inner().commands;
        within_batch(commands.len()).map_err(to_status)?;
        let commands: Vec<_> = commands.into_iter().map(inbound::command).collect();
        let asked: Vec<_> = commands
            .iter()
            .map(|c| c.as_ref().map_or(outbound::Asked::Nothing, |c| outbound::Asked::of(&c.action)))
            .collect();
        let answers = self.core.commit_all(commands).await;
        let outcomes = asked.into_iter().zip(answers).map(|(asked, a)| outbound::outcome(asked, a)).collect();
        Ok(Response::new(v1::CommitBatchReply { outcomes }))
    }

    async fn resolve_batch(
        &self,
        request: Request<v1::ResolveBatchRequest>,
    ) -> Result<Response<v1::ResolveBatchReply>, Status> {
        let items = request.into_inner().items.into_iter().map(inbound::resolve_item).collect();
        let resolved = self.core.resolve_all(items).await.map_err(to_status)?;
        let items = resolved.into_iter().map(outbound::resolved).collect();
        Ok(Response::new(v1::ResolveBatchReply { items }))
    }

    async fn read_manifest(
        &self,
        request: Request<v1::ReadManifestRequest>,
    ) -> Result<Response<v1::ReadManifestReply>, Status> {
        let request = request.into_inner();
        let token = inbound::caller(request.caller).map_err(to_status)?;
        let id = ManifestId::from_wire("read_manifest.manifest", &request.manifest)?;
        let chunks = self.core.read_manifest(token, id, request.first_number, request.count).await;
        reply(
            chunks
                .map(|chunks| v1::ReadManifestReply { chunks: chunks.into_iter().map(Into::into).collect() }),
        )
    }

    async fn find_own(
        &self,
        request: Request<v1::FindOwnRequest>,
    ) -> Result<Response<v1::FindOwnReply>, Status> {
        let (token, hashes) = inbound::find_own(request.into_inner()).map_err(to_status)?;
        reply(self.core.find_own(token, hashes).await.map(|owned| v1::FindOwnReply { owned }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Status> {
        let (token, query) = inbound::list(request.into_inner()).map_err(to_status)?;
        let page = self.core.list(token, query).await;
        reply(page.map(|(entries, more)| v1::ListReply {
            entries: entries.into_iter().map(Into::into).collect(),
            more,
        }))
    }

    async fn open_sessions(
        &self,
        request: Request<v1::OpenSessionsRequest>,
    ) -> Result<Response<v1::OpenSessionsReply>, Status> {
        let sessions = inbound::sessions(request.into_inner()).map_err(to_status)?;
        reply(self.core.open_sessions(sessions).await.map(|ttl_ms| v1::OpenSessionsReply { ttl_ms }))
    }

    async fn filer_status(
        &self,
        _request: Request<v1::FilerStatusRequest>,
    ) -> Result<Response<v1::FilerStatusReply>, Status> {
        reply(self.core.sums().await.map(|sums| self.status(sums)))
    }
}

impl Filer {
    async fn begin_put(&self, request: v1::BeginRequest) -> Result<v1::BeginReply, Failure> {
        let token = inbound::caller(request.caller)?;
        let (put, known) = inbound::put_file(required("begin.put", request.put)?)?;
        let asked = outbound::Asked::put(&put);
        let numbered = match request.session.is_empty() {
            true => None,
            false => Some((SessionId::from_wire("begin.session", &request.session)?, request.sequence)),
        };
        match self.core.begin(token, put, known, numbered).await? {
            Begun::Go(checked) => Ok(v1::BeginReply { tenant: checked.tenant.to_wire(), finished: None }),
            Begun::Done(checked, answer) => Ok(v1::BeginReply {
                tenant: checked.tenant.to_wire(),
                finished: Some(outbound::outcome(asked, Ok(answer))),
            }),
        }
    }

    fn status(&self, sums: Sums) -> v1::FilerStatusReply {
        let group = self.group_status();
        let ready = self.ready();
        let counters = sums.counters;
        v1::FilerStatusReply {
            cluster: self.config.cluster.to_wire(),
            raft_term: group.term,
            raft_applied: group.applied.map_or(0, |position| position.index),
            log_time_ms: sums.log_ms,
            tenants: sums
                .tenants
                .into_iter()
                .map(|(id, name, usage)| v1::UsageReport {
                    tenant: id.to_wire(),
                    name,
                    logical_bytes: usage.logical_bytes,
                    files: usage.files,
                    directories: usage.directories,
                })
                .collect(),
            contents_owned: counters.contents_owned,
            references: counters.references,
            copies: counters.copies,
            copy_bytes: counters.copy_bytes,
            delete_queue: counters.delete_queue,
            manifests_unpublished: counters.manifests_unpublished,
            manifests_draining: counters.manifests_draining,
            sessions: counters.sessions,
            durability: match self.config.durability {
                Durability::Sync => "sync".to_owned(),
                Durability::Async => "async".to_owned(),
            },
            path_index_mode: self.config.path_index_mode.as_str().to_owned(),
            ready: ready.is_ok(),
            not_ready_reason: ready.err().unwrap_or_default(),
        }
    }
}
