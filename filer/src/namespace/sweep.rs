//! What the background does, a bounded piece at a time: drop references of manifests that nothing counts on, forget
//! what is over. Each piece leaves rows from which the next goes on, so a crash between two costs nothing.

use hay_common::ids::{ManifestId, SessionId, TenantId};
use hay_common::limits::{DRAIN_BATCH_MAX, EXPIRE_BATCH_MAX};

use super::apply::Context;
use super::command::Reply;
use super::rows::{Order, Rows, RowsError, Walk, keys_of};
use super::{content, manifest};
use crate::schema::keys::{self, Family, Key};
use crate::schema::values::{ManifestRow, ManifestState, RefsRow, Row};

fn damaged(family: Family) -> RowsError {
    RowsError::Contradiction(format!("a key of {family:?} is cut short"))
}

/// Drops references of draining manifests.
pub(super) fn drain(context: &mut Context<'_, '_>) -> Result<Reply, RowsError> {
    let queue = keys::all(Family::DrainQueue);
    let waiting = keys_of(context.batch, &queue, Order::Forward, DRAIN_BATCH_MAX + 1)?;
    let mut done = 0;
    let mut more = waiting.len() > DRAIN_BATCH_MAX;
    for key in waiting {
        if done >= DRAIN_BATCH_MAX {
            more = true;
            break;
        }
        let (tenant, id) = keys::timed_manifest(&key).ok_or_else(|| damaged(Family::DrainQueue))?;
        let (dropped, empty) = drain_one(context, tenant, id, DRAIN_BATCH_MAX - done)?;
        // An empty manifest counts too, so that the command is bounded.
        done += dropped.max(1);
        if empty {
            context.batch.remove(key);
            context.batch.remove(keys::manifest(tenant, id));
            context.count(|c| c.manifests_draining = c.manifests_draining.saturating_sub(1))?;
        } else {
            more = true;
        }
    }
    Ok(Reply::Swept { done: done as u64, more })
}

/// Drops whole rows of references until `budget` is reached. Says how many references, and whether none is left.
fn drain_one(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    id: ManifestId,
    budget: usize,
) -> Result<(usize, bool), RowsError> {
    let mut rows: Vec<(Key, RefsRow)> = Vec::new();
    let mut dropped = 0;
    let mut empty = true;
    context.batch.walk(&keys::all_refs(tenant, id), Order::Forward, &mut |key, value| {
        if dropped >= budget {
            empty = false;
            return Ok(Walk::Stop);
        }
        let row = RefsRow::decode(value)?;
        dropped += row.chunks.len();
        rows.push((key.to_vec(), row));
        Ok(Walk::On)
    })?;
    for (key, row) in rows {
        for chunk in &row.chunks {
            content::release(context, tenant, &chunk.hash)?;
        }
        context.batch.remove(key);
    }
    Ok((dropped, empty))
}

/// Forgets sessions, answers and unpublished manifests whose time is over.
pub(super) fn expire(context: &mut Context<'_, '_>) -> Result<Reply, RowsError> {
    let mut left = EXPIRE_BATCH_MAX;
    expire_idempotency(context, &mut left)?;
    expire_manifests(context, &mut left)?;
    expire_sessions(context, &mut left)?;
    Ok(Reply::Swept { done: (EXPIRE_BATCH_MAX - left) as u64, more: left == 0 })
}

fn over(context: &Context<'_, '_>, family: Family, max: usize) -> Result<Vec<Key>, RowsError> {
    keys_of(context.batch, &keys::until(family, context.log_ms), Order::Forward, max)
}

fn expire_idempotency(context: &mut Context<'_, '_>, left: &mut usize) -> Result<(), RowsError> {
    for key in over(context, Family::IdempotencyExpiry, *left)? {
        let row = keys::expiring_idempotency(&key).ok_or_else(|| damaged(Family::IdempotencyExpiry))?;
        context.batch.remove(row);
        context.batch.remove(key);
        *left -= 1;
    }
    Ok(())
}

fn expire_manifests(context: &mut Context<'_, '_>, left: &mut usize) -> Result<(), RowsError> {
    for key in over(context, Family::ManifestExpiry, *left)? {
        let (tenant, id) = keys::timed_manifest(&key).ok_or_else(|| damaged(Family::ManifestExpiry))?;
        *left -= 1;
        match context.read::<ManifestRow>(&keys::manifest(tenant, id))?.map(|row| row.state) {
            Some(ManifestState::Unpublished { expires_ms, .. }) if expires_ms <= context.log_ms => {
                manifest::give_up(context, tenant, id, expires_ms)?;
            }
            Some(_) | None => context.batch.remove(key),
        }
    }
    Ok(())
}

fn expire_sessions(context: &mut Context<'_, '_>, left: &mut usize) -> Result<(), RowsError> {
    for key in over(context, Family::SessionExpiry, *left)? {
        let id: SessionId = keys::expiring_session(&key).ok_or_else(|| damaged(Family::SessionExpiry))?;
        let answers = keys_of(context.batch, &keys::answers(id), Order::Forward, *left)?;
        *left -= answers.len();
        for answer in answers {
            context.batch.remove(answer);
        }
        // The session goes last: while it is there, its answers are found again.
        if *left == 0 {
            return Ok(());
        }
        context.batch.remove(keys::session(id));
        context.batch.remove(key);
        context.count(|c| c.sessions = c.sessions.saturating_sub(1))?;
        *left -= 1;
    }
    Ok(())
}
