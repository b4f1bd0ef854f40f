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
    assert_eq!(rows_of::<Mark>(&all, Family::Holder).len(), held.len(), "holders");
    let queued: BTreeSet<CopyId> = rows_of::<Mark>(&all, Family::DeleteQueue)
        .iter()
        .map(|(key, _)| CopyId::from_slice(&key[1 + 8 + 32..]).unwrap())
        .collect();
    for (_, row) in rows_of::<CopyRow>(&all, Family::Copy) {
        assert!(held.contains(&row.copy.id) || queued.contains(&row.copy.id), "copy {} leaks", row.copy.id);
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

/// The reference: maps, and rules written a second time.
#[derive(Default)]
struct Reference {
    files: BTreeMap<String, Vec<Chunk>>,
    directories: BTreeSet<String>,
    /// What else holds contents: unpublished uploads, and what waits to be drained.
    unpublished: BTreeMap<ManifestId, Vec<Chunk>>,
    manifest_of: BTreeMap<String, ManifestId>,
    draining: Vec<Chunk>,
}

type Predicted = Result<(), ErrorCode>;

impl Reference {
    fn owned(&self) -> BTreeMap<ContentHash, u64> {
        let mut owned = BTreeMap::new();
        let lists = self.files.values().chain(self.unpublished.values()).chain([&self.draining]);
        lists.flatten().for_each(|chunk| *owned.entry(chunk.hash).or_default() += 1);
        owned
    }

    fn parents(path: &str) -> Vec<String> {
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        (1..parts.len()).map(|n| parts[..n].join("/") + "/").collect()
    }

    fn file_above(&self, path: &str) -> bool {
        Self::parents(path).iter().any(|p| self.files.contains_key(p.trim_end_matches('/')))
    }

    fn condition_holds(&self, condition: &Condition, path: &str) -> bool {
        let there = self.files.contains_key(path) || self.directories.contains(path);
        let hash = self.files.get(path).map(|chunks| content_hash(chunks));
        let one_of = |list: &[ContentHash]| hash.is_some_and(|h| list.contains(&h));
        let must = condition.if_match_any || !condition.if_match.is_empty();
        let matched = there && (condition.if_match_any || one_of(&condition.if_match));
        let unmatched = one_of(&condition.if_none_match) || (condition.if_none_match_any && there);
        (!must || matched) && !unmatched
    }

    fn put(&mut self, put: &PutFile) -> Predicted {
        let path = &put.path;
        if self.file_above(path) {
            return Err(ErrorCode::NotDirectory);
        }
        if self.directories.contains(&format!("{path}/")) {
            return Err(ErrorCode::IsDirectory);
        }
        if !self.condition_holds(&put.condition, path) {
            return Err(ErrorCode::PreconditionFailed);
        }
        let (chunks, manifest) = match &put.content {
            NewContent::Empty => (Vec::new(), None),
            NewContent::Chunk(wanted) => {
                if wanted.new_copy.is_none() && !self.owned().contains_key(&wanted.chunk.hash) {
                    return Err(ErrorCode::CopyGone);
                }
                (vec![wanted.chunk], None)
            }
            NewContent::Manifest { id, .. } => match self.unpublished.remove(id) {
                Some(chunks) => (chunks, Some(*id)),
                None => return Err(ErrorCode::CopyGone),
            },
        };
        self.directories.extend(Self::parents(path));
        self.remove_file(path);
        self.files.insert(path.clone(), chunks);
        self.manifest_of.extend(manifest.map(|id| (path.clone(), id)));
        Ok(())
    }

    fn remove_file(&mut self, path: &str) {
        let old = self.files.remove(path).unwrap_or_default();
        if self.manifest_of.remove(path).is_some() {
            self.draining.extend(old);
        }
    }

    fn make_directory(&mut self, make: &MakeDirectory) -> Predicted {
        let path = &make.path;
        if self.directories.contains(path) {
            return if make.exist_ok { Ok(()) } else { Err(ErrorCode::IsDirectory) };
        }
        if self.file_above(path) || self.files.contains_key(path.trim_end_matches('/')) {
            return Err(ErrorCode::NotDirectory);
        }
        self.directories.extend(Self::parents(path));
        self.directories.insert(path.clone());
        Ok(())
    }

    fn delete(&mut self, delete: &Delete) -> Predicted {
        let path = &delete.path;
        let there = self.files.contains_key(path) || self.directories.contains(path);
        if !there && path.ends_with('/') && self.files.contains_key(path.trim_end_matches('/')) {
            return Err(ErrorCode::NotDirectory);
        }
        if !there && self.directories.contains(&format!("{path}/")) {
            return Err(ErrorCode::IsDirectory);
        }
        if !self.condition_holds(&delete.condition, path) {
            return Err(ErrorCode::PreconditionFailed);
        }
        if !there {
            return Err(ErrorCode::NotFound);
        }
        if !path.ends_with('/') {
            self.remove_file(path);
            return Ok(());
        }
        let below: Vec<String> =
            self.files.keys().filter(|p| p.starts_with(path.as_str())).cloned().collect();
        let inside =
            self.directories.iter().filter(|p| p.starts_with(path.as_str())).count() - 1 + below.len();
        if inside > 0 && !delete.recursive {
            return Err(ErrorCode::DirectoryNotEmpty);
        }
        below.iter().for_each(|file| self.remove_file(file));
        self.directories.retain(|p| !p.starts_with(path.as_str()));
        Ok(())
    }

    fn client(&mut self, action: &Action) -> Predicted {
        match action {
            Action::PutFile(put) => self.put(put),
            Action::MakeDirectory(make) => self.make_directory(make),
            Action::Delete(delete) => self.delete(delete),
            Action::AddReferences(add) => {
                let chunks = add.chunks.iter().map(|c| c.chunk);
                self.unpublished.entry(add.manifest).or_default().extend(chunks);
                Ok(())
            }
            Action::AbandonManifest { manifest } => {
                self.draining.extend(self.unpublished.remove(manifest).unwrap_or_default());
                Ok(())
            }
        }
    }

    /// All entries as a listing of the root shows them.
    fn listing(&self) -> Vec<(String, u64)> {
        let size = |chunks: &Vec<Chunk>| chunks.iter().map(|c| u64::from(c.size)).sum();
        let mut all: Vec<(String, u64)> = self.files.iter().map(|(p, c)| (p.clone(), size(c))).collect();
        all.extend(self.directories.iter().map(|p| (p.clone(), 0)));
        all.sort();
        all
    }
}

/// One random history. Every answer is predicted by the reference; rows are audited as it goes on.
pub struct History<'e> {
    engine: &'e mut dyn Engine,
    reference: Reference,
    rng: StdRng,
    session: SessionId,
    sequence: u64,
    wall_ms: u64,
    /// Commands that took effect, with their answers.
    done: Vec<(ClientCommand, Answer)>,
}

impl<'e> History<'e> {
    pub fn new(engine: &'e mut dyn Engine, seed: u64) -> Self {
        let session = SessionId::from_random(9);
        let open = Proposal { wall_ms: START_MS, op: Op::OpenSessions { sessions: vec![session] } };
        let replies = engine.apply(&[bootstrap(), open]);
        assert!(matches!(replies[1], Reply::Sessions(Ok(_))));
        Self {
            engine,
            reference: Reference::default(),
            rng: StdRng::seed_from_u64(seed),
            session,
            sequence: 0,
            wall_ms: START_MS,
            done: Vec::new(),
        }
    }

    fn path(&mut self, directory: bool) -> String {
        let depth = self.rng.random_range(1..=3);
        let names = ["a", "b", "a-", "a0"];
        let parts: Vec<&str> = (0..depth).map(|_| names[self.rng.random_range(0..names.len())]).collect();
        parts.join("/") + if directory { "/" } else { "" }
    }

    fn condition(&mut self) -> Condition {
        let hashes = |rng: &mut StdRng| vec![chunk(rng.random_range(0..5)).hash];
        let mut condition = Condition::default();
        match self.rng.random_range(0..8) {
            0 => condition.if_match_any = true,
            1 => condition.if_none_match_any = true,
            2 => condition.if_match = hashes(&mut self.rng),
            3 => condition.if_none_match = hashes(&mut self.rng),
            _ => {}
        }
        condition
    }

    fn chunk_ref(&mut self, copies: bool) -> ChunkRef {
        let id = self.rng.random::<u128>();
        ChunkRef { chunk: chunk(self.rng.random_range(0..5)), new_copy: copies.then(|| copy(id)) }
    }

    fn action(&mut self) -> Action {
        match self.rng.random_range(0..12) {
            0..6 => {
                let copies = self.rng.random_range(0..3) > 0;
                let content = match self.rng.random_range(0..8) {
                    0 => NewContent::Empty,
                    1..3 if !self.reference.unpublished.is_empty() => {
                        let (id, chunks) = self.reference.unpublished.first_key_value().unwrap();
                        NewContent::Manifest {
                            id: *id,
                            root: content_hash(chunks),
                            chunk_count: chunks.len() as u32,
                            size: chunks.iter().map(|c| u64::from(c.size)).sum(),
                        }
                    }
                    _ => NewContent::Chunk(self.chunk_ref(copies)),
                };
                let (path, condition) = (self.path(false), self.condition());
                let entry_id = EntryId::from_random(self.rng.random());
                let directory_seed = self.rng.random();
                Action::PutFile(PutFile { condition, entry_id, directory_seed, ..put(&path, content) })
            }
            6 => Action::MakeDirectory(MakeDirectory {
                path: self.path(true),
                entry_id: EntryId::from_random(self.rng.random()),
                directory_seed: self.rng.random(),
                exist_ok: self.rng.random(),
                idempotency: None,
            }),
            7 => {
                let (manifest, had) = match self.reference.unpublished.first_key_value() {
                    Some((id, chunks)) if self.rng.random() => (*id, chunks.clone()),
                    _ => (ManifestId::from_random(self.rng.random()), Vec::new()),
                };
                let count = self.rng.random_range(1..5);
                Action::AddReferences(AddReferences {
                    manifest,
                    first_number: had.len() as u32,
                    first_offset: had.iter().map(|c| u64::from(c.size)).sum(),
                    chunks: (0..count).map(|_| self.chunk_ref(true)).collect(),
                })
            }
            8 => Action::AbandonManifest {
                manifest: match self.reference.unpublished.first_key_value() {
                    Some((id, _)) if self.rng.random_range(0..3) == 0 => *id,
                    _ => ManifestId::from_random(self.rng.random()),
                },
            },
            _ => {
                let directory = self.rng.random();
                Action::Delete(Delete {
                    path: self.path(directory),
                    condition: self.condition(),
                    recursive: self.rng.random_range(0..3) == 0,
                    idempotency: None,
                })
            }
        }
    }

    /// A batch of commands, some of them sent before.
    fn batch(&mut self) {
        let mut proposals = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..self.rng.random_range(1..7) {
            self.wall_ms += self.rng.random_range(0..50);
            if !self.done.is_empty() && self.rng.random_range(0..6) == 0 {
                let (command, answer) = self.done[self.rng.random_range(0..self.done.len())].clone();
                proposals.push(Proposal { wall_ms: self.wall_ms, op: Op::Client(command) });
                expected.push((None, Some(answer)));
                continue;
            }
            self.sequence += 1;
            let action = self.action();
            let predicted = self.reference.client(&action);
            let command =
                ClientCommand { token: TOKEN, session: self.session, sequence: self.sequence, action };
            proposals.push(Proposal { wall_ms: self.wall_ms, op: Op::Client(command) });
            expected.push((Some(predicted), None));
        }
        let replies = self.engine.apply(&proposals);
        for ((proposal, reply), (predicted, kept)) in proposals.iter().zip(replies).zip(expected) {
            let Reply::Client(result) = reply else { panic!("{reply:?}") };
            if let Some(kept) = kept {
                assert_eq!(result, Ok(kept), "a repeated command: {proposal:?}");
                continue;
            }
            let got = result.as_ref().map(|_| ()).map_err(|f| f.code);
            assert_eq!(got, predicted.unwrap(), "{proposal:?} gave {result:?}");
            if let (Ok(answer), Op::Client(command)) = (result, &proposal.op) {
                self.done.push((command.clone(), answer));
            }
        }
    }

    fn sweep(&mut self) {
        let op = match self.rng.random_range(0..3) {
            0 => Op::Tick,
            1 => Op::Expire,
            _ => Op::Drain,
        };
        if op == Op::Drain {
            self.reference.draining.clear();
        }
        self.engine.apply(&[Proposal { wall_ms: self.wall_ms, op }]);
    }

    pub fn run(&mut self, steps: usize) {
        for step in 0..steps {
            match self.rng.random_range(0..20) {
                0..17 => self.batch(),
                17..19 => self.sweep(),
                _ => {
                    let crash = self.rng.random();
                    self.engine.restart(crash);
                }
            }
            if step % 8 == 0 {
                self.check();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        audit(self.engine);
        let owned: BTreeMap<ContentHash, u64> = rows_of::<OwnRow>(&dump(self.engine), Family::Own)
            .into_iter()
            .map(|(key, own)| (hash_in(&key, 17), own.references))
            .collect();
        assert_eq!(owned, self.reference.owned(), "references");
        self.check_listings();
        let files = &self.reference.files;
        view(self.engine, |rows| {
            for (path, chunks) in files {
                let wanted = WantedChunks { count: 64, ..WantedChunks::default() };
                let (entry, located) = query::resolve(rows, &TOKEN, path, wanted).unwrap();
                assert_eq!(entry.content_hash, Some(content_hash(chunks)), "{path}");
                assert_eq!(located.iter().map(|l| l.chunk).collect::<Vec<_>>(), *chunks, "{path}");
            }
        });
    }

    fn check_listings(&mut self) {
        let all = self.reference.listing();
        assert_eq!(self.pages("", true), all);
        let directories: Vec<String> =
            self.reference.directories.iter().cloned().chain([String::new()]).collect();
        let directory = directories[self.rng.random_range(0..directories.len())].clone();
        let below = |path: &str| path.strip_prefix(&directory).filter(|p| !p.is_empty()).map(str::to_owned);
        let is_direct = |path: &str| below(path).is_some_and(|p| !p.trim_end_matches('/').contains('/'));
        let direct: Vec<_> = all.iter().filter(|(p, _)| is_direct(p)).cloned().collect();
        assert_eq!(self.pages(&directory, false), direct, "list of {directory:?}");
        let deep: Vec<_> = all.iter().filter(|(p, _)| below(p).is_some()).cloned().collect();
        assert_eq!(self.pages(&directory, true), deep, "recursive list of {directory:?}");
    }

    fn pages(&mut self, directory: &str, recursive: bool) -> Vec<(String, u64)> {
        let limit = self.rng.random_range(1..9);
        let mut query = ListQuery { directory: directory.to_owned(), recursive, limit, after: String::new() };
        let mut all = Vec::new();
        loop {
            let (page, more) = view(self.engine, |rows| query::list(rows, &TOKEN, &query).unwrap());
            assert!(page.len() <= limit && (!more || page.len() == limit));
            for entry in &page {
                assert_eq!(entry.kind == EntryKind::Directory, entry.path.ends_with('/'));
                all.push((entry.path.clone(), entry.size));
            }
            let Some(last) = page.last().filter(|_| more) else { return all };
            query.after = last.path[directory.len()..].to_owned();
        }
    }

    /// Removes everything and drains: nothing may be left but what waits to be collected.
    pub fn finish(&mut self) {
        let roots: BTreeSet<String> = self
            .reference
            .listing()
            .iter()
            .map(|(p, _)| p.split_inclusive('/').next().unwrap().to_owned())
            .collect();
        let mut actions: Vec<Action> = roots.iter().map(|path| delete(path, true)).collect();
        actions.extend(self.reference.unpublished.keys().map(|id| Action::AbandonManifest { manifest: *id }));
        for action in actions {
            self.sequence += 1;
            let command =
                ClientCommand { token: TOKEN, session: self.session, sequence: self.sequence, action };
            let replies = self.engine.apply(&[Proposal { wall_ms: self.wall_ms, op: Op::Client(command) }]);
            assert!(matches!(replies[0], Reply::Client(Ok(_))), "{replies:?}");
        }
        self.engine.apply(&[Proposal { wall_ms: self.wall_ms, op: Op::Drain }]);
        let counters = audit(self.engine);
        assert_eq!((counters.references, counters.contents_owned, counters.manifests_draining), (0, 0, 0));
        assert!(counters.delete_queue >= counters.copies && counters.copies > 0);
        // The histories rely on one drain being enough.
        const { assert!(limits::DRAIN_BATCH_MAX >= 1_000) };
    }
}
