//! Files larger than a small body: permission first, then chunks as they arrive, several in flight, references in
//! the order of the file, one commit at the end. Whatever breaks off, nothing becomes visible, and what was
//! referenced already is given up.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use hay_client::filer::{AddReferences, ChunkRef, Content, ManifestRef, Put, Session};
use hay_client::writer::REPEATS;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ContentHash, ManifestId};
use hay_common::limits::{CHUNK_BYTES_MAX, FILE_CHUNKS_MAX, REFS_PER_ROW_MAX, UPLOAD_CHUNKS_IN_FLIGHT};
use hay_common::manifest::RootBuilder;
use hay_common::model::Chunk;
use http_body::Body;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PutAsk;
use super::chunk::{Chunker, FullChunk};
use super::finish::{check_digest, commit};
use super::store::{append, chunk_of, hash_of, own_or_append};
use crate::app::{App, token};
use crate::auth::Authenticated;

/// A received chunk and its place among those in flight.
struct Arrived {
    chunk: FullChunk,
    _place: OwnedSemaphorePermit,
}

/// A chunk that is in a volume, or owned already. Its bytes stay until its reference is committed: until then the
/// copy that it relies on may go.
struct Stored {
    reference: ChunkRef,
    arrived: Arrived,
}

/// What the storing half has when the body is over.
struct Outcome {
    root: RootBuilder,
    /// The only chunk of a file that needs no manifest.
    single: Option<Stored>,
    first: Option<Chunk>,
    referenced: u32,
}

/// One upload.
pub(crate) struct LargeUpload {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Authenticated,
    pub(crate) ask: PutAsk,
    pub(crate) session: Arc<Session>,
    /// Bytes that the client announced, if it did.
    pub(crate) announced: Option<u64>,
}

impl LargeUpload {
    /// Receives and stores the body, then makes the file visible. To be run in a task of its own: a client that goes
    /// away must not leave a half-done manifest behind.
    ///
    /// # Errors
    /// What the body, the volumes or the filer say.
    pub(crate) async fn run<B>(self, chunker: &mut Chunker<B>) -> Result<Put, Failure>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let manifest = ManifestId::from_random(self.app.deps.random.u128());
        let (sender, receiver) = mpsc::channel(1);
        let failed = CancellationToken::new();
        let receive = async {
            let received = self.receive(chunker, sender, &failed).await;
            // What the storing half still has to do, and giving up the manifest, may take long.
            chunker.forget_open();
            received
        };
        let store = async {
            let outcome = self.store(manifest, receiver).await;
            if outcome.is_err() {
                failed.cancel();
            }
            outcome
        };
        // Both are awaited even when one fails: a reference in flight has an answer before the manifest is given up.
        let (received, stored) = tokio::join!(receive, store);
        let referenced = stored.as_ref().map_or(1, |o| o.referenced);
        let put = match (received, stored) {
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
            (Ok(()), Ok(outcome)) => self.publish(manifest, outcome).await,
        };
        // Also when an earlier request under the same key had done it: then this manifest is not the file's.
        let published = put.as_ref().is_ok_and(|p| p.entry.manifest == Some(manifest));
        if referenced > 0 && !published {
            self.abandon(manifest).await;
        }
        put
    }

    async fn receive<B>(
        &self,
        chunker: &mut Chunker<B>,
        sender: mpsc::Sender<Arrived>,
        failed: &CancellationToken,
    ) -> Result<(), Failure>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let places = Arc::new(Semaphore::new(UPLOAD_CHUNKS_IN_FLIGHT));
        let mut digest = self.ask.digest.map(|_| WholeDigest::default());
        loop {
            let next = tokio::select! {
                biased;
                () = failed.cancelled() => return Ok(()),
                next = chunker.next() => next?,
            };
            let Some(chunk) = next else { break };
            self.app.meters.received_bytes.increment(chunk.data.len() as u64);
            if let Some(digest) = &mut digest {
                digest.update(chunk.data.clone()).await?;
            }
            let place = tokio::select! {
                () = failed.cancelled() => return Ok(()),
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let place = place.map_err(|_| internal("the upload is over"))?;
            if sender.send(Arrived { chunk, _place: place }).await.is_err() {
                // The storing half has failed and says why.
                return Ok(());
            }
        }
        match digest {
            Some(digest) => check_digest(self.ask.digest, digest.finish().await?),
            None => Ok(()),
        }
    }

    /// Takes chunks until there are no more. One command adds references at a time; what is stored meanwhile is
    /// gathered for the next, never waited for: a chunk that waits holds memory.
    async fn store(
        &self,
        manifest: ManifestId,
        mut receiver: mpsc::Receiver<Arrived>,
    ) -> Result<Outcome, Failure> {
        let mut root = RootBuilder::new();
        let mut storing = FuturesOrdered::new();
        let mut waiting: Vec<Stored> = Vec::new();
        let mut adding: Option<BoxFuture<'_, Result<(), Failure>>> = None;
        let (mut open, mut referenced, mut offset) = (true, 0u32, 0u64);
        let mut first = None;
        loop {
            if adding.is_none() && self.takes_manifest(&waiting, root.chunk_count()) {
                let rest = waiting.split_off(waiting.len().min(REFS_PER_ROW_MAX));
                let batch = std::mem::replace(&mut waiting, rest);
                let bytes: u64 = batch.iter().map(|s| u64::from(s.reference.chunk.size)).sum();
                let count = u32::try_from(batch.len()).map_err(|_| internal("a batch without end"))?;
                adding = Some(Box::pin(self.add(manifest, referenced, offset, batch)));
                referenced += count;
                offset += bytes;
            }
            tokio::select! {
                added = async { match adding.as_mut() { Some(a) => a.await, None => std::future::pending().await } },
                    if adding.is_some() =>
                {
                    adding = None;
                    added?;
                }
                Some(stored) = storing.next(), if !storing.is_empty() => {
                    let stored: Stored = stored?;
                    root.push(stored.reference.chunk);
                    first.get_or_insert(stored.reference.chunk);
                    if root.chunk_count() > u64::from(FILE_CHUNKS_MAX) {
                        return Err(Failure::new(ErrorCode::TooLarge, format!("a file may have {FILE_CHUNKS_MAX} chunks")));
                    }
                    waiting.push(stored);
                }
                arrived = receiver.recv(), if open => match arrived {
                    Some(arrived) => storing.push_back(self.store_one(arrived)),
                    None => open = false,
                },
                else => break,
            }
        }
        Ok(Outcome { root, single: waiting.pop(), first, referenced })
    }

    /// Whether what waits is to be referenced by a manifest now. A file of one chunk needs none; but a first chunk that
    /// waited until a second is there would hold the memory that the second needs, and enough of them stopped each
    /// other for ever. So a full chunk waits only where the client has announced that it is the only one.
    fn takes_manifest(&self, waiting: &[Stored], chunks: u64) -> bool {
        let Some(first) = waiting.first() else { return false };
        let is_full = first.reference.chunk.size as usize == CHUNK_BYTES_MAX;
        chunks > 1 || (is_full && self.announced != Some(CHUNK_BYTES_MAX as u64))
    }

    async fn store_one(&self, arrived: Arrived) -> Result<Stored, Failure> {
        let data = &arrived.chunk.data;
        let chunk = chunk_of(hash_of(data).await?, data)?;
        let reference = own_or_append(&self.app, &self.caller, chunk, data).await?;
        Ok(Stored { reference, arrived })
    }

    /// Adds the references of a batch. Where a copy is gone, those that relied on one of the tenant's are appended
    /// anew.
    async fn add(
        &self,
        manifest: ManifestId,
        first_number: u32,
        first_offset: u64,
        mut batch: Vec<Stored>,
    ) -> Result<(), Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let chunks = batch.iter().map(|s| s.reference).collect();
            let references = AddReferences { manifest, first_number, first_offset, chunks };
            let added =
                self.app.deps.filer.add_references(token(&self.caller), &self.session, references).await;
            match added {
                Err(failure) if failure.code == ErrorCode::CopyGone => {
                    let Some(pause) = REPEATS.pause(attempt, self.app.deps.random.as_ref()) else {
                        return Err(failure);
                    };
                    tokio::time::sleep(pause).await;
                    // The first time only what was found; if that was not it, everything.
                    for stored in batch.iter_mut().filter(|s| attempt > 1 || s.reference.new_copy.is_none()) {
                        let data = &stored.arrived.chunk.data;
                        stored.reference = append(&self.app, stored.reference.chunk, data).await?;
                    }
                }
                done => return done,
            }
        }
    }

    async fn publish(&self, manifest: ManifestId, outcome: Outcome) -> Result<Put, Failure> {
        if let Some(single) = outcome.single {
            // Stored already, so the tenant may be found to own it; the copy just appended is named in the command.
            return self.publish_single(single).await;
        }
        if outcome.referenced == 0 {
            let command = self.ask.command(ContentHash(Sha256::digest([]).into()));
            return self
                .app
                .deps
                .filer
                .put(token(&self.caller), &self.session, command, Content::Empty)
                .await;
        }
        if let (1, Some(chunk)) = (outcome.referenced, outcome.first) {
            // Nobody had announced that the first full chunk would be the only one. The manifest, given up after this,
            // holds its reference until the file has one of its own.
            let content = Content::Chunk(ChunkRef { chunk, new_copy: None });
            let command = self.ask.command(chunk.hash);
            return self.app.deps.filer.put(token(&self.caller), &self.session, command, content).await;
        }
        let (count, size) = (outcome.root.chunk_count(), outcome.root.size());
        let root_hash = outcome.root.finish().ok_or_else(|| internal("a manifest without a root"))?;
        let chunk_count = u32::try_from(count).map_err(|_| internal("more chunks than a file may have"))?;
        let content = Content::Manifest(ManifestRef { id: manifest, root_hash, chunk_count, size });
        self.app
            .deps
            .filer
            .put(token(&self.caller), &self.session, self.ask.command(root_hash), content)
            .await
    }

    async fn publish_single(&self, single: Stored) -> Result<Put, Failure> {
        let chunk = single.reference.chunk;
        let command = self.ask.command(chunk.hash);
        let content = Content::Chunk(single.reference);
        let put = self.app.deps.filer.put(token(&self.caller), &self.session, command, content).await;
        match put {
            Err(failure) if matches!(failure.code, ErrorCode::CopyGone | ErrorCode::SessionExpired) => {
                commit(&self.app, &self.caller, &self.ask, chunk, &single.arrived.chunk.data, false).await
            }
            done => done,
        }
    }

    async fn abandon(&self, manifest: ManifestId) {
        let abandoned =
            self.app.deps.filer.abandon_manifest(token(&self.caller), &self.session, manifest).await;
        if let Err(failure) = abandoned {
            // It expires by itself.
            tracing::debug!(code = %failure.code, "an unpublished manifest could not be given up");
        }
    }
}

/// SHA-256 over all chunks in their order, one blocking job behind the receiving.
#[derive(Default)]
struct WholeDigest {
    job: Option<JoinHandle<Sha256>>,
}

impl WholeDigest {
    async fn update(&mut self, data: Bytes) -> Result<(), Failure> {
        let mut hasher = self.settled().await?;
        self.job = Some(tokio::task::spawn_blocking(move || {
            hasher.update(&data);
            hasher
        }));
        Ok(())
    }

    async fn settled(&mut self) -> Result<Sha256, Failure> {
        match self.job.take() {
            None => Ok(Sha256::new()),
            Some(job) => job.await.map_err(|_| internal("hashing the body did not end")),
        }
    }

    async fn finish(mut self) -> Result<[u8; 32], Failure> {
        Ok(self.settled().await?.finalize().into())
    }
}

fn internal(why: &str) -> Failure {
    Failure::new(ErrorCode::Internal, why)
}
