//! Files of one chunk, or of none: begun, stored and committed in at most three inner calls.

use bytes::Bytes;
use hay_client::filer::{Begun, ChunkRef, Content, Put};
use hay_client::writer::REPEATS;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::ContentHash;
use hay_common::model::Chunk;

use super::PutAsk;
use super::store::{append, chunk_of, hash_of, own_or_append};
use crate::app::{App, token};
use crate::auth::Authenticated;

/// A body that came as a whole before anything was asked: `Begin` knows its hash, and finishes it where the tenant
/// owns the content.
///
/// # Errors
/// What the filer or the volumes say, or `digest_mismatch`.
pub(crate) async fn put_known(
    app: &App,
    caller: &Authenticated,
    ask: &PutAsk,
    data: &Bytes,
) -> Result<Put, Failure> {
    let hash = hash_of(data).await?;
    check_digest(ask.digest, hash.0)?;
    let chunk = chunk_of(hash, data)?;
    match begin_known(app, caller, ask, chunk, data).await {
        // It had ended before this began: nothing was done in it.
        Err(failure) if failure.code == ErrorCode::SessionExpired => {
            begin_known(app, caller, ask, chunk, data).await
        }
        put => put,
    }
}

async fn begin_known(
    app: &App,
    caller: &Authenticated,
    ask: &PutAsk,
    chunk: Chunk,
    data: &Bytes,
) -> Result<Put, Failure> {
    let session = app.deps.filer.session().await?;
    let command = ask.command(chunk.hash);
    let content = match data.is_empty() {
        true => Content::Empty,
        false => Content::Chunk(ChunkRef { chunk, new_copy: None }),
    };
    let begun = app
        .deps
        .filer
        .begin(token(caller), &session, &command, Some(content), Some(data.len() as u64))
        .await?;
    match begun {
        Begun::Finished(put) => {
            app.meters.own_chunks.increment(u64::from(!data.is_empty()));
            Ok(put)
        }
        Begun::Proceed { .. } if data.is_empty() => {
            app.deps.filer.put(token(caller), &session, command, Content::Empty).await
        }
        Begun::Proceed { .. } => commit(app, caller, ask, chunk, data, false).await,
    }
}

/// Stores one chunk and makes the file of it visible. A copy that is gone, or a session that has ended, costs another
/// round: the bytes are still here. `may_own`: whether it is still to be asked if the tenant owns the content.
///
/// # Errors
/// What the last round said.
pub(crate) async fn commit(
    app: &App,
    caller: &Authenticated,
    ask: &PutAsk,
    chunk: Chunk,
    data: &Bytes,
    may_own: bool,
) -> Result<Put, Failure> {
    let mut may_own = may_own;
    let mut attempt = 0;
    loop {
        attempt += 1;
        // A copy is committed in the session it was appended in.
        let session = app.deps.filer.session().await?;
        let reference = match may_own {
            true => own_or_append(app, caller, chunk, data).await?,
            false => append(app, chunk, data).await?,
        };
        let content = Content::Chunk(reference);
        let put = app.deps.filer.put(token(caller), &session, ask.command(chunk.hash), content).await;
        match put {
            Err(failure) if matches!(failure.code, ErrorCode::CopyGone | ErrorCode::SessionExpired) => {
                may_own = false;
                let Some(pause) = REPEATS.pause(attempt, app.deps.random.as_ref()) else {
                    return Err(failure);
                };
                tokio::time::sleep(pause).await;
            }
            done => return done,
        }
    }
}

/// Compares what arrived with what was announced.
///
/// # Errors
/// `digest_mismatch`.
pub(crate) fn check_digest(announced: Option<[u8; 32]>, found: [u8; 32]) -> Result<(), Failure> {
    match announced {
        Some(announced) if announced != found => Err(Failure::new(
            ErrorCode::DigestMismatch,
            format!(
                "the bytes that arrived have SHA-256 {}, announced was {}: nothing was stored",
                ContentHash(found),
                ContentHash(announced)
            ),
        )),
        _ => Ok(()),
    }
}
