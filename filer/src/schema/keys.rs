//! The keys of every row that the filer keeps: the whole persisted schema, on one screen.
//!
//! One column family; the first byte of a key is the ordinal of its family below, and never changes its meaning.
//! Numbers stand big endian, ids as their 16 bytes, hashes as 32, so that rows sort as they are read. Values: see
//! [`super::values`]. The format is described in `docs/formats/metadata.md`.

use std::ops::Range;

use hay_common::ids::{ContentHash, CopyId, ManifestId, PrincipalId, SessionId, TenantId};

use crate::namespace::command::TokenHash;

/// The first byte of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    // ---- the database itself ----
    /// → the format version of the database.
    Format = 0x01,
    /// → what the consensus recorded with the last write. Opaque.
    Applied = 0x02,
    /// → log time, in ms.
    LogTime = 0x03,
    /// → sums over all tenants, exact.
    Counters = 0x04,

    // ---- who ----
    /// {tenant} → its name.
    Tenant = 0x10,
    /// {name} → tenant id.
    TenantName = 0x11,
    /// {SHA-256 of a bearer token} → the principal behind it.
    Token = 0x12,
    /// {tenant} → logical bytes, files, directories.
    Usage = 0x13,

    // ---- paths, contents, references ----
    /// {tenant}{path bytes} → entry. A directory's path ends in a slash, the root's is empty; every ancestor of a row exists.
    Entry = 0x20,
    /// {tenant}{hash} → references, size and the copy that the tenant uses.
    Own = 0x21,
    /// {hash}{copy} → copy.
    Copy = 0x22,
    /// {copy}{tenant} → nothing: the tenant's own row points to the copy.
    Holder = 0x23,
    /// {tenant}{manifest} → state, entries that count on it, root, chunk count, size.
    Manifest = 0x24,
    /// {tenant}{manifest}{first chunk number} → start offset and at most 64 chunks.
    Refs = 0x25,
    /// {expiry ms}{tenant}{manifest} → nothing: unpublished manifests in the order of their expiry.
    ManifestExpiry = 0x26,
    /// {log ms}{tenant}{manifest} → nothing: manifests whose references are being dropped.
    DrainQueue = 0x27,
    /// {log ms}{hash}{copy} → nothing: copies that no tenant points to, since then.
    DeleteQueue = 0x28,

    // ---- commands applied once ----
    /// {session} → expiry, highest sequence.
    Session = 0x30,
    /// {expiry ms}{session} → nothing.
    SessionExpiry = 0x31,
    /// {session}{sequence} → the answer that was given.
    Answer = 0x32,
    /// {principal}{Idempotency-Key} → fingerprint, expiry, the answer that was given.
    Idempotency = 0x33,
    /// {expiry ms}{principal}{Idempotency-Key} → nothing.
    IdempotencyExpiry = 0x34,
}

/// Bytes of an id in a key.
pub const ID_BYTES: usize = 16;
/// Bytes of a hash in a key.
pub const HASH_BYTES: usize = 32;

/// A key, or the front of one.
pub type Key = Vec<u8>;

fn key(family: Family, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(family as u8);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The format version row.
pub fn format() -> Key {
    key(Family::Format, &[])
}

/// What the consensus recorded.
pub fn applied() -> Key {
    key(Family::Applied, &[])
}

/// The log time.
pub fn log_time() -> Key {
    key(Family::LogTime, &[])
}

/// The counters.
pub fn counters() -> Key {
    key(Family::Counters, &[])
}

/// A tenant.
pub fn tenant(id: TenantId) -> Key {
    key(Family::Tenant, &[id.as_bytes()])
}

/// A tenant's name.
pub fn tenant_name(name: &str) -> Key {
    key(Family::TenantName, &[name.as_bytes()])
}

/// A token.
pub fn token(hash: &TokenHash) -> Key {
    key(Family::Token, &[&hash.0])
}

/// A tenant's usage.
pub fn usage(tenant: TenantId) -> Key {
    key(Family::Usage, &[tenant.as_bytes()])
}

/// A path, or the front of one: paths below a directory begin with the directory's.
pub fn entry(tenant: TenantId, path: &[u8]) -> Key {
    key(Family::Entry, &[tenant.as_bytes(), path])
}

/// The path in an entry's key.
pub fn entry_path(key: &[u8]) -> &[u8] {
    key.get(1 + ID_BYTES..).unwrap_or_default()
}

/// What a tenant has of a content.
pub fn own(tenant: TenantId, hash: &ContentHash) -> Key {
    key(Family::Own, &[tenant.as_bytes(), &hash.0])
}

/// A copy of a content.
pub fn copy(hash: &ContentHash, id: CopyId) -> Key {
    key(Family::Copy, &[&hash.0, id.as_bytes()])
}

/// That a tenant points to a copy.
pub fn holder(copy: CopyId, tenant: TenantId) -> Key {
    key(Family::Holder, &[copy.as_bytes(), tenant.as_bytes()])
}

/// All that point to a copy.
pub fn holders(copy: CopyId) -> Range<Key> {
    under(key(Family::Holder, &[copy.as_bytes()]))
}

/// A manifest.
pub fn manifest(tenant: TenantId, id: ManifestId) -> Key {
    key(Family::Manifest, &[tenant.as_bytes(), id.as_bytes()])
}

/// Chunks of a manifest.
pub fn refs(tenant: TenantId, id: ManifestId, first: u32) -> Key {
    key(Family::Refs, &[tenant.as_bytes(), id.as_bytes(), &first.to_be_bytes()])
}

/// All chunks of a manifest.
pub fn all_refs(tenant: TenantId, id: ManifestId) -> Range<Key> {
    under(key(Family::Refs, &[tenant.as_bytes(), id.as_bytes()]))
}

/// The first chunk number in a key of [`refs`].
pub fn refs_first(key: &[u8]) -> Option<u32> {
    key.get(1 + 2 * ID_BYTES..)?.try_into().ok().map(u32::from_be_bytes)
}

/// An unpublished manifest, by its expiry.
pub fn manifest_expiry(expires_ms: u64, tenant: TenantId, id: ManifestId) -> Key {
    key(Family::ManifestExpiry, &[&expires_ms.to_be_bytes(), tenant.as_bytes(), id.as_bytes()])
}

/// A manifest whose references are being dropped.
pub fn drain_queue(since_ms: u64, tenant: TenantId, id: ManifestId) -> Key {
    key(Family::DrainQueue, &[&since_ms.to_be_bytes(), tenant.as_bytes(), id.as_bytes()])
}

/// The tenant and the manifest in a key of [`manifest_expiry`] or [`drain_queue`].
pub fn timed_manifest(key: &[u8]) -> Option<(TenantId, ManifestId)> {
    let ids = key.get(1 + 8..)?;
    let (tenant, manifest) = ids.split_at_checked(ID_BYTES)?;
    Some((TenantId::from_slice(tenant)?, ManifestId::from_slice(manifest)?))
}

/// A copy that nobody points to.
pub fn delete_queue(since_ms: u64, hash: &ContentHash, copy: CopyId) -> Key {
    key(Family::DeleteQueue, &[&since_ms.to_be_bytes(), &hash.0, copy.as_bytes()])
}

/// A session.
pub fn session(id: SessionId) -> Key {
    key(Family::Session, &[id.as_bytes()])
}

/// The session in a key of [`session`].
pub fn session_in(key: &[u8]) -> Option<SessionId> {
    SessionId::from_slice(key.get(1..)?)
}

/// A session, by its expiry.
pub fn session_expiry(expires_ms: u64, id: SessionId) -> Key {
    key(Family::SessionExpiry, &[&expires_ms.to_be_bytes(), id.as_bytes()])
}

/// The session in a key of [`session_expiry`].
pub fn expiring_session(key: &[u8]) -> Option<SessionId> {
    SessionId::from_slice(key.get(1 + 8..)?)
}

/// An answer that was given.
pub fn answer(session: SessionId, sequence: u64) -> Key {
    key(Family::Answer, &[session.as_bytes(), &sequence.to_be_bytes()])
}

/// All answers of a session.
pub fn answers(session: SessionId) -> Range<Key> {
    under(key(Family::Answer, &[session.as_bytes()]))
}

/// What was answered under an `Idempotency-Key`.
pub fn idempotency(principal: PrincipalId, text: &str) -> Key {
    key(Family::Idempotency, &[principal.as_bytes(), text.as_bytes()])
}

/// The same, by its expiry.
pub fn idempotency_expiry(expires_ms: u64, principal: PrincipalId, text: &str) -> Key {
    key(Family::IdempotencyExpiry, &[&expires_ms.to_be_bytes(), principal.as_bytes(), text.as_bytes()])
}

/// The key of [`idempotency`] that a key of [`idempotency_expiry`] stands for.
pub fn expiring_idempotency(expiry: &[u8]) -> Option<Key> {
    expiry.get(1 + 8..).map(|rest| key(Family::Idempotency, &[rest]))
}

/// All rows of a family.
pub fn all(family: Family) -> Range<Key> {
    under(key(family, &[]))
}

/// Rows of a family that is ordered by time, up to and with `until_ms`.
pub fn until(family: Family, until_ms: u64) -> Range<Key> {
    key(family, &[])..key(family, &[&until_ms.saturating_add(1).to_be_bytes()])
}

/// All keys that begin with `prefix`.
pub fn under(prefix: Key) -> Range<Key> {
    let mut end = prefix.clone();
    // No key begins with 0xff: the family byte always leaves room.
    while let Some(last) = end.last_mut() {
        if let Some(next) = last.checked_add(1) {
            *last = next;
            break;
        }
        end.pop();
    }
    prefix..end
}

fn is_directory(key: &[u8]) -> bool {
    key.first() == Some(&(Family::Entry as u8)) && (key.len() == 1 + ID_BYTES || key.last() == Some(&b'/'))
}

/// Whether rows of this key are read by most queries and changed by few commands: worth a place in the readers' own
/// memory.
pub fn is_known(key: &[u8]) -> bool {
    match key {
        [first, ..] if *first == Family::Entry as u8 => is_directory(key),
        [first, ..] => *first == Family::Token as u8 || *first == Family::Tenant as u8,
        [] => false,
    }
}

/// Whether rows of this key are few, and read by most commands: worth a place in the writer's own memory.
pub fn is_hot(key: &[u8]) -> bool {
    match key {
        [first, ..] if *first == Family::Entry as u8 => is_directory(key),
        [first, ..] => [Family::LogTime, Family::Counters, Family::Token, Family::Usage, Family::Session]
            .iter()
            .any(|family| *family as u8 == *first),
        [] => false,
    }
}
