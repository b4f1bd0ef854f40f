//! From the wire's messages to the filer's own types. Whatever is missing or malformed is `invalid_argument`.

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ContentHash, CopyId, EntryId, ManifestId, SessionId};
use hay_proto::convert::{ConvertError, WireId, array, pairs, required};
use hay_proto::v1;

use crate::namespace::command::{
    Action, AddReferences, ChunkRef, ClientCommand, Condition, Delete, Idempotency, MakeDirectory,
    NewContent, PutFile, TokenHash,
};
use crate::namespace::path::PathError;
use crate::namespace::query::{ListQuery, WantedChunks};
use crate::server::core::ResolveItem;

/// Who calls. There is one group, 0.
pub(super) fn caller(caller: Option<v1::Caller>) -> Result<TokenHash, Failure> {
    let caller = required("caller", caller)?;
    if caller.group != 0 {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("there is no group {} here", caller.group),
        ));
    }
    Ok(TokenHash(array("caller.token_hash", &caller.token_hash)?))
}

fn path(bytes: Bytes) -> Result<String, Failure> {
    String::from_utf8(bytes.into()).map_err(|_| PathError::NotUtf8.into())
}

fn hashes(field: &'static str, hashes: &[Bytes]) -> Result<Vec<ContentHash>, ConvertError> {
    hashes.iter().map(|hash| ContentHash::from_wire(field, hash)).collect()
}

fn condition(condition: Option<v1::Condition>) -> Result<Condition, ConvertError> {
    let condition = condition.unwrap_or_default();
    Ok(Condition {
        if_match: hashes("condition.if_match", &condition.if_match)?,
        if_match_any: condition.if_match_any,
        if_none_match: hashes("condition.if_none_match", &condition.if_none_match)?,
        if_none_match_any: condition.if_none_match_any,
    })
}

fn idempotency(key: String, fingerprint: &[u8]) -> Result<Option<Idempotency>, ConvertError> {
    if key.is_empty() {
        return Ok(None);
    }
    Ok(Some(Idempotency { key, fingerprint: array("idempotency_fingerprint", fingerprint)? }))
}

fn seed(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn chunk_ref(wanted: v1::ChunkRef) -> Result<ChunkRef, ConvertError> {
    Ok(ChunkRef {
        chunk: required("chunk_ref.chunk", wanted.chunk)?.try_into()?,
        new_copy: wanted.new_copy.map(TryInto::try_into).transpose()?,
    })
}

fn content(content: v1::put_file::Content) -> Result<NewContent, ConvertError> {
    Ok(match content {
        v1::put_file::Content::Empty(_) => NewContent::Empty,
        v1::put_file::Content::Chunk(chunk) => NewContent::Chunk(chunk_ref(chunk)?),
        v1::put_file::Content::Manifest(manifest) => NewContent::Manifest {
            id: ManifestId::from_wire("manifest.id", &manifest.id)?,
            root: ContentHash::from_wire("manifest.root_hash", &manifest.root_hash)?,
            chunk_count: manifest.chunk_count,
            size: manifest.size,
        },
    })
}

/// A put, and its content where that is known.
pub(super) fn put_file(put: v1::PutFile) -> Result<(PutFile, Option<NewContent>), Failure> {
    let known = put.content.map(content).transpose()?;
    let attributes = put.attributes.unwrap_or_default();
    let wanted = PutFile {
        path: path(put.path)?,
        condition: condition(put.condition)?,
        content_type: attributes.content_type,
        user_metadata: pairs(attributes.user_metadata),
        entry_id: EntryId::from_wire("put_file.entry_id", &put.entry_id)?,
        directory_seed: seed(put.directory_id_seed_high, put.directory_id_seed_low),
        content: known.unwrap_or(NewContent::Empty),
        idempotency: idempotency(put.idempotency_key, &put.idempotency_fingerprint)?,
    };
    Ok((wanted, known))
}

fn action(op: v1::command::Op) -> Result<Action, Failure> {
    Ok(match op {
        v1::command::Op::PutFile(put) => {
            let (wanted, known) = put_file(put)?;
            required("put_file.content", known)?;
            Action::PutFile(wanted)
        }
        v1::command::Op::AddReferences(add) => Action::AddReferences(AddReferences {
            manifest: ManifestId::from_wire("add_references.manifest", &add.manifest)?,
            first_number: add.first_number,
            first_offset: add.first_offset,
            chunks: add.chunks.into_iter().map(chunk_ref).collect::<Result<_, _>>()?,
        }),
        v1::command::Op::AbandonManifest(abandon) => Action::AbandonManifest {
            manifest: ManifestId::from_wire("abandon_manifest.manifest", &abandon.manifest)?,
        },
        v1::command::Op::MakeDirectory(make) => Action::MakeDirectory(MakeDirectory {
            path: path(make.path)?,
            entry_id: EntryId::from_wire("make_directory.entry_id", &make.entry_id)?,
            directory_seed: seed(make.directory_id_seed_high, make.directory_id_seed_low),
            exist_ok: make.exist_ok,
            idempotency: idempotency(make.idempotency_key, &make.idempotency_fingerprint)?,
        }),
        v1::command::Op::Delete(delete) => Action::Delete(Delete {
            path: path(delete.path)?,
            condition: condition(delete.condition)?,
            recursive: delete.recursive,
            idempotency: idempotency(delete.idempotency_key, &delete.idempotency_fingerprint)?,
        }),
        v1::command::Op::ReportDamaged(report) => Action::ReportDamaged {
            hash: ContentHash::from_wire("report_damaged.hash", &report.hash)?,
            copy: CopyId::from_wire("report_damaged.copy", &report.copy)?,
        },
    })
}

/// A command of a principal.
pub(super) fn command(command: v1::Command) -> Result<ClientCommand, Failure> {
    Ok(ClientCommand {
        token: caller(command.caller)?,
        session: SessionId::from_wire("command.session", &command.session)?,
        sequence: command.sequence,
        action: action(required("command.op", command.op)?)?,
    })
}

/// One question of a batch.
pub(super) fn resolve_item(item: v1::ResolveItem) -> Result<ResolveItem, Failure> {
    Ok(ResolveItem {
        token: caller(item.caller)?,
        path: path(item.path)?,
        chunks: WantedChunks { offset: item.offset, suffix: item.suffix, count: item.chunks },
    })
}

/// Which entries are listed.
pub(super) fn list(request: v1::ListRequest) -> Result<(TokenHash, ListQuery), Failure> {
    let query = ListQuery {
        directory: path(request.directory)?,
        recursive: request.recursive,
        limit: request.limit as usize,
        after: path(request.after)?,
    };
    Ok((caller(request.caller)?, query))
}

/// Contents that are asked about.
pub(super) fn find_own(request: v1::FindOwnRequest) -> Result<(TokenHash, Vec<ContentHash>), Failure> {
    Ok((caller(request.caller)?, hashes("find_own.hashes", &request.hashes)?))
}

/// Sessions that are to be opened.
pub(super) fn sessions(request: v1::OpenSessionsRequest) -> Result<Vec<SessionId>, Failure> {
    let one = |id: &Bytes| SessionId::from_wire("open_sessions.sessions", id);
    Ok(request.sessions.iter().map(one).collect::<Result<_, _>>()?)
}
