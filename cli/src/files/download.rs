//! One stored file into something that takes bytes, verified.

use std::io;

use bytes::Bytes;
use hay_common::ids::ContentHash;
use tokio::sync::{mpsc, oneshot};

use super::hashing::ContentHasher;
use super::local::LocalError;
use super::progress::Progress;
use crate::api::{ApiError, Client, Fetched, PIECES_IN_FLIGHT};
use crate::remote::RemotePath;
use crate::stop::Stop;

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server's side.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The local side.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The bytes are not those that were stored.
    #[error("the bytes that came have the content hash {got}, not {expected}: they are damaged")]
    Damaged {
        /// The ETag.
        expected: ContentHash,
        /// What came.
        got: ContentHash,
    },
}

impl From<io::Error> for DownloadError {
    fn from(error: io::Error) -> Self {
        Self::Local(LocalError::Io(error))
    }
}

impl From<DownloadError> for Stop {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Api(error) => error.into(),
            DownloadError::Local(LocalError::Io(error)) => error.into(),
            DownloadError::Local(error) => {
                Self { code: "unsafe_target".into(), ..Self::local(error.to_string()) }
            }
            DownloadError::Damaged { .. } => {
                Self { code: "damaged".into(), ..Self::local(error.to_string()) }
            }
        }
    }
}

/// The bytes of a file on their way, for a thread that may block.
pub struct Incoming {
    pieces: mpsc::Receiver<Bytes>,
    end: oneshot::Receiver<Fetched>,
    progress: Progress,
    hasher: ContentHasher,
}

impl Incoming {
    /// The next bytes; `None` when no more come.
    pub fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.blocking_recv()?;
        self.hasher.push(&piece);
        self.progress.advance(piece.len() as u64);
        Some(piece)
    }

    /// Takes what is left, and says that all came and was right.
    ///
    /// # Errors
    /// `Cancelled` where the stream broke (whoever fetches knows why), `Damaged` where the hash differs.
    pub fn verify(mut self) -> Result<Fetched, DownloadError> {
        while self.next().is_some() {}
        let fetched = self.end.blocking_recv().map_err(|_| ApiError::Cancelled)?;
        verdict(fetched, self.hasher.finish())
    }
}

fn verdict(fetched: Fetched, got: ContentHash) -> Result<Fetched, DownloadError> {
    if got == fetched.etag {
        Ok(fetched)
    } else {
        Err(DownloadError::Damaged { expected: fetched.etag, got })
    }
}

/// Fetches `path` into `take`, which runs on a thread that may block.
///
/// # Errors
/// The first cause: what the taker says, unless it only saw the stream break.
pub async fn download<T: Send + 'static>(
    client: &Client,
    path: &RemotePath,
    progress: &Progress,
    take: impl FnOnce(Incoming) -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    let (tx, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
    let (end_tx, end) = oneshot::channel();
    let incoming = Incoming { pieces, end, progress: progress.clone(), hasher: ContentHasher::new() };
    let taker = tokio::task::spawn_blocking(move || take(incoming));
    let fetched = client.fetch(path, &tx).await;
    drop(tx);
    if let Ok(fetched) = &fetched {
        // A taker that has gone away says why below.
        let _ = end_tx.send(*fetched);
    } else {
        drop(end_tx);
    }
    let taken = taker.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked).into()));
    match (taken, fetched) {
        (Err(DownloadError::Api(ApiError::Cancelled)), Err(error)) => Err(error.into()),
        (taken, _) => taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::hashing::content_hash;

    fn incoming(pieces: &[&'static [u8]], end: Option<Fetched>) -> Incoming {
        let (tx, rx) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            tx.try_send(Bytes::from_static(piece)).unwrap();
        }
        let (end_tx, end_rx) = oneshot::channel();
        if let Some(end) = end {
            end_tx.send(end).unwrap();
        }
        Incoming { pieces: rx, end: end_rx, progress: Progress::new("test"), hasher: ContentHasher::new() }
    }

    #[test]
    fn only_the_right_bytes_pass() {
        let fetched = Fetched { etag: content_hash(b"hello"), size: 5 };
        assert_eq!(incoming(&[b"hel", b"lo"], Some(fetched)).verify().unwrap(), fetched);
        let damaged = incoming(&[b"hel", b"l0"], Some(fetched)).verify();
        assert!(matches!(damaged, Err(DownloadError::Damaged { .. })));
        let cut = incoming(&[b"hel"], Some(fetched)).verify();
        assert!(matches!(cut, Err(DownloadError::Damaged { .. })));
    }

    #[test]
    fn a_broken_stream_is_never_taken_for_a_whole_file() {
        let broken = incoming(&[b"hello"], None).verify();
        assert!(matches!(broken, Err(DownloadError::Api(ApiError::Cancelled))));
    }
}
