//! One local file to one stored path, with its retries, and the server's hash compared with ours.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hay_common::ids::ContentHash;
use tokio::sync::mpsc;

use super::hashing::{ContentHasher, content_hash};
use super::progress::Progress;
use super::source::{self, Opened, Source, SourceError, WHOLE_BYTES_MAX};
use crate::api::{ApiError, Client, PIECES_WAITING, Piece, PieceBody, PutBody, Stored};
use crate::remote::RemotePath;
use crate::stop::Stop;

/// How long a reader is waited for after its connection has failed.
const READER_GRACE: Duration = Duration::from_secs(2);

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The local side.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server's side.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server has other bytes than were sent.
    #[error("was stored with hash {stored}, but the bytes sent have {sent}")]
    Differs {
        /// Ours.
        sent: ContentHash,
        /// The server's.
        stored: ContentHash,
    },
}

impl From<UploadError> for Stop {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Api(error) => error.into(),
            UploadError::Source(SourceError::Changed) => {
                Self { code: "changed".into(), ..Self::local(error.to_string()) }
            }
            other => Self::local(other.to_string()),
        }
    }
}

/// Where a file goes, and how it is described.
pub struct Destination<'a> {
    /// The path.
    pub path: &'a RemotePath,
    /// Kept with it.
    pub content_type: Option<&'a str>,
}

/// Stores a local file. Returns its size.
///
/// # Errors
/// After the retries; nothing of the file appears then, or the whole of it.
pub async fn upload_file(
    client: &Client,
    local: &Path,
    follow: bool,
    to: &Destination<'_>,
    progress: &Progress,
) -> Result<u64, UploadError> {
    let key = client.idempotency_key();
    let mut attempt = 0;
    loop {
        let path = local.to_owned();
        let source = blocking(move || source::open(&path, follow)).await??;
        let result = match source {
            Source::Whole { bytes, hash } => {
                let sent = bytes.len() as u64;
                send_whole(client, to, &key, bytes, hash).await?;
                progress.advance(sent);
                return Ok(sent);
            }
            Source::Stream(opened) => send_stream(client, to, &key, opened, progress).await,
        };
        let error = match result {
            Err(UploadError::Api(error)) => error,
            other => return other,
        };
        attempt += 1;
        if !client.pause(&error, attempt).await {
            return Err(error.into());
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SourceError::Io(io::Error::other(error)).into())
}

async fn send_whole(
    client: &Client,
    to: &Destination<'_>,
    key: &str,
    bytes: Bytes,
    hash: ContentHash,
) -> Result<(), UploadError> {
    let stored = client
        .with_retries(|| client.put_once(to.path, key, to.content_type, PutBody::Whole(bytes.clone())))
        .await?;
    compare(hash, &stored)
}

fn compare(sent: ContentHash, stored: &Stored) -> Result<(), UploadError> {
    match stored.etag {
        Some(stored) if stored == sent => Ok(()),
        Some(stored) => Err(UploadError::Differs { sent, stored }),
        None => Err(ApiError::Answer {
            what: "PUT".into(),
            cause: "it has no ETag that is a content hash".into(),
        }
        .into()),
    }
}

async fn send_stream(
    client: &Client,
    to: &Destination<'_>,
    key: &str,
    opened: Opened,
    progress: &Progress,
) -> Result<u64, UploadError> {
    let len = opened.len();
    let (tx, rx) = mpsc::channel(PIECES_WAITING);
    let stop = Arc::new(AtomicBool::new(false));
    let moved = progress.part();
    let this = moved.clone();
    let stopped = stop.clone();
    let reader = tokio::task::spawn_blocking(move || opened.send(&tx, &stopped, &this));
    let put =
        client.put_once(to.path, key, to.content_type, PutBody::Pieces(PieceBody::new(rx, Some(len)))).await;
    let read = join(reader, &stop, put.is_err()).await;
    settle(put, read).map(|()| len).inspect_err(|_| moved.take_back())
}

/// Waits for a reader; one whose connection is gone is told so, and not waited for without end.
async fn join(
    reader: tokio::task::JoinHandle<Result<ContentHash, SourceError>>,
    stop: &AtomicBool,
    failed: bool,
) -> Result<ContentHash, SourceError> {
    if failed {
        stop.store(true, Ordering::Relaxed);
        return match tokio::time::timeout(READER_GRACE, reader).await {
            Ok(Ok(read)) => read,
            Ok(Err(panicked)) => Err(io::Error::other(panicked).into()),
            Err(_) => Err(SourceError::Closed),
        };
    }
    reader.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked).into()))
}

/// The local cause comes first: a file that changed breaks the connection too.
fn settle(put: Result<Stored, ApiError>, read: Result<ContentHash, SourceError>) -> Result<(), UploadError> {
    match (read, put) {
        (Ok(hash), Ok(stored)) => compare(hash, &stored),
        (Ok(_) | Err(SourceError::Closed), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error.into()),
    }
}

/// Stores what comes on stdin. Returns its size.
///
/// # Errors
/// Bytes beyond the first MiB can't be sent again: a lost connection is then the end.
pub async fn upload_stdin(
    client: &Client,
    to: &Destination<'_>,
    progress: &Progress,
) -> Result<u64, UploadError> {
    let key = client.idempotency_key();
    let head = blocking(read_head).await?.map_err(SourceError::Io)?;
    if head.len() as u64 <= WHOLE_BYTES_MAX {
        let (sent, hash) = (head.len() as u64, content_hash(&head));
        send_whole(client, to, &key, head, hash).await?;
        return Ok(sent);
    }
    let (tx, rx) = mpsc::channel(PIECES_WAITING);
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let (stopped, counted, this) = (stop.clone(), sent.clone(), progress.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let ended = send_stdin(head, &tx, &stopped, &counted, &this);
        if ended.is_err() {
            let _ = tx.try_send(Err(io::Error::other("stdin could not be read to its end")));
        }
        ended
    });
    let put =
        client.put_once(to.path, &key, to.content_type, PutBody::Pieces(PieceBody::new(rx, None))).await;
    let read = join(reader, &stop, put.is_err()).await;
    settle(put, read)?;
    Ok(sent.load(Ordering::Relaxed))
}

/// One byte more than fits a whole body, if there is one.
fn read_head() -> io::Result<Bytes> {
    let mut stdin = io::stdin().lock();
    let mut head = BytesMut::new();
    while head.len() as u64 <= WHOLE_BYTES_MAX {
        let piece = source::read_piece(&mut stdin, WHOLE_BYTES_MAX + 1 - head.len() as u64)?;
        if piece.is_empty() {
            break;
        }
        head.extend_from_slice(&piece);
    }
    Ok(head.freeze())
}

fn send_stdin(
    head: Bytes,
    pieces: &mpsc::Sender<io::Result<Piece>>,
    stop: &AtomicBool,
    sent: &AtomicU64,
    progress: &Progress,
) -> Result<ContentHash, SourceError> {
    let mut hasher = ContentHasher::new();
    let mut piece = head;
    while !piece.is_empty() {
        if stop.load(Ordering::Relaxed) {
            return Err(SourceError::Closed);
        }
        hasher.push(&piece);
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        progress.expect(piece.len() as u64);
        progress.advance(piece.len() as u64);
        pieces.blocking_send(Ok(Piece::Data(piece))).map_err(|_| SourceError::Closed)?;
        piece = source::read_piece(&mut io::stdin().lock(), u64::MAX)?;
    }
    pieces.blocking_send(Ok(Piece::End)).map_err(|_| SourceError::Closed)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::scripted::{Act, Asked, answer, play};
    use hay_common::error::ErrorCode;

    fn stored(bytes: &[u8]) -> Vec<u8> {
        answer("201 Created", &format!("etag: \"{}\"\r\n", content_hash(bytes)), b"")
    }

    async fn upload(bytes: &[u8], script: Vec<Act>) -> (Result<u64, UploadError>, Vec<Asked>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, bytes).unwrap();
        let (client, log) = play(script).await;
        let path = RemotePath::parse("/x").unwrap();
        let to = Destination { path: &path, content_type: Some("text/plain") };
        let sent = upload_file(&client, &file, false, &to, &Progress::hidden()).await;
        let log = log.lock().clone();
        (sent, log)
    }

    fn large() -> Vec<u8> {
        (0..WHOLE_BYTES_MAX as usize * 3 + 17).map(|i| (i / 3) as u8).collect()
    }

    #[tokio::test]
    async fn large_files_stream_with_their_length_and_again_after_a_loss() {
        let bytes = large();
        let (sent, log) = upload(&bytes, vec![Act::Hang, Act::Answer(stored(&bytes))]).await;
        assert_eq!(sent.unwrap(), bytes.len() as u64);
        assert_eq!(log.len(), 2);
        assert!(log[1].body == bytes);
        assert_eq!(log[1].header("content-length"), Some(bytes.len().to_string().as_str()));
        assert_eq!(log[1].header("content-type"), Some("text/plain"));
        assert_eq!(log[0].header("idempotency-key"), log[1].header("idempotency-key"));
    }

    #[tokio::test]
    async fn other_bytes_than_were_sent_are_no_success() {
        for bytes in [b"small".to_vec(), large()] {
            let (sent, _) = upload(&bytes, vec![Act::Answer(stored(b"other"))]).await;
            assert!(matches!(sent, Err(UploadError::Differs { .. })), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn an_early_refusal_of_a_large_file_is_heard() {
        let body = br#"{"error":{"code":"storage_full","message":"no room"}}"#;
        let refusal = answer("507 Insufficient Storage", "", body);
        let (sent, log) = upload(&large(), vec![Act::AnswerEarly(refusal)]).await;
        let Err(UploadError::Api(error)) = sent else { panic!("{sent:?}") };
        assert_eq!(error.code(), Some(ErrorCode::StorageFull));
        assert_eq!(log.len(), 1);
    }
}
