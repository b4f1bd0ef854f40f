//! A file appears, or is replaced.

use hay_common::error::ErrorCode;
use hay_common::ids::TenantId;
use hay_common::limits::{
    CONTENT_TYPE_BYTES_MAX, FILE_BYTES_MAX, USER_METADATA_BYTES_MAX, USER_METADATA_PAIRS_MAX,
};

use super::apply::{Applied, Context, refuse};
use super::command::{NewContent, PutFile};
use super::directory::{check_condition, entry_at, make_parents, missing_parents, no_directory_in_the_way};
use super::path::EntryPath;
use super::rows::{Rows, RowsError};
use super::{content, manifest};
use crate::schema::keys;
use crate::schema::values::{Answer, Attribute, Content, EntryRow, TokenRow};

/// Where a put file will stand.
pub(super) struct Place<'p> {
    /// What is there.
    pub there: Option<EntryRow>,
    /// Directories to make, from the innermost outwards.
    pub missing: Vec<&'p str>,
}

/// Checks all of a put but its content: path, attributes, what is in the way, condition.
pub(super) fn place<'p>(rows: &dyn Rows, tenant: TenantId, wanted: &'p PutFile) -> Applied<Place<'p>> {
    let path = EntryPath::file(&wanted.path)?;
    check_attributes(wanted)?;
    let there = entry_at(rows, tenant, path.as_str())?;
    let missing = match &there {
        // Its parents exist, and no directory can be beside it.
        Some(_) => Vec::new(),
        None => {
            let missing = missing_parents(rows, tenant, path)?;
            // Where a parent is missing, nothing can be below it.
            if missing.is_empty() {
                no_directory_in_the_way(rows, tenant, path.as_str())?;
            }
            missing
        }
    };
    check_condition(&wanted.condition, path.as_str(), there.as_ref())?;
    Ok(Place { there, missing })
}

fn check_attributes(wanted: &PutFile) -> Applied<()> {
    if wanted.content_type.as_ref().is_some_and(|t| t.len() > CONTENT_TYPE_BYTES_MAX) {
        return refuse(
            ErrorCode::TooLarge,
            format!("a content type has at most {CONTENT_TYPE_BYTES_MAX} bytes"),
        );
    }
    let pairs = &wanted.user_metadata;
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if pairs.len() > USER_METADATA_PAIRS_MAX || bytes > USER_METADATA_BYTES_MAX {
        return refuse(
            ErrorCode::TooLarge,
            format!(
                "user metadata has at most {USER_METADATA_PAIRS_MAX} pairs and {USER_METADATA_BYTES_MAX} bytes"
            ),
        );
    }
    let ordered = pairs.iter().zip(pairs.iter().skip(1)).all(|((a, _), (b, _))| a < b);
    let lower =
        pairs.iter().all(|(name, _)| !name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase()));
    if !ordered || !lower {
        return refuse(
            ErrorCode::InvalidArgument,
            "names of user metadata are lower-case, sorted and unique",
        );
    }
    Ok(())
}

/// Applies a put: new references first, then the entry, then the old references.
pub(super) fn put_file(context: &mut Context<'_, '_>, who: &TokenRow, wanted: &PutFile) -> Applied<Answer> {
    let tenant = who.tenant;
    let Place { there, missing } = place(context.batch, tenant, wanted)?;
    let content = take_content(context, tenant, &wanted.content)?;
    make_parents(context, tenant, &missing, wanted.directory_seed)?;
    let mut attributes = Vec::new();
    attributes.extend(wanted.content_type.clone().map(Attribute::ContentType));
    if !wanted.user_metadata.is_empty() {
        attributes.push(Attribute::UserMetadata(wanted.user_metadata.clone()));
    }
    // A replaced file stays the same file: grants name its id.
    let id = there.as_ref().map_or(wanted.entry_id, |row| row.id);
    let row = EntryRow {
        id,
        version: None,
        delete_marker: false,
        content,
        modified_ms: context.wall_ms,
        attributes,
    };
    context.batch.put(keys::entry(tenant, wanted.path.as_bytes()), &row);
    let old_size = there.as_ref().map_or(0, |row| row.content.size());
    context.account(tenant, |u| {
        u.logical_bytes = u.logical_bytes.saturating_sub(old_size) + content.size();
        u.files += u64::from(there.is_none());
    })?;
    if let Some(old) = &there {
        drop_content(context, tenant, &old.content)?;
    }
    Ok(Answer::Put { id, created: there.is_none(), content, modified_ms: row.modified_ms })
}

fn take_content(context: &mut Context<'_, '_>, tenant: TenantId, wanted: &NewContent) -> Applied<Content> {
    match *wanted {
        NewContent::Empty => Ok(Content::Empty),
        NewContent::Chunk(chunk) => {
            content::hold(context, tenant, &chunk)?;
            Ok(Content::Chunk(chunk.chunk))
        }
        NewContent::Manifest { id, root, chunk_count, size } => {
            if size > FILE_BYTES_MAX {
                return refuse(ErrorCode::TooLarge, format!("a file has at most {FILE_BYTES_MAX} bytes"));
            }
            manifest::publish(context, tenant, id, (root, chunk_count, size))?;
            Ok(Content::Manifest { id, root, chunk_count, size })
        }
    }
}

/// Drops what an entry that goes away counted on.
pub(super) fn drop_content(
    context: &mut Context<'_, '_>,
    tenant: TenantId,
    content: &Content,
) -> Result<(), RowsError> {
    match content {
        Content::Directory | Content::Empty => Ok(()),
        Content::Chunk(chunk) => content::release(context, tenant, &chunk.hash),
        Content::Manifest { id, .. } => manifest::release(context, tenant, *id),
    }
}
