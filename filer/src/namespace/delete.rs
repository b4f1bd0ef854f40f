//! Files and directories go away.

use hay_common::error::ErrorCode;
use hay_common::ids::TenantId;
use hay_common::limits::DELETE_BATCH_MAX;

use super::apply::{Applied, Context, refuse};
use super::command::Delete;
use super::directory::{check_condition, entry_at, no_directory_in_the_way, no_file_in_the_way};
use super::path::EntryPath;
use super::put::drop_content;
use super::rows::{Order, Rows, RowsError, Walk};
use crate::schema::keys::{self, Key};
use crate::schema::values::{Answer, Content, EntryRow, Row, TokenRow};

/// Removes a file, an empty directory, or the last entries of a directory with all that is below.
pub(super) fn delete(context: &mut Context<'_, '_>, who: &TokenRow, wanted: &Delete) -> Applied<Answer> {
    let tenant = who.tenant;
    let path = EntryPath::parse(&wanted.path)?;
    if path.is_root() {
        return refuse(ErrorCode::InvalidPath, "the root of a tree can't be removed");
    }
    let there = entry_at(context.batch, tenant, path.as_str())?;
    if there.is_none() {
        if path.is_directory() {
            no_file_in_the_way(context.batch, tenant, path.as_str())?;
        } else {
            no_directory_in_the_way(context.batch, tenant, path.as_str())?;
        }
    }
    check_condition(&wanted.condition, path.as_str(), there.as_ref())?;
    let Some(there) = there else {
        return refuse(ErrorCode::NotFound, format!("nothing is at {:?}", wanted.path));
    };
    let range = keys::under(keys::entry(tenant, path.as_str().as_bytes()));
    let doomed = match (path.is_directory(), wanted.recursive) {
        (false, _) => vec![(range.start, there)],
        // From the last to the first: a directory goes after all that is below it, so that whatever is left at any
        // moment has its parents.
        (true, true) => last_entries(context.batch, &range, DELETE_BATCH_MAX)?,
        (true, false) => last_entries(context.batch, &range, 2)?,
    };
    if path.is_directory() && !wanted.recursive && doomed.len() > 1 {
        return refuse(ErrorCode::DirectoryNotEmpty, format!("directory {:?} is not empty", wanted.path));
    }
    let more = !doomed.iter().any(|(key, _)| keys::entry_path(key) == path.as_str().as_bytes());
    let removed = u32::try_from(doomed.len()).unwrap_or(u32::MAX);
    remove_all(context, tenant, doomed)?;
    Ok(Answer::Deleted { removed, more })
}

fn last_entries(
    rows: &dyn Rows,
    range: &std::ops::Range<Key>,
    max: usize,
) -> Result<Vec<(Key, EntryRow)>, RowsError> {
    let mut found = Vec::new();
    rows.walk(range, Order::Reverse, &mut |key, value| {
        found.push((key.to_vec(), EntryRow::decode(value)?));
        Ok(if found.len() == max { Walk::Stop } else { Walk::On })
    })?;
    Ok(found)
}

fn remove_all(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    doomed: Vec<(Key, EntryRow)>,
) -> Result<(), RowsError> {
    let (mut files, mut directories, mut bytes) = (0u64, 0u64, 0u64);
    for (key, entry) in doomed {
        match entry.content {
            Content::Directory => directories += 1,
            Content::Empty | Content::Chunk(_) | Content::Manifest { .. } => files += 1,
        }
        bytes += entry.content.size();
        context.batch.remove(key);
        drop_content(context, tenant, &entry.content)?;
    }
    context.account(tenant, |u| {
        u.files = u.files.saturating_sub(files);
        u.directories = u.directories.saturating_sub(directories);
        u.logical_bytes = u.logical_bytes.saturating_sub(bytes);
    })
}
