//! Lists of chunks: they grow batch by batch, are published by an entry, and are dropped in the background when no
//! entry has them any more.

use hay_common::error::ErrorCode;
use hay_common::ids::{ContentHash, ManifestId, TenantId};
use hay_common::limits::{FILE_CHUNKS_MAX, MANIFEST_TTL, REFS_PER_ROW_MAX};
use hay_common::model::Chunk;

use super::apply::{Applied, Context, refuse};
use super::command::AddReferences;
use super::content;
use super::rows::{Order, Rows, RowsError, first, read};
use crate::schema::keys;
use crate::schema::values::{Answer, ManifestRow, ManifestState, Mark, RefsRow, Row, TokenRow};

/// Adds chunks. Batches may come in any order; each is checked against its neighbours, so that a manifest which has
/// as many chunks and bytes as it is said to have is whole.
pub(super) fn add_references(
    context: &mut Context<'_, '_>,
    who: &TokenRow,
    wanted: &AddReferences,
) -> Applied<Answer> {
    let (tenant, id) = (who.tenant, wanted.manifest);
    let count = wanted.chunks.len();
    if count == 0 || count > REFS_PER_ROW_MAX {
        return refuse(
            ErrorCode::InvalidArgument,
            format!("between 1 and {REFS_PER_ROW_MAX} references are added at once, not {count}"),
        );
    }
    let end = wanted.first_number.checked_add(count as u32).filter(|end| *end <= FILE_CHUNKS_MAX);
    let Some(end) = end else {
        return refuse(ErrorCode::TooLarge, format!("a file has at most {FILE_CHUNKS_MAX} chunks"));
    };
    let (had_chunks, had_bytes) = match context.read::<ManifestRow>(&keys::manifest(tenant, id))? {
        None => {
            context.count(|c| c.manifests_unpublished += 1)?;
            (0, 0)
        }
        Some(ManifestRow { state: ManifestState::Unpublished { expires_ms, chunks, bytes } }) => {
            context.batch.remove(keys::manifest_expiry(expires_ms, tenant, id));
            (chunks, bytes)
        }
        Some(ManifestRow { state: ManifestState::Published { .. } }) => {
            return refuse(ErrorCode::InvalidArgument, format!("manifest {id} is published: it can't grow"));
        }
        Some(ManifestRow { state: ManifestState::Draining }) => {
            return refuse(ErrorCode::CopyGone, format!("manifest {id} was given up: begin a new one"));
        }
    };
    let chunks: Vec<Chunk> = wanted.chunks.iter().map(|c| c.chunk).collect();
    let row = RefsRow { offset: wanted.first_offset, chunks };
    let (chunks, bytes) = if place_refs(context, tenant, wanted, end, &row)? {
        for chunk in &wanted.chunks {
            content::hold(context, tenant, chunk)?;
        }
        let added = row.end_offset() - row.offset;
        context.batch.put(keys::refs(tenant, id, wanted.first_number), &row);
        (had_chunks + count as u32, had_bytes + added)
    } else {
        (had_chunks, had_bytes)
    };
    let expires_ms = context.lives_until(MANIFEST_TTL);
    let state = ManifestState::Unpublished { expires_ms, chunks, bytes };
    context.batch.put(keys::manifest(tenant, id), &ManifestRow { state });
    context.batch.put(keys::manifest_expiry(expires_ms, tenant, id), &Mark);
    Ok(Answer::Added)
}

/// Whether the batch is new; `false` where just this batch is there already.
///
/// # Errors
/// `invalid_argument` where it does not fit what is there.
fn place_refs(
    context: &Context<'_, '_>,
    tenant: TenantId,
    wanted: &AddReferences,
    end: u32,
    row: &RefsRow,
) -> Applied<bool> {
    let misfit = |why: &str| {
        refuse(
            ErrorCode::InvalidArgument,
            format!("references from chunk {} of manifest {} {why}", wanted.first_number, wanted.manifest),
        )
    };
    let id = wanted.manifest;
    if row.offset.checked_add(row.chunks.iter().map(|c| u64::from(c.size)).sum()).is_none() {
        return misfit("begin beyond the end of any file");
    }
    if let Some((first_number, before)) = row_before(context.batch, tenant, id, wanted.first_number)? {
        if first_number == wanted.first_number {
            return if before == *row { Ok(false) } else { misfit("differ from those that are there") };
        }
        let before_end = first_number.saturating_add(before.chunks.len() as u32);
        if before_end > wanted.first_number {
            return misfit("overlap those before them");
        }
        if before_end == wanted.first_number && before.end_offset() != row.offset {
            return misfit("do not begin where those before them end");
        }
    } else if wanted.first_number == 0 && row.offset != 0 {
        return misfit("do not begin at 0");
    }
    let all = keys::all_refs(tenant, id);
    let after = keys::refs(tenant, id, wanted.first_number)..all.end;
    if let Some((key, value)) = first(context.batch, &after, Order::Forward)? {
        let next = refs_number(&key)?;
        if next < end {
            return misfit("overlap those after them");
        }
        if next == end && RefsRow::decode(&value).map_err(RowsError::from)?.offset != row.end_offset() {
            return misfit("do not end where those after them begin");
        }
    }
    Ok(true)
}

/// The row that begins at chunk `number` or last before it, and where it begins.
pub(super) fn row_before(
    rows: &dyn Rows,
    tenant: TenantId,
    id: ManifestId,
    number: u32,
) -> Result<Option<(u32, RefsRow)>, RowsError> {
    let range = keys::refs(tenant, id, 0)..keys::refs(tenant, id, number.saturating_add(1));
    let Some((key, value)) = first(rows, &range, Order::Reverse)? else { return Ok(None) };
    Ok(Some((refs_number(&key)?, RefsRow::decode(&value)?)))
}

/// The number in a key of a refs row.
pub(super) fn refs_number(key: &[u8]) -> Result<u32, RowsError> {
    keys::refs_first(key).ok_or_else(|| RowsError::Contradiction("a key of refs is cut short".to_owned()))
}

/// One more entry has the manifest. The first one publishes it.
pub(super) fn publish(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    id: ManifestId,
    wanted: (ContentHash, u32, u64),
) -> Applied<()> {
    let (root, chunk_count, size) = wanted;
    let key = keys::manifest(tenant, id);
    let entries = match context.read::<ManifestRow>(&key)?.map(|row| row.state) {
        None | Some(ManifestState::Draining) => {
            return refuse(
                ErrorCode::CopyGone,
                format!("manifest {id} is not there, or was given up: begin a new one"),
            );
        }
        Some(ManifestState::Unpublished { expires_ms, chunks, bytes }) => {
            // No two rows overlap: with the right number of chunks and the right last one, none is missing.
            let last = row_before(context.batch, tenant, id, u32::MAX)?;
            let last_end = last.map_or(0, |(number, row)| number.saturating_add(row.chunks.len() as u32));
            if chunks != chunk_count || bytes != size || last_end != chunk_count {
                return refuse(
                    ErrorCode::InvalidArgument,
                    format!(
                        "manifest {id} has {chunks} chunks and {bytes} bytes, not {chunk_count} and {size}"
                    ),
                );
            }
            context.batch.remove(keys::manifest_expiry(expires_ms, tenant, id));
            context.count(|c| {
                c.manifests_unpublished = c.manifests_unpublished.saturating_sub(1);
                c.manifests_published += 1;
            })?;
            0
        }
        Some(ManifestState::Published { entries, root: r, chunk_count: c, size: s }) => {
            if (r, c, s) != wanted {
                return refuse(
                    ErrorCode::InvalidArgument,
                    format!("manifest {id} was published as another file"),
                );
            }
            entries
        }
    };
    let state = ManifestState::Published { entries: entries + 1, root, chunk_count, size };
    context.batch.put(key, &ManifestRow { state });
    Ok(())
}

/// One entry less has the manifest. The last one queues it for draining.
pub(super) fn release(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    id: ManifestId,
) -> Result<(), RowsError> {
    let key = keys::manifest(tenant, id);
    match context.read::<ManifestRow>(&key)?.map(|row| row.state) {
        Some(ManifestState::Published { entries, root, chunk_count, size }) if entries > 1 => {
            let state = ManifestState::Published { entries: entries - 1, root, chunk_count, size };
            context.batch.put(key, &ManifestRow { state });
            Ok(())
        }
        Some(ManifestState::Published { .. }) => {
            context.count(|c| c.manifests_published = c.manifests_published.saturating_sub(1))?;
            queue_drain(context, tenant, id)
        }
        Some(ManifestState::Unpublished { .. } | ManifestState::Draining) | None => {
            tracing::error!(%tenant, manifest = %id, "an entry goes away whose manifest was not published");
            Ok(())
        }
    }
}

/// Gives an unpublished manifest up. One that is not there is given up already.
pub(super) fn abandon(context: &mut Context<'_, '_>, who: &TokenRow, id: ManifestId) -> Applied<Answer> {
    let row: Option<ManifestRow> = read(context.batch, &keys::manifest(who.tenant, id))?;
    match row.map(|row| row.state) {
        Some(ManifestState::Published { .. }) => {
            refuse(ErrorCode::InvalidArgument, format!("manifest {id} is published: delete the file"))
        }
        Some(ManifestState::Unpublished { expires_ms, .. }) => {
            give_up(context, who.tenant, id, expires_ms)?;
            Ok(Answer::Abandoned)
        }
        Some(ManifestState::Draining) | None => Ok(Answer::Abandoned),
    }
}

/// Queues an unpublished manifest for draining.
pub(super) fn give_up(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    id: ManifestId,
    expires_ms: u64,
) -> Result<(), RowsError> {
    context.batch.remove(keys::manifest_expiry(expires_ms, tenant, id));
    context.count(|c| c.manifests_unpublished = c.manifests_unpublished.saturating_sub(1))?;
    queue_drain(context, tenant, id)
}

fn queue_drain(context: &mut Context<'_, '_>, tenant: TenantId, id: ManifestId) -> Result<(), RowsError> {
    context.batch.put(keys::manifest(tenant, id), &ManifestRow { state: ManifestState::Draining });
    context.batch.put(keys::drain_queue(context.log_ms, tenant, id), &Mark);
    context.count(|c| c.manifests_draining += 1)
}
