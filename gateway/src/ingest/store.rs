//! One chunk into a volume. What goes wrong with one volume is repeated on another; the client sees nothing of it.

use std::time::Duration;

use bytes::Bytes;
use hay_client::filer::{ChunkRef, Session};
use hay_common::error::{ErrorCode, Failure, Remedy};
use hay_common::ids::{ContentHash, Cookie, CopyId};
use hay_common::limits::{CHUNK_BYTES_MAX, SMALL_CONTENT_BYTES_MAX};
use hay_common::model::{Chunk, Codec, Copy, CopyState, Location, SizeClass};
use hay_common::retry::RetryPolicy;
use sha2::{Digest, Sha256};

use crate::app::{App, token};
use crate::auth::Authenticated;

/// How often a chunk is tried on other volumes, or a lost copy stored anew.
pub(crate) const REPEATS: RetryPolicy = RetryPolicy {
    attempts_max: 8,
    pause_first: Duration::from_millis(10),
    pause_max: Duration::from_secs(1),
};

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
    session: &Session,
    chunk: Chunk,
    data: &Bytes,
) -> Result<ChunkRef, Failure> {
    // Only the tenant's own rows are looked at: what others store shows in no answer and in no time.
    let owned = app.deps.filer.find_own(token(caller), &[chunk.hash]).await?;
    if owned.first() == Some(&true) {
        app.meters.own_chunks.increment(1);
        return Ok(ChunkRef { chunk, new_copy: None });
    }
    append(app, session, chunk, data).await
}

/// Appends the chunk to whichever volume takes it.
///
/// # Errors
/// What the last try said.
pub(crate) async fn append(
    app: &App,
    _session: &Session,
    chunk: Chunk,
    data: &Bytes,
) -> Result<ChunkRef, Failure> {
    let class = if data.len() <= SMALL_CONTENT_BYTES_MAX { SizeClass::Small } else { SizeClass::Large };
    let key = chunk.hash.needle_key();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let target = app.deps.master.writable(class).await;
        let failure = match target {
            Err(failure) => failure,
            Ok(target) => {
                let cookie = Cookie(app.deps.random.u32());
                let volume = &target.volume;
                let appended = app
                    .deps
                    .volumes
                    .append(volume, &target.token, key, cookie, Codec::PLAIN, data.clone())
                    .await;
                match appended {
                    Ok(()) => {
                        app.meters.appended_chunks.increment(1);
                        let copy = Copy {
                            id: CopyId::from_random(app.deps.random.u128()),
                            location: Location::Volume { volume: volume.volume, cookie },
                            codec: Codec::PLAIN,
                            stored_bytes: chunk.size,
                            state: CopyState::Live,
                        };
                        return Ok(ChunkRef { chunk, new_copy: Some(copy) });
                    }
                    // Also after an answer that was lost: another cookie, the first needle is left to the collector.
                    Err(failure) if failure.code == ErrorCode::NeedleExists => failure,
                    Err(failure) => {
                        // A full disk or a full queue passes, and is no fault of the volume's: avoided, it would
                        // stay out of use for long after.
                        let passing = matches!(failure.code, ErrorCode::StorageFull | ErrorCode::Overloaded);
                        if elsewhere(failure.code) && !passing {
                            app.deps.master.avoid(volume.volume);
                        }
                        // Nor is one that does not answer: its other volumes would be no better.
                        let is_server = matches!(
                            failure.code,
                            ErrorCode::StorageFull | ErrorCode::Unavailable | ErrorCode::DeadlineExceeded
                        );
                        if let Some(primary) = volume.replicas.first().filter(|_| is_server) {
                            app.deps.master.avoid_server(primary);
                        }
                        failure
                    }
                }
            }
        };
        // Other volumes may be on other disks; beyond them, full is full and the client should hear it soon.
        let hopeless =
            failure.code == ErrorCode::StorageFull && attempt >= 2 && !app.deps.master.has_others(class);
        if hopeless || !elsewhere(failure.code) {
            return Err(failure);
        }
        let Some(pause) = REPEATS.pause(attempt, app.deps.random.as_ref()) else { return Err(failure) };
        tracing::debug!(code = %failure.code, attempt, "a chunk is repeated on another volume");
        if attempt > 1 {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether another volume, or the same one later, may take what this one did not.
fn elsewhere(code: ErrorCode) -> bool {
    matches!(code.remedy(), Remedy::Refresh | Remedy::RetryLater)
}
