//! One chunk: its hash, and its way into a volume.

use bytes::Bytes;
use hay_client::filer::ChunkRef;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ContentHash, CopyId};
use hay_common::limits::CHUNK_BYTES_MAX;
use hay_common::model::{Chunk, Codec, Copy, CopyState, Location};
use sha2::{Digest, Sha256};

use crate::app::{App, token};
use crate::auth::Authenticated;

/// Above this many bytes hashing leaves the async thread: 64 KiB take some 40 µs, a hop to the pool about as much.
const HASH_INLINE_BYTES_MAX: usize = 64 << 10;

/// SHA-256 of a chunk.
pub(crate) async fn hash_of(data: &Bytes) -> Result<ContentHash, Failure> {
    if data.len() <= HASH_INLINE_BYTES_MAX {
        return Ok(ContentHash(Sha256::digest(data).into()));
    }
    let data = data.clone();
    let hashed = tokio::task::spawn_blocking(move || ContentHash(Sha256::digest(&data).into())).await;
    hashed.map_err(|_| Failure::new(ErrorCode::Internal, "hashing a chunk did not end"))
}

/// The chunk of these bytes.
///
/// # Errors
/// `internal` for more bytes than a chunk has: the caller has cut wrongly.
pub(crate) fn chunk_of(hash: ContentHash, data: &Bytes) -> Result<Chunk, Failure> {
    match u32::try_from(data.len()) {
        Ok(size) if data.len() <= CHUNK_BYTES_MAX => Ok(Chunk { hash, size }),
        _ => Err(Failure::new(ErrorCode::Internal, format!("a chunk of {} bytes", data.len()))),
    }
}

/// A reference to what the tenant owns already, else to a copy that is appended now.
///
/// # Errors
/// What the last try said.
pub(crate) async fn own_or_append(
    app: &App,
    caller: &Authenticated,
    chunk: Chunk,
    data: &Bytes,
) -> Result<ChunkRef, Failure> {
    // Only the tenant's own rows are looked at: what others store shows in no answer and in no time.
    let owned = app.deps.filer.find_own(token(caller), &[chunk.hash]).await?;
    if owned.first() == Some(&true) {
        app.meters.own_chunks.increment(1);
        return Ok(ChunkRef { chunk, new_copy: None });
    }
    append(app, chunk, data).await
}

/// Appends the chunk to whichever volume takes it.
///
/// # Errors
/// What the last try said.
pub(crate) async fn append(app: &App, chunk: Chunk, data: &Bytes) -> Result<ChunkRef, Failure> {
    let stored = app.writer.store(chunk.hash.needle_key(), Codec::PLAIN, data.clone()).await?;
    app.meters.appended_chunks.increment(1);
    app.meters.hedges.increment(u64::from(stored.hedges));
    let copy = Copy {
        id: CopyId::from_random(app.deps.random.u128()),
        location: Location::Volume { volume: stored.volume, cookie: stored.cookie },
        codec: Codec::PLAIN,
        stored_bytes: chunk.size,
        state: CopyState::Live,
    };
    Ok(ChunkRef { chunk, new_copy: Some(copy) })
}
