//! The serving end: one service for all groups of a process.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use hay_common::error::{ErrorCode, Failure};
use hay_proto::rpc::{BoxStream, Peer, Role, to_status};
use hay_proto::v1;
use hay_proto::v1::raft_server::Raft;
use parking_lot::RwLock;
use tonic::{Request, Response, Status, Streaming};

use crate::group::Group;
use crate::transport::CallKind;

use super::convert::{ack_out, envelope_in, error_in, error_out, part_in};

/// The groups of a process, as other processes reach them. Serve it behind a guard: `hay_proto::rpc::serve_raft`.
#[derive(Default)]
pub struct RaftEndpoint {
    groups: RwLock<HashMap<String, (Role, Group)>>,
}

impl RaftEndpoint {
    /// One that knows no group yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Gives messages of `group`'s name to it from now on. Only members in `role` may send them.
    pub fn add(&self, role: Role, group: Group) {
        self.groups.write().insert(group.name().to_owned(), (role, group));
    }

    /// Takes no more messages for the group of that name.
    pub fn remove(&self, name: &str) {
        self.groups.write().remove(name);
    }

    fn group(&self, name: &str, peer: Option<&Peer>) -> Result<Group, Status> {
        let (role, group) = self.groups.read().get(name).cloned().ok_or_else(|| {
            // As a server that is starting: it is asked again.
            to_status(Failure::new(ErrorCode::Unavailable, format!("this server has no group {name} yet")))
        })?;
        match peer {
            Some(peer) if peer.role == role => Ok(group),
            Some(peer) => {
                Err(forbidden(format!("{:?} {} has no part in group {name}", peer.role, peer.node)))
            }
            None => Err(forbidden("nobody is known to be calling".to_owned())),
        }
    }

    async fn call(
        &self,
        kind: CallKind,
        request: Request<v1::RaftEnvelope>,
    ) -> Result<Response<v1::RaftAnswer>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let envelope = envelope_in(request.into_inner())?;
        let group = self.group(&envelope.group, peer.as_ref())?;
        let answer = group.receive(kind, envelope).await;
        let body = answer.map_err(|refusal| to_status(refusal.into()))?;
        Ok(Response::new(v1::RaftAnswer { body }))
    }
}

#[tonic::async_trait]
impl Raft for RaftEndpoint {
    type InstallSnapshotStream = BoxStream<v1::RaftSnapshotAck>;

    async fn append_entries(
        &self,
        request: Request<v1::RaftEnvelope>,
    ) -> Result<Response<v1::RaftAnswer>, Status> {
        self.call(CallKind::Append, request).await
    }

    async fn request_vote(
        &self,
        request: Request<v1::RaftEnvelope>,
    ) -> Result<Response<v1::RaftAnswer>, Status> {
        self.call(CallKind::Vote, request).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::RaftSnapshotPart>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let mut parts = request.into_inner();
        // The first part names the group; it is handed on with the others.
        let first = match parts.message().await? {
            Some(first) => part_in(first)?,
            None => return Err(to_status(crate::error::Refusal::Malformed.into())),
        };
        let crate::transport::SnapshotPart::Begin(envelope) = &first else {
            return Err(to_status(crate::error::Refusal::Malformed.into()));
        };
        let group = self.group(&envelope.group, peer.as_ref())?;
        let rest = parts.map(|part| part.and_then(part_in).map_err(|status| error_in(&status)));
        let parts = futures::stream::iter([Ok(first)]).chain(rest).boxed();
        let acks = group.receive_snapshot(parts).await.map_err(|refusal| to_status(refusal.into()))?;
        Ok(Response::new(Box::pin(acks.map(|ack| ack.map(ack_out).map_err(error_out)))))
    }

    async fn describe(&self, request: Request<v1::RaftEnvelope>) -> Result<Response<v1::RaftAnswer>, Status> {
        self.call(CallKind::Describe, request).await
    }

    async fn promise(&self, request: Request<v1::RaftEnvelope>) -> Result<Response<v1::RaftAnswer>, Status> {
        self.call(CallKind::Promise, request).await
    }

    async fn join(&self, request: Request<v1::RaftEnvelope>) -> Result<Response<v1::RaftAnswer>, Status> {
        self.call(CallKind::Join, request).await
    }
}

fn forbidden(text: String) -> Status {
    to_status(Failure::new(ErrorCode::Forbidden, text))
}
