//! References to contents. Never under-counted: a reference is there before anything counts on it, and a copy goes to
//! the delete queue only when no tenant's row points to it.

use hay_common::error::ErrorCode;
use hay_common::ids::{ContentHash, CopyId, TenantId};
use hay_common::limits::CHUNK_BYTES_MAX;
use hay_common::model::{Chunk, Copy, CopyState};

use super::apply::{Applied, Context, refuse};
use super::command::ChunkRef;
use super::rows::{Order, Rows, RowsError, first, read};
use crate::schema::keys;
use crate::schema::values::{Answer, CopyRow, Mark, OwnRow, TokenRow};

/// Whether a tenant owns a chunk with a copy that may be relied on.
pub(super) fn owns(
    rows: &dyn Rows,
    tenant: TenantId,
    hash: &ContentHash,
) -> Result<Option<OwnRow>, RowsError> {
    let Some(own) = read::<OwnRow>(rows, &keys::own(tenant, hash))? else { return Ok(None) };
    Ok(live(rows, hash, own.copy)?.then_some(own))
}

fn live(rows: &dyn Rows, hash: &ContentHash, copy: CopyId) -> Result<bool, RowsError> {
    Ok(read::<CopyRow>(rows, &keys::copy(hash, copy))?.is_some_and(|row| row.copy.state == CopyState::Live))
}

/// Counts one more reference of `tenant` to a chunk.
pub(super) fn hold(context: &mut Context<'_, '_>, tenant: TenantId, wanted: &ChunkRef) -> Applied<()> {
    let Chunk { hash, size } = wanted.chunk;
    if size == 0 || size as usize > CHUNK_BYTES_MAX {
        return refuse(
            ErrorCode::InvalidArgument,
            format!("a chunk has between 1 and {CHUNK_BYTES_MAX} bytes, not {size}"),
        );
    }
    let key = keys::own(tenant, &hash);
    match context.read::<OwnRow>(&key)? {
        Some(own) if own.size != size => {
            refuse(ErrorCode::InvalidArgument, format!("content {hash} has {} bytes, not {size}", own.size))
        }
        Some(mut own) => {
            let usable = match &wanted.new_copy {
                // The very copy that the row has came once more: a commit that was repeated.
                Some(new) if new.id == own.copy => live(context.batch, &hash, own.copy)?,
                Some(new) if live(context.batch, &hash, own.copy)? => {
                    // Two uploads raced: what came first stays, the other needle must not leak.
                    keep_spare(context, &hash, new)?;
                    true
                }
                Some(new) => {
                    add_copy(context, &hash, new)?;
                    context.batch.put(keys::holder(new.id, tenant), &Mark);
                    let old = std::mem::replace(&mut own.copy, new.id);
                    let_go(context, tenant, &hash, old)?;
                    true
                }
                None => live(context.batch, &hash, own.copy)?,
            };
            if !usable {
                return gone(&hash);
            }
            own.references += 1;
            context.batch.put(key, &own);
            context.count(|c| c.references += 1)?;
            Ok(())
        }
        None => {
            let Some(new) = &wanted.new_copy else { return gone(&hash) };
            add_copy(context, &hash, new)?;
            context.batch.put(keys::holder(new.id, tenant), &Mark);
            context.batch.put(key, &OwnRow { references: 1, size, copy: new.id });
            context.count(|c| {
                c.contents_owned += 1;
                c.references += 1;
            })?;
            Ok(())
        }
    }
}

fn gone<T>(hash: &ContentHash) -> Applied<T> {
    refuse(ErrorCode::CopyGone, format!("the tenant has no live copy of content {hash}: send its bytes"))
}

/// Writes a copy's row, unless it is there already (a commit that was repeated).
fn add_copy(context: &mut Context<'_, '_>, hash: &ContentHash, new: &Copy) -> Applied<()> {
    if new.state != CopyState::Live {
        return refuse(ErrorCode::InvalidArgument, "a new copy can't be condemned or damaged");
    }
    let key = keys::copy(hash, new.id);
    match context.read::<CopyRow>(&key)? {
        Some(known) if known.copy == *new => Ok(()),
        Some(known) if known.copy.state != CopyState::Live => gone(hash),
        Some(_) => {
            refuse(ErrorCode::InvalidArgument, format!("copy {} of {hash} is known to be elsewhere", new.id))
        }
        None => {
            context.batch.put(key, &CopyRow { copy: *new, key: None });
            let stored = u64::from(new.stored_bytes);
            context.count(|c| {
                c.copies += 1;
                c.copy_bytes += stored;
            })?;
            Ok(())
        }
    }
}

/// Records a copy that nobody needs, so that it is collected.
fn keep_spare(context: &mut Context<'_, '_>, hash: &ContentHash, new: &Copy) -> Applied<()> {
    if context.exists(&keys::copy(hash, new.id))? {
        return Ok(());
    }
    add_copy(context, hash, new)?;
    queue(context, hash, new.id)?;
    Ok(())
}

fn queue(context: &mut Context<'_, '_>, hash: &ContentHash, copy: CopyId) -> Result<(), RowsError> {
    let key = keys::delete_queue(context.log_ms, hash, copy);
    if !context.exists(&key)? {
        context.batch.put(key, &Mark);
        context.count(|c| c.delete_queue += 1)?;
    }
    Ok(())
}

/// Drops one reference of `tenant` to a content.
pub(super) fn release(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    hash: &ContentHash,
) -> Result<(), RowsError> {
    let key = keys::own(tenant, hash);
    let Some(mut own) = context.read::<OwnRow>(&key)? else {
        // Stopping for good would keep every other file from being served; the reconciler finds the rest.
        tracing::error!(%tenant, %hash, "a reference is dropped that was never counted");
        return Ok(());
    };
    own.references = own.references.saturating_sub(1);
    context.count(|c| c.references = c.references.saturating_sub(1))?;
    if own.references > 0 {
        context.batch.put(key, &own);
        return Ok(());
    }
    context.batch.remove(key);
    context.count(|c| c.contents_owned = c.contents_owned.saturating_sub(1))?;
    let_go(context, tenant, hash, own.copy)
}

/// `tenant` does not point to a copy any more. One that nobody points to is queued, a damaged one too: only now is it
/// certain that it is not all there is. A condemned one is in the collector's hands already.
fn let_go(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    hash: &ContentHash,
    copy: CopyId,
) -> Result<(), RowsError> {
    context.batch.remove(keys::holder(copy, tenant));
    let row: Option<CopyRow> = context.read(&keys::copy(hash, copy))?;
    let condemned = row.is_some_and(|row| row.copy.state == CopyState::Condemned);
    if !condemned && first(context.batch, &keys::holders(copy), Order::Forward)?.is_none() {
        queue(context, hash, copy)?;
    }
    Ok(())
}

/// Notes that a copy is damaged, if it is the one that the caller's tenant uses: nothing newly relies on it then, and the
/// next put of the content brings another. It is read on: the fault may have passed, and it is all there is.
pub(super) fn report_damaged(
    context: &mut Context<'_, '_>,
    who: &TokenRow,
    hash: &ContentHash,
    copy: CopyId,
) -> Applied<Answer> {
    let own: Option<OwnRow> = context.read(&keys::own(who.tenant, hash))?;
    if own.is_none_or(|own| own.copy != copy) {
        return Ok(Answer::Reported);
    }
    let key = keys::copy(hash, copy);
    if let Some(mut row) = context.read::<CopyRow>(&key)?
        && row.copy.state == CopyState::Live
    {
        row.copy.state = CopyState::Damaged;
        context.batch.put(key, &row);
        tracing::error!(tenant = %who.tenant, %hash, %copy, location = ?row.copy.location, "a copy was reported damaged");
    }
    Ok(Answer::Reported)
}
