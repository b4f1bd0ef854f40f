//! Where an entry can stand: the directories above it, and what may not be in its way.

use hay_common::error::ErrorCode;
use hay_common::ids::{EntryId, TenantId};

use super::apply::{Applied, Context, refuse};
use super::command::{Condition, MakeDirectory};
use super::path::EntryPath;
use super::rows::{Rows, RowsError, read};
use crate::schema::keys;
use crate::schema::values::{Answer, EntryRow, TokenRow};

/// The entry at a path.
pub(super) fn entry_at(rows: &dyn Rows, tenant: TenantId, path: &str) -> Result<Option<EntryRow>, RowsError> {
    read(rows, &keys::entry(tenant, path.as_bytes()))
}

/// Directories above `path` that are not there yet, from the innermost outwards.
///
/// # Errors
/// `not_directory` where a file stands in the way.
pub(super) fn missing_parents<'p>(
    rows: &dyn Rows,
    tenant: TenantId,
    path: EntryPath<'p>,
) -> Applied<Vec<&'p str>> {
    let mut missing = Vec::new();
    for parent in path.parents() {
        if rows.get(&keys::entry(tenant, parent.as_bytes()))?.is_some() {
            // All above an existing row exist.
            break;
        }
        no_file_in_the_way(rows, tenant, parent)?;
        missing.push(parent);
    }
    Ok(missing)
}

/// # Errors
/// `not_directory` where a file stands at the path of `directory` without its slash.
pub(super) fn no_file_in_the_way(rows: &dyn Rows, tenant: TenantId, directory: &str) -> Applied<()> {
    let file = directory.trim_end_matches('/');
    if !file.is_empty() && rows.get(&keys::entry(tenant, file.as_bytes()))?.is_some() {
        return refuse(ErrorCode::NotDirectory, format!("{file:?} is a file, not a directory"));
    }
    Ok(())
}

/// # Errors
/// `is_directory` where a directory stands at `file` with a slash.
pub(super) fn no_directory_in_the_way(rows: &dyn Rows, tenant: TenantId, file: &str) -> Applied<()> {
    if rows.get(&keys::entry(tenant, format!("{file}/").as_bytes()))?.is_some() {
        return refuse(ErrorCode::IsDirectory, format!("{file:?} is a directory, not a file"));
    }
    Ok(())
}

/// Makes the directories of [`missing_parents`].
pub(super) fn make_parents(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    missing: &[&str],
    seed: u128,
) -> Result<(), RowsError> {
    for (nth, parent) in missing.iter().enumerate() {
        let id = EntryId::from_random(seed.wrapping_add(nth as u128));
        let row = EntryRow::directory(id, context.wall_ms);
        context.batch.put(keys::entry(tenant, parent.as_bytes()), &row);
    }
    if !missing.is_empty() {
        context.account(tenant, |u| u.directories += missing.len() as u64)?;
    }
    Ok(())
}

/// # Errors
/// `precondition_failed` where the condition does not hold for what is there.
pub(super) fn check_condition(condition: &Condition, path: &str, there: Option<&EntryRow>) -> Applied<()> {
    let hash = there.and_then(|entry| entry.content.hash());
    let has_one_of = |hashes: &[_]| hash.is_some_and(|hash| hashes.contains(&hash));
    let must_match = condition.if_match_any || !condition.if_match.is_empty();
    let matches = there.is_some() && (condition.if_match_any || has_one_of(&condition.if_match));
    if must_match && !matches {
        let what = if there.is_none() { "is not there" } else { "has another ETag" };
        return refuse(ErrorCode::PreconditionFailed, format!("If-Match does not hold: {path:?} {what}"));
    }
    if condition.if_none_match_any && there.is_some() || has_one_of(&condition.if_none_match) {
        return refuse(
            ErrorCode::PreconditionFailed,
            format!("If-None-Match does not hold: {path:?} is there"),
        );
    }
    Ok(())
}

/// Makes a directory and those above it.
pub(super) fn make_directory(
    context: &mut Context<'_, '_>,
    who: &TokenRow,
    wanted: &MakeDirectory,
) -> Applied<Answer> {
    let tenant = who.tenant;
    let path = EntryPath::directory(&wanted.path)?;
    if let Some(there) = entry_at(context.batch, tenant, path.as_str())? {
        if !wanted.exist_ok {
            return refuse(ErrorCode::IsDirectory, format!("directory {:?} exists already", wanted.path));
        }
        return Ok(Answer::Directory { id: there.id, created: false, modified_ms: there.modified_ms });
    }
    no_file_in_the_way(context.batch, tenant, path.as_str())?;
    let missing = missing_parents(context.batch, tenant, path)?;
    make_parents(context, tenant, &missing, wanted.directory_seed)?;
    let row = EntryRow::directory(wanted.entry_id, context.wall_ms);
    context.batch.put(keys::entry(tenant, path.as_str().as_bytes()), &row);
    context.account(tenant, |u| u.directories += 1)?;
    Ok(Answer::Directory { id: row.id, created: true, modified_ms: row.modified_ms })
}
