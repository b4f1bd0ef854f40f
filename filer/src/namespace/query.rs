//! Questions about one snapshot of the rows. Each begins with the token: who asks is looked up in the same snapshot as
//! what is asked for.

use hay_common::error::ErrorCode;
use hay_common::ids::{ContentHash, ManifestId, SessionId, TenantId};
use hay_common::limits::{
    LIST_PAGE_BYTES_MAX, LIST_PAGE_DEFAULT, LIST_PAGE_MAX, PATH_BYTES_MAX, REFS_PER_ROW_MAX,
    TENANTS_REPORTED_MAX,
};
use hay_common::model::{Chunk, EntryInfo, LocatedChunk};

use super::apply::{Applied, authenticate, log_time, may_write, refuse};
use super::command::{NewContent, PutFile, TokenHash};
use super::directory::{entry_at, no_directory_in_the_way, no_file_in_the_way};
use super::manifest::{refs_number, row_before};
use super::path::EntryPath;
use super::rows::{Order, Rows, RowsError, Walk, read};
use super::session::{Asked, asked_before, put_before};
use super::{content, put};
use crate::schema::keys::{self, Family};
use crate::schema::values::{
    Answer, Content, CopyRow, Counters, EntryRow, ManifestRow, ManifestState, OwnRow, RefsRow, Row,
    TenantRow, TokenRow, UsageRow,
};

/// Who is behind a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoIs {
    /// The principal.
    pub principal: TokenRow,
    /// The name of its tenant.
    pub tenant_name: String,
}

/// Who is behind a token.
///
/// # Errors
/// `unauthenticated`.
pub fn whoami(rows: &dyn Rows, token: &TokenHash) -> Applied<WhoIs> {
    let principal = authenticate(rows, token)?;
    match read::<TenantRow>(rows, &keys::tenant(principal.tenant))? {
        Some(row) => Ok(WhoIs { principal, tenant_name: row.name }),
        None => Err(RowsError::Contradiction(format!("tenant {} is not there", principal.tenant)).into()),
    }
}

/// What is known before bytes move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The tenant of the caller.
    pub tenant: TenantId,
    /// The same request took effect before, under its `Idempotency-Key`.
    pub answered: Option<Answer>,
    /// The put needs no bytes: there are none, or the tenant owns them.
    pub needs_no_bytes: bool,
}

/// Checks a put as far as it is known: token, permission, path, condition, `Idempotency-Key`. `numbered`: the session and
/// sequence under which it would be committed; whose answer was lost gets it again.
///
/// # Errors
/// What the commit would refuse now.
pub fn check_put(
    rows: &dyn Rows,
    token: &TokenHash,
    wanted: &PutFile,
    known: Option<&NewContent>,
    numbered: Option<(SessionId, u64)>,
) -> Applied<Checked> {
    let who = authenticate(rows, token)?;
    let tenant = who.tenant;
    // First of all, as when a command is applied: after its own effect the same put may look forbidden.
    if let Some((session, sequence)) = numbered
        && let Some(answer) = put_before(rows, session, sequence)?
    {
        return Ok(Checked { tenant, answered: Some(answer), needs_no_bytes: false });
    }
    if let Some(key) = &wanted.idempotency
        && let Asked::Answered(answer) = asked_before(rows, &who, key, log_time(rows)?)?
    {
        return Ok(Checked { tenant, answered: Some(answer), needs_no_bytes: false });
    }
    may_write(&who)?;
    put::place(rows, tenant, wanted)?;
    let needs_no_bytes = match known {
        Some(NewContent::Empty) => true,
        Some(NewContent::Chunk(wanted)) => {
            content::owns(rows, tenant, &wanted.chunk.hash)?.is_some_and(|own| own.size == wanted.chunk.size)
        }
        Some(NewContent::Manifest { .. }) | None => false,
    };
    Ok(Checked { tenant, answered: None, needs_no_bytes })
}

/// Which chunks of a file are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WantedChunks {
    /// From the one that holds this byte on.
    pub offset: u64,
    /// Instead of `offset`: from the one that holds the first of the last so many bytes.
    pub suffix: Option<u64>,
    /// At most so many.
    pub count: u32,
}

/// An entry with some of its chunks. Chunks beyond the end of the file are none, not an error.
///
/// # Errors
/// `unauthenticated`, `invalid_path`, `not_found`, `is_directory`, `not_directory`.
pub fn resolve(
    rows: &dyn Rows,
    token: &TokenHash,
    path: &str,
    wanted: WantedChunks,
) -> Applied<(EntryInfo, Vec<LocatedChunk>)> {
    let tenant = authenticate(rows, token)?.tenant;
    let path = EntryPath::parse(path)?;
    let Some(entry) = entry_at(rows, tenant, path.as_str())? else { return absent(rows, tenant, path) };
    let size = entry.content.size();
    let offset = match wanted.suffix {
        Some(suffix) => size.saturating_sub(suffix),
        None => wanted.offset,
    };
    let chunks = match entry.content {
        _ if wanted.count == 0 || offset >= size => Vec::new(),
        Content::Directory | Content::Empty => Vec::new(),
        Content::Chunk(chunk) => vec![located(rows, tenant, 0, 0, chunk)?],
        Content::Manifest { id, chunk_count, .. } => {
            let number = chunk_at(rows, tenant, (id, chunk_count, size), offset)?;
            chunks_from(rows, tenant, id, number, wanted.count)?
        }
    };
    Ok((entry.into_info(path.as_str().to_owned()), chunks))
}

fn absent<T>(rows: &dyn Rows, tenant: TenantId, path: EntryPath<'_>) -> Applied<T> {
    if path.is_directory() {
        no_file_in_the_way(rows, tenant, path.as_str())?;
    } else {
        no_directory_in_the_way(rows, tenant, path.as_str())?;
    }
    refuse(ErrorCode::NotFound, format!("nothing is at {:?}", path.as_str()))
}

fn located(
    rows: &dyn Rows,
    tenant: TenantId,
    number: u32,
    offset: u64,
    chunk: Chunk,
) -> Applied<LocatedChunk> {
    let own: Option<OwnRow> = read(rows, &keys::own(tenant, &chunk.hash))?;
    let copy: Option<CopyRow> = match own {
        Some(own) => read(rows, &keys::copy(&chunk.hash, own.copy))?,
        None => None,
    };
    match copy {
        Some(row) => Ok(LocatedChunk { number, offset, chunk, copy: row.copy }),
        None => {
            Err(RowsError::Contradiction(format!("content {} is counted on, but has no copy", chunk.hash))
                .into())
        }
    }
}

/// The number of the chunk that holds byte `offset` of a manifest's file.
fn chunk_at(
    rows: &dyn Rows,
    tenant: TenantId,
    manifest: (ManifestId, u32, u64),
    offset: u64,
) -> Result<u32, RowsError> {
    let (id, chunk_count, size) = manifest;
    let broken = || RowsError::Contradiction(format!("manifest {id} does not cover byte {offset}"));
    let (mut low, mut high) = (0u32, chunk_count);
    // Chunks are mostly of one size: the first guess is mostly right.
    let share = u128::from(offset) * u128::from(chunk_count) / u128::from(size.max(1));
    let mut guess = u32::try_from(share).unwrap_or(u32::MAX);
    while low < high {
        let probe = guess.clamp(low, high - 1);
        let (first, row) = row_before(rows, tenant, id, probe)?.ok_or_else(broken)?;
        if offset < row.offset {
            high = first;
        } else if offset >= row.end_offset() {
            low = first.saturating_add(row.chunks.len() as u32);
        } else {
            let mut end = row.offset;
            for (nth, chunk) in row.chunks.iter().enumerate() {
                end += u64::from(chunk.size);
                if offset < end {
                    return Ok(first + nth as u32);
                }
            }
            return Err(broken());
        }
        guess = low + (high.saturating_sub(low)) / 2;
    }
    Err(broken())
}

/// At most `count` chunks from chunk `number` on.
fn chunks_from(
    rows: &dyn Rows,
    tenant: TenantId,
    id: ManifestId,
    number: u32,
    count: u32,
) -> Applied<Vec<LocatedChunk>> {
    let count = (count as usize).min(REFS_PER_ROW_MAX);
    let Some((from, _)) = row_before(rows, tenant, id, number)? else { return Ok(Vec::new()) };
    let mut wanted = Vec::new();
    let range = keys::refs(tenant, id, from)..keys::all_refs(tenant, id).end;
    rows.walk(&range, Order::Forward, &mut |key, value| {
        let (first, row) = (refs_number(key)?, RefsRow::decode(value)?);
        let mut offset = row.offset;
        for (nth, chunk) in row.chunks.iter().enumerate() {
            let this = first.saturating_add(nth as u32);
            if this >= number && wanted.len() < count {
                wanted.push((this, offset, *chunk));
            }
            offset += u64::from(chunk.size);
        }
        Ok(if wanted.len() < count { Walk::On } else { Walk::Stop })
    })?;
    wanted.into_iter().map(|(this, offset, chunk)| located(rows, tenant, this, offset, chunk)).collect()
}

/// Chunks of a manifest of the caller's tenant. Fewer than asked for at the end of the file.
///
/// # Errors
/// `not_found` where the manifest is not the tenant's, or went away while it was read.
pub fn read_manifest(
    rows: &dyn Rows,
    token: &TokenHash,
    id: ManifestId,
    first_number: u32,
    count: u32,
) -> Applied<Vec<LocatedChunk>> {
    let tenant = authenticate(rows, token)?.tenant;
    match read::<ManifestRow>(rows, &keys::manifest(tenant, id))?.map(|row| row.state) {
        Some(ManifestState::Published { chunk_count, .. }) if first_number < chunk_count => {
            chunks_from(rows, tenant, id, first_number, count)
        }
        Some(ManifestState::Published { .. }) => Ok(Vec::new()),
        Some(ManifestState::Unpublished { .. } | ManifestState::Draining) | None => {
            refuse(ErrorCode::NotFound, format!("no file has manifest {id}: it was removed or replaced"))
        }
    }
}

/// Which contents the caller's tenant owns with a live copy.
///
/// # Errors
/// `unauthenticated`.
pub fn find_own(rows: &dyn Rows, token: &TokenHash, hashes: &[ContentHash]) -> Applied<Vec<bool>> {
    let tenant = authenticate(rows, token)?.tenant;
    hashes.iter().map(|hash| Ok(content::owns(rows, tenant, hash)?.is_some())).collect()
}

/// Which entries are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Where: empty or with a slash at its end.
    pub directory: String,
    /// With all that is below, or only what is in it.
    pub recursive: bool,
    /// At most so many; 0: the default.
    pub limit: usize,
    /// Only what comes after this, relative to `directory`.
    pub after: String,
}

/// One page of entries, and whether there are more.
///
/// # Errors
/// `unauthenticated`, `invalid_path`, `not_found`, `not_directory`.
pub fn list(rows: &dyn Rows, token: &TokenHash, query: &ListQuery) -> Applied<(Vec<EntryInfo>, bool)> {
    let tenant = authenticate(rows, token)?.tenant;
    let directory = EntryPath::directory(&query.directory)?;
    if query.after.len() > PATH_BYTES_MAX {
        return refuse(ErrorCode::InvalidArgument, format!("`after` has at most {PATH_BYTES_MAX} bytes"));
    }
    if entry_at(rows, tenant, directory.as_str())?.is_none() {
        return absent(rows, tenant, directory);
    }
    let limit = match query.limit {
        0 => LIST_PAGE_DEFAULT,
        limit => limit.min(LIST_PAGE_MAX),
    };
    let front = keys::entry(tenant, directory.as_str().as_bytes());
    let (front_len, mut range) = (front.len(), keys::under(front.clone()));
    range.start = start_after(front, query);
    let (mut entries, mut bytes, mut more) = (Vec::new(), 0, false);
    rows.walk(&range, Order::Forward, &mut |key, value| {
        let below = key.get(front_len..).unwrap_or_default();
        let slash = below.iter().position(|b| *b == b'/');
        if let Some(slash) = slash.filter(|slash| !query.recursive && slash + 1 < below.len()) {
            // Inside a subdirectory that the cursor stands in.
            return Ok(Walk::Seek(past_directory(key, front_len + slash)));
        }
        if entries.len() == limit || bytes >= LIST_PAGE_BYTES_MAX {
            more = true;
            return Ok(Walk::Stop);
        }
        bytes += key.len() + value.len() + 128;
        let path = String::from_utf8_lossy(keys::entry_path(key)).into_owned();
        entries.push(EntryRow::decode(value)?.into_info(path));
        Ok(match slash {
            // However much is below it, one seek goes past.
            Some(slash) if !query.recursive => Walk::Seek(past_directory(key, front_len + slash)),
            _ => Walk::On,
        })
    })?;
    Ok((entries, more))
}

/// The first key after all that is below the directory whose slash stands at `slash`.
fn past_directory(key: &[u8], slash: usize) -> Vec<u8> {
    keys::under(key.get(..=slash).unwrap_or(key).to_vec()).end
}

fn start_after(mut front: Vec<u8>, query: &ListQuery) -> Vec<u8> {
    front.extend_from_slice(query.after.as_bytes());
    if !query.after.is_empty() && query.after.ends_with('/') && !query.recursive {
        return keys::under(front).end;
    }
    // Without a cursor this skips the row of the directory itself.
    front.push(0);
    front
}

/// Sums, and what each tenant uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums {
    /// Over all tenants.
    pub counters: Counters,
    /// The log time, in ms.
    pub log_ms: u64,
    /// Each tenant's id, name and usage.
    pub tenants: Vec<(TenantId, String, UsageRow)>,
}

/// Sums, and what each tenant uses.
///
/// # Errors
/// When rows can't be read.
pub fn sums(rows: &dyn Rows) -> Result<Sums, RowsError> {
    let mut tenants = Vec::new();
    rows.walk(&keys::all(Family::Tenant), Order::Forward, &mut |key, value| {
        if let Some(id) = key.get(1..).and_then(TenantId::from_slice) {
            tenants.push((id, TenantRow::decode(value)?.name, UsageRow::default()));
        }
        Ok(if tenants.len() < TENANTS_REPORTED_MAX { Walk::On } else { Walk::Stop })
    })?;
    for (id, _, usage) in &mut tenants {
        *usage = read(rows, &keys::usage(*id))?.unwrap_or_default();
    }
    Ok(Sums {
        counters: read(rows, &keys::counters())?.unwrap_or_default(),
        log_ms: log_time(rows)?,
        tenants,
    })
}
