//! Calls of the filer, and the conversions of its messages.

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, ContentHash, CopyId, ManifestId, PrincipalId, SessionId, TenantId};
use hay_common::model::{LocatedChunk, Principal};
use hay_proto::convert::{ConvertError, WireId, name_values, required};
use hay_proto::rpc::{DynFiler, to_failure};
use hay_proto::v1::{self, command::Op, put_file};
use tonic::Request;

use super::only;
use crate::filer::types::{
    AddReferences, Begun, ChunkRef, Condition, Content, Delete, Deleted, FilerStatus, Idempotency, List,
    MakeDirectory, ManifestRef, NewIds, Page, Put, PutFile, Resolve, Resolved, TokenHash, Usage, Whoami,
};

/// There is one group for now.
const GROUP: u32 = 0;

fn caller(token: TokenHash) -> Option<v1::Caller> {
    Some(v1::Caller { token_hash: Bytes::copy_from_slice(&token.0), group: GROUP })
}

pub(crate) async fn whoami(filer: &DynFiler, token: TokenHash) -> Result<Whoami, Failure> {
    let request = v1::WhoamiRequest { caller: caller(token) };
    let reply = filer.whoami(Request::new(request)).await.map_err(|status| to_failure(&status))?.into_inner();
    let principal = Principal {
        id: PrincipalId::from_wire("whoami.principal", &reply.principal)?,
        tenant: TenantId::from_wire("whoami.tenant", &reply.tenant)?,
        administrator: reply.administrator,
    };
    Ok(Whoami { principal, tenant_name: reply.tenant_name })
}

/// The one use of a sequence number of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub session: SessionId,
    pub sequence: u64,
}

pub(crate) fn begin_request(
    token: TokenHash,
    ticket: Ticket,
    put: &PutFile,
    known: Option<Content>,
    size: Option<u64>,
) -> v1::BeginRequest {
    v1::BeginRequest {
        caller: caller(token),
        put: Some(put_file(put.clone(), known)),
        session: ticket.session.to_wire(),
        sequence: ticket.sequence,
        size,
    }
}

pub(crate) async fn begin(filer: &DynFiler, request: v1::BeginRequest) -> Result<Begun, Failure> {
    let reply = filer.begin(Request::new(request)).await.map_err(|status| to_failure(&status))?.into_inner();
    match reply.finished {
        Some(outcome) => put_done(outcome).map(Begun::Finished),
        None => Ok(Begun::Proceed { tenant: TenantId::from_wire("begin.tenant", &reply.tenant)? }),
    }
}

/// One command as it is sent, and sent again.
pub(crate) fn command(token: TokenHash, ticket: Ticket, op: Op) -> v1::Command {
    v1::Command {
        caller: caller(token),
        session: ticket.session.to_wire(),
        sequence: ticket.sequence,
        op: Some(op),
    }
}

pub(crate) async fn commit(filer: &DynFiler, command: v1::Command) -> Result<v1::Outcome, Failure> {
    let request = v1::CommitBatchRequest { commands: vec![command] };
    let reply = filer.commit_batch(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let mut outcome = only(reply.into_inner().outcomes, "commit_batch")?;
    outcome.failure.take().map_or(Ok(outcome), |failure| Err(failure.into()))
}

pub(crate) fn put_op(put: PutFile, content: Content) -> Op {
    Op::PutFile(put_file(put, Some(content)))
}

pub(crate) fn add_references_op(add: AddReferences) -> Op {
    Op::AddReferences(v1::AddReferences {
        manifest: add.manifest.to_wire(),
        first_number: add.first_number,
        first_offset: add.first_offset,
        chunks: add.chunks.into_iter().map(chunk_ref).collect(),
    })
}

pub(crate) fn abandon_op(manifest: ManifestId) -> Op {
    Op::AbandonManifest(v1::AbandonManifest { manifest: manifest.to_wire() })
}

pub(crate) fn make_directory_op(make: MakeDirectory) -> Op {
    let (idempotency_key, idempotency_fingerprint) = idempotency(make.idempotency);
    let (high, low) = halves(make.ids);
    Op::MakeDirectory(v1::MakeDirectory {
        path: make.path.into(),
        entry_id: make.ids.entry.to_wire(),
        directory_id_seed_high: high,
        directory_id_seed_low: low,
        exist_ok: make.exist_ok,
        idempotency_key,
        idempotency_fingerprint,
    })
}

pub(crate) fn delete_op(delete: Delete) -> Op {
    let (idempotency_key, idempotency_fingerprint) = idempotency(delete.idempotency);
    Op::Delete(v1::Delete {
        path: delete.path.into(),
        condition: condition(delete.condition),
        recursive: delete.recursive,
        idempotency_key,
        idempotency_fingerprint,
    })
}

pub(crate) fn report_damaged_op(hash: ContentHash, copy: CopyId) -> Op {
    Op::ReportDamaged(v1::ReportDamaged { hash: hash.to_wire(), copy: copy.to_wire() })
}

pub(crate) fn put_done(mut outcome: v1::Outcome) -> Result<Put, Failure> {
    if let Some(failure) = outcome.failure.take() {
        return Err(failure.into());
    }
    let entry = required("outcome.entry", outcome.entry)?.try_into()?;
    Ok(Put { entry, created: outcome.created })
}

pub(crate) fn deleted(outcome: &v1::Outcome) -> Deleted {
    Deleted { removed: outcome.removed, more: outcome.more }
}

fn put_file(put: PutFile, content: Option<Content>) -> v1::PutFile {
    let (idempotency_key, idempotency_fingerprint) = idempotency(put.idempotency);
    let (high, low) = halves(put.ids);
    v1::PutFile {
        path: put.path.into(),
        condition: condition(put.condition),
        attributes: Some(v1::Attributes {
            content_type: put.attributes.content_type,
            user_metadata: name_values(put.attributes.user_metadata),
        }),
        entry_id: put.ids.entry.to_wire(),
        directory_id_seed_high: high,
        directory_id_seed_low: low,
        content: content.map(|content| match content {
            Content::Empty => put_file::Content::Empty(v1::Empty {}),
            Content::Chunk(chunk) => put_file::Content::Chunk(chunk_ref(chunk)),
            Content::Manifest(manifest) => put_file::Content::Manifest(manifest_ref(manifest)),
        }),
        idempotency_key,
        idempotency_fingerprint,
    }
}

fn halves(ids: NewIds) -> (u64, u64) {
    ((ids.directories >> 64) as u64, ids.directories as u64)
}

fn idempotency(idempotency: Option<Idempotency>) -> (String, Bytes) {
    idempotency.map_or_else(Default::default, |i| (i.key, Bytes::copy_from_slice(&i.fingerprint)))
}

fn condition(condition: Condition) -> Option<v1::Condition> {
    if condition == Condition::default() {
        return None;
    }
    let hashes = |hashes: Vec<ContentHash>| hashes.iter().map(WireId::to_wire).collect();
    Some(v1::Condition {
        if_match: hashes(condition.if_match),
        if_match_any: condition.if_match_any,
        if_none_match: hashes(condition.if_none_match),
        if_none_match_any: condition.if_none_match_any,
    })
}

fn chunk_ref(chunk: ChunkRef) -> v1::ChunkRef {
    v1::ChunkRef { chunk: Some(chunk.chunk.into()), new_copy: chunk.new_copy.map(Into::into) }
}

fn manifest_ref(manifest: ManifestRef) -> v1::ManifestRef {
    v1::ManifestRef {
        id: manifest.id.to_wire(),
        root_hash: manifest.root_hash.to_wire(),
        chunk_count: manifest.chunk_count,
        size: manifest.size,
    }
}

pub(crate) async fn resolve(
    filer: &DynFiler,
    token: TokenHash,
    resolve: Resolve,
) -> Result<Resolved, Failure> {
    let item = v1::ResolveItem {
        caller: caller(token),
        path: resolve.path.into(),
        offset: resolve.offset,
        chunks: resolve.chunks,
        suffix: resolve.suffix,
    };
    let request = v1::ResolveBatchRequest { items: vec![item] };
    let reply = filer.resolve_batch(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    let item = only(reply.into_inner().items, "resolve_batch")?;
    if let Some(failure) = item.failure {
        return Err(failure.into());
    }
    Ok(Resolved { entry: required("resolved.entry", item.entry)?.try_into()?, chunks: located(item.chunks)? })
}

fn located(chunks: Vec<v1::LocatedChunk>) -> Result<Vec<LocatedChunk>, ConvertError> {
    chunks.into_iter().map(TryInto::try_into).collect()
}

pub(crate) async fn read_manifest(
    filer: &DynFiler,
    token: TokenHash,
    manifest: ManifestId,
    first_number: u32,
    count: u32,
) -> Result<Vec<LocatedChunk>, Failure> {
    let request =
        v1::ReadManifestRequest { caller: caller(token), manifest: manifest.to_wire(), first_number, count };
    let reply = filer.read_manifest(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    Ok(located(reply.into_inner().chunks)?)
}

pub(crate) async fn find_own(
    filer: &DynFiler,
    token: TokenHash,
    hashes: &[ContentHash],
) -> Result<Vec<bool>, Failure> {
    let request =
        v1::FindOwnRequest { caller: caller(token), hashes: hashes.iter().map(WireId::to_wire).collect() };
    let reply =
        filer.find_own(Request::new(request)).await.map_err(|status| to_failure(&status))?.into_inner();
    if reply.owned.len() != hashes.len() {
        let text = format!("find_own answered {} hashes with {} answers", hashes.len(), reply.owned.len());
        return Err(Failure::new(ErrorCode::Internal, text));
    }
    Ok(reply.owned)
}

pub(crate) async fn list(filer: &DynFiler, token: TokenHash, list: List) -> Result<Page, Failure> {
    let request = v1::ListRequest {
        caller: caller(token),
        directory: list.directory.into(),
        recursive: list.recursive,
        limit: list.limit,
        after: list.after.unwrap_or_default().into(),
    };
    let reply = filer.list(Request::new(request)).await.map_err(|status| to_failure(&status))?.into_inner();
    let entries = reply.entries.into_iter().map(TryInto::try_into).collect::<Result<_, ConvertError>>()?;
    Ok(Page { entries, more: reply.more })
}

/// Opens `sessions`; how long they last, in ms.
pub(crate) async fn open_sessions(filer: &DynFiler, sessions: &[SessionId]) -> Result<u64, Failure> {
    let request = v1::OpenSessionsRequest { sessions: sessions.iter().map(WireId::to_wire).collect() };
    let reply = filer.open_sessions(Request::new(request)).await.map_err(|status| to_failure(&status))?;
    Ok(reply.into_inner().ttl_ms)
}

pub(crate) async fn status(filer: &DynFiler) -> Result<FilerStatus, Failure> {
    let reply = filer
        .filer_status(Request::new(v1::FilerStatusRequest {}))
        .await
        .map_err(|status| to_failure(&status))?;
    Ok(filer_status(reply.into_inner())?)
}

fn filer_status(status: v1::FilerStatusReply) -> Result<FilerStatus, ConvertError> {
    Ok(FilerStatus {
        cluster: ClusterId::from_wire("filer_status.cluster", &status.cluster)?,
        raft_term: status.raft_term,
        raft_applied: status.raft_applied,
        log_time_ms: status.log_time_ms,
        tenants: status.tenants.into_iter().map(usage).collect::<Result<_, _>>()?,
        contents_owned: status.contents_owned,
        references: status.references,
        copies: status.copies,
        copy_bytes: status.copy_bytes,
        delete_queue: status.delete_queue,
        manifests_unpublished: status.manifests_unpublished,
        manifests_draining: status.manifests_draining,
        sessions: status.sessions,
        durability: status.durability,
        path_index_mode: status.path_index_mode,
        not_ready: (!status.ready).then_some(status.not_ready_reason),
    })
}

fn usage(usage: v1::UsageReport) -> Result<Usage, ConvertError> {
    Ok(Usage {
        tenant: TenantId::from_wire("usage.tenant", &usage.tenant)?,
        name: usage.name,
        logical_bytes: usage.logical_bytes,
        files: usage.files,
        directories: usage.directories,
    })
}
