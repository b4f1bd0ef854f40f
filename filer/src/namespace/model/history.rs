//! Random histories, every answer of which a simple reference predicts.

use super::*;

/// The reference: maps, and rules written a second time.
#[derive(Default)]
struct Reference {
    files: BTreeMap<String, Vec<Chunk>>,
    directories: BTreeSet<String>,
    /// What else holds contents: unpublished uploads, and what waits to be drained.
    unpublished: BTreeMap<ManifestId, Vec<Chunk>>,
    manifest_of: BTreeMap<String, ManifestId>,
    draining: Vec<Chunk>,
    /// The copy that is used of each content that is owned, and whether it was reported damaged.
    copies: BTreeMap<ContentHash, (CopyId, bool)>,
}

type Predicted = Result<(), ErrorCode>;

impl Reference {
    fn owned(&self) -> BTreeMap<ContentHash, u64> {
        let mut owned = BTreeMap::new();
        let lists = self.files.values().chain(self.unpublished.values()).chain([&self.draining]);
        lists.flatten().for_each(|chunk| *owned.entry(chunk.hash).or_default() += 1);
        owned
    }

    /// Whether a chunk can be counted on; notes which copy is used from now on.
    fn hold(&mut self, wanted: &ChunkRef) -> Predicted {
        match (self.copies.get(&wanted.chunk.hash), wanted.new_copy) {
            (Some((_, false)), _) => Ok(()),
            (Some((_, true)) | None, Some(new)) => {
                self.copies.insert(wanted.chunk.hash, (new.id, false));
                Ok(())
            }
            (Some((_, true)) | None, None) => Err(ErrorCode::CopyGone),
        }
    }

    /// Forgets the copies of what nothing counts on any more.
    fn forget(&mut self) {
        let owned = self.owned();
        self.copies.retain(|hash, _| owned.contains_key(hash));
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
                self.hold(wanted)?;
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
                add.chunks.iter().try_for_each(|wanted| self.hold(wanted))?;
                let chunks = add.chunks.iter().map(|c| c.chunk);
                self.unpublished.entry(add.manifest).or_default().extend(chunks);
                Ok(())
            }
            Action::AbandonManifest { manifest } => {
                self.draining.extend(self.unpublished.remove(manifest).unwrap_or_default());
                Ok(())
            }
            Action::ReportDamaged { hash, copy } => {
                if let Some((_, damaged)) = self.copies.get_mut(hash).filter(|(used, _)| used == copy) {
                    *damaged = true;
                }
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
        match self.rng.random_range(0..14) {
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
            12.. => {
                let hash = chunk(self.rng.random_range(0..5)).hash;
                let used = self.reference.copies.get(&hash).map(|(copy, _)| *copy);
                let other = CopyId::from_random(self.rng.random());
                let copy = used.filter(|_| self.rng.random_range(0..4) > 0).unwrap_or(other);
                Action::ReportDamaged { hash, copy }
            }
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
            self.reference.forget();
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
            self.reference.forget();
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
        self.check_copies();
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

    fn check_copies(&self) {
        let all = dump(self.engine);
        let used: BTreeMap<ContentHash, (CopyId, bool)> = rows_of::<OwnRow>(&all, Family::Own)
            .into_iter()
            .map(|(key, own)| {
                let hash = hash_in(&key, 17);
                let row = CopyRow::decode(&all[&keys::copy(&hash, own.copy)]).unwrap();
                (hash, (own.copy, row.copy.state == CopyState::Damaged))
            })
            .collect();
        assert_eq!(used, self.reference.copies, "copies that are used");
        view(self.engine, |rows| {
            for n in 0..5 {
                let hash = chunk(n).hash;
                let usable = used.get(&hash).is_some_and(|(_, damaged)| !damaged);
                assert_eq!(query::find_own(rows, &TOKEN, &[hash]).unwrap(), [usable]);
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
