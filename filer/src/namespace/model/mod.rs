//! What the namespace is checked against: an audit of all rows, and a simple reference that predicts every answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hay_common::error::ErrorCode;
use hay_common::ids::{
    ContentHash, Cookie, CopyId, EntryId, ManifestId, PrincipalId, SessionId, TenantId, VolumeId,
};
use hay_common::limits;
use hay_common::manifest::content_hash;
use hay_common::model::{Chunk, Codec, Copy, CopyState, EntryKind, Location};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::apply::apply;
use super::command::*;
use super::query::{self, ListQuery, WantedChunks};
use super::rows::{Batch, MemoryRows, Order, Rows, Walk};
use crate::schema::keys::{self, Family};
use crate::schema::values::*;

mod history;

pub use self::history::History;

pub const TOKEN: TokenHash = TokenHash([7; 32]);
pub const READER: TokenHash = TokenHash([8; 32]);
pub const START_MS: u64 = 1_700_000_000_000;

/// Something that applies proposals and shows rows: in memory, or RocksDB.
pub trait Engine {
    fn apply(&mut self, proposals: &[Proposal]) -> Vec<Reply>;
    fn read(&self, look: &mut dyn FnMut(&dyn Rows));
    /// Ends and begins again; with `crash` without a chance to write anything.
    fn restart(&mut self, crash: bool);
}

impl Engine for MemoryRows {
    fn apply(&mut self, proposals: &[Proposal]) -> Vec<Reply> {
        let mut batch = Batch::over(self);
        let replies = proposals.iter().map(|p| apply(&mut batch, p).unwrap()).collect();
        for (key, value) in batch.into_changes() {
            match value {
                Some(value) => self.insert(key, value),
                None => self.remove(&key),
            };
        }
        replies
    }

    fn read(&self, look: &mut dyn FnMut(&dyn Rows)) {
        look(self);
    }

    fn restart(&mut self, _crash: bool) {}
}

pub fn view<T>(engine: &dyn Engine, mut look: impl FnMut(&dyn Rows) -> T) -> T {
    let mut seen = None;
    engine.read(&mut |rows| seen = Some(look(rows)));
    seen.unwrap()
}

pub fn dump(engine: &dyn Engine) -> BTreeMap<Vec<u8>, Vec<u8>> {
    view(engine, |rows| {
        let mut all = BTreeMap::new();
        let range = vec![0]..vec![0xff];
        rows.walk(&range, Order::Forward, &mut |key, value| {
            // What stands for the engine itself differs between engines.
            if key[0] != Family::Format as u8 && key[0] != Family::Applied as u8 {
                all.insert(key.to_vec(), value.to_vec());
            }
            Ok(Walk::On)
        })
        .unwrap();
        all
    })
}

pub fn tenant() -> TenantId {
    TenantId::from_random(1)
}

pub fn bootstrap() -> Proposal {
    let op = Op::Bootstrap(Bootstrap {
        tenant_name: "default".into(),
        tenant: tenant(),
        root: EntryId::from_random(2),
        principal: PrincipalId::from_random(3),
        token: TOKEN,
    });
    Proposal { wall_ms: START_MS, op }
}

/// Content number `n`: its size follows from it.
pub fn chunk(n: u64) -> Chunk {
    let mut hash = [0x5a; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    Chunk { hash: ContentHash(hash), size: 100 + n as u32 }
}

pub fn copy(id: u128) -> Copy {
    Copy {
        id: CopyId::from_random(id),
        location: Location::Volume { volume: VolumeId(3), cookie: Cookie(id as u32) },
        codec: Codec::PLAIN,
        stored_bytes: 50,
        state: CopyState::Live,
    }
}

pub fn put(path: &str, content: NewContent) -> PutFile {
    PutFile {
        path: path.to_owned(),
        condition: Condition::default(),
        content_type: None,
        user_metadata: Vec::new(),
        entry_id: EntryId::from_random(0x1000),
        directory_seed: 0x2000,
        content,
        idempotency: None,
    }
}

pub fn delete(path: &str, recursive: bool) -> Action {
    Action::Delete(Delete {
        path: path.to_owned(),
        condition: Condition::default(),
        recursive,
        idempotency: None,
    })
}

pub fn with_copy(n: u64, copy_id: u128) -> NewContent {
    NewContent::Chunk(ChunkRef { chunk: chunk(n), new_copy: Some(copy(copy_id)) })
}

pub fn without_copy(n: u64) -> NewContent {
    NewContent::Chunk(ChunkRef { chunk: chunk(n), new_copy: None })
}

/// All rows of a family.
pub fn rows_of<R: Row>(all: &BTreeMap<Vec<u8>, Vec<u8>>, family: Family) -> Vec<(Vec<u8>, R)> {
    let range = keys::all(family);
    all.range(range).map(|(key, value)| (key.clone(), R::decode(value).unwrap())).collect()
}

fn tenant_in(key: &[u8]) -> TenantId {
    TenantId::from_slice(&key[1..17]).unwrap()
}

fn hash_in(key: &[u8], at: usize) -> ContentHash {
    ContentHash::from_slice(&key[at..at + 32]).unwrap()
}

/// Checks that all rows agree with each other: every count is exact at every moment.
pub fn audit(engine: &dyn Engine) -> Counters {
    let all = dump(engine);
    let entries: Vec<(Vec<u8>, EntryRow)> = rows_of(&all, Family::Entry);
    let mut wanted: HashMap<(TenantId, ContentHash), u64> = HashMap::new();
    let mut usage: HashMap<TenantId, UsageRow> = HashMap::new();
    let mut on_manifest: HashMap<(TenantId, ManifestId), u64> = HashMap::new();
    for (key, entry) in &entries {
        let (tenant, path) = (tenant_in(key), std::str::from_utf8(keys::entry_path(key)).unwrap());
        let used = usage.entry(tenant).or_default();
        match entry.content {
            Content::Directory => used.directories += u64::from(!path.is_empty()),
            _ => used.files += 1,
        }
        used.logical_bytes += entry.content.size();
        assert_eq!(entry.content == Content::Directory, path.is_empty() || path.ends_with('/'), "{path}");
        for parent in super::path::EntryPath::parse(path).unwrap().parents() {
            assert!(all.contains_key(&keys::entry(tenant, parent.as_bytes())), "{path} has no {parent}");
        }
        match entry.content {
            Content::Chunk(chunk) => *wanted.entry((tenant, chunk.hash)).or_default() += 1,
            Content::Manifest { id, .. } => *on_manifest.entry((tenant, id)).or_default() += 1,
            Content::Directory | Content::Empty => {}
        }
    }
    for (key, refs) in rows_of::<RefsRow>(&all, Family::Refs) {
        for chunk in refs.chunks {
            *wanted.entry((tenant_in(&key), chunk.hash)).or_default() += 1;
        }
    }
    for (key, row) in rows_of::<UsageRow>(&all, Family::Usage) {
        assert_eq!(row, usage.remove(&tenant_in(&key)).unwrap_or_default(), "usage");
    }
    let mut counted = Counters::default();
    let mut held = BTreeSet::new();
    for (key, own) in rows_of::<OwnRow>(&all, Family::Own) {
        let (tenant, hash) = (tenant_in(&key), hash_in(&key, 17));
        assert_eq!(wanted.remove(&(tenant, hash)), Some(own.references), "references to {hash}");
        assert!(all.contains_key(&keys::copy(&hash, own.copy)), "own of {hash} without its copy");
        assert!(all.contains_key(&keys::holder(own.copy, tenant)), "own of {hash} without holder");
        held.insert(own.copy);
        counted.contents_owned += 1;
        counted.references += own.references;
    }
    assert!(wanted.is_empty(), "contents that nothing owns: {wanted:?}");
    assert_eq!(rows_of::<Mark>(&all, Family::Holder).len() as u64, counted.contents_owned, "holders");
    let queued: BTreeSet<CopyId> = rows_of::<Mark>(&all, Family::DeleteQueue)
        .iter()
        .map(|(key, _)| CopyId::from_slice(&key[1 + 8 + 32..]).unwrap())
        .collect();
    for (_, row) in rows_of::<CopyRow>(&all, Family::Copy) {
        let (held, queued) = (held.contains(&row.copy.id), queued.contains(&row.copy.id));
        assert!(held || queued, "copy {} leaks", row.copy.id);
        if row.copy.state == CopyState::Damaged {
            assert!(
                !(held && queued),
                "damaged copy {} may be all there is, but is to be removed",
                row.copy.id
            );
        }
        counted.copies += 1;
        counted.copy_bytes += u64::from(row.copy.stored_bytes);
    }
    for (key, row) in rows_of::<ManifestRow>(&all, Family::Manifest) {
        let (tenant, id) = (tenant_in(&key), ManifestId::from_slice(&key[17..]).unwrap());
        match row.state {
            ManifestState::Unpublished { expires_ms, .. } => {
                assert!(all.contains_key(&keys::manifest_expiry(expires_ms, tenant, id)));
                counted.manifests_unpublished += 1;
            }
            ManifestState::Published { entries, .. } => {
                assert_eq!(on_manifest.remove(&(tenant, id)), Some(entries));
                counted.manifests_published += 1;
            }
            ManifestState::Draining => counted.manifests_draining += 1,
        }
    }
    assert!(on_manifest.is_empty(), "entries without their manifest");
    assert_eq!(rows_of::<Mark>(&all, Family::ManifestExpiry).len() as u64, counted.manifests_unpublished);
    assert_eq!(rows_of::<Mark>(&all, Family::DrainQueue).len() as u64, counted.manifests_draining);
    counted.delete_queue = rows_of::<Mark>(&all, Family::DeleteQueue).len() as u64;
    counted.sessions = rows_of::<SessionRow>(&all, Family::Session).len() as u64;
    let idempotency = rows_of::<IdempotencyRow>(&all, Family::Idempotency).len();
    assert_eq!(rows_of::<Mark>(&all, Family::IdempotencyExpiry).len(), idempotency);
    let row = all.get(&keys::counters()).map(|bytes| Counters::decode(bytes).unwrap()).unwrap_or_default();
    assert_eq!(row, counted);
    counted
}
