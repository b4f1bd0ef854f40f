//! A request body that another task fills, with a length that is known or not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Pieces that may wait between reader and connection.
pub const PIECES_WAITING: usize = 2;

/// What a reader hands on.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Data(Bytes),
    /// The end, as it should be. Without it the body fails: a reader that died must not look like one that is done.
    End,
}

/// How far the connection has taken a body.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Pieces and ends handed over.
    steps: AtomicU64,
    /// The connection has taken all and wants more: whoever reads the local side is slow, not the server.
    wanting: AtomicBool,
}

impl Pace {
    /// Returns when the connection has taken nothing for `limit`, up to twice as long, although there was something to
    /// take, or has said nothing for so long since it took the end.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let before = self.steps.load(Ordering::Relaxed);
            tokio::time::sleep(limit).await;
            if !self.wanting.load(Ordering::Relaxed) && self.steps.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// A body that arrives piece by piece.
pub struct PieceBody {
    pace: Arc<Pace>,
    pieces: mpsc::Receiver<io::Result<Piece>>,
    left: Option<u64>,
    ended: bool,
}

impl PieceBody {
    /// Bytes that are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// A body of `length` bytes, or of as many as come.
    pub fn new(pieces: mpsc::Receiver<io::Result<Piece>>, length: Option<u64>) -> Self {
        Self { pace: Arc::default(), pieces, left: length, ended: false }
    }

    /// How far it has come, to be looked at while it is sent.
    pub(super) fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }

    fn take(&mut self, data: Bytes) -> io::Result<Frame<Bytes>> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or_else(|| io::Error::other("more bytes than announced"))?;
        }
        Ok(Frame::data(data))
    }
}

impl Body for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.pieces.poll_recv(cx);
        self.pace.wanting.store(next.is_pending(), Ordering::Relaxed);
        let next = ready!(next);
        self.pace.steps.fetch_add(1, Ordering::Relaxed);
        match next {
            Some(Ok(Piece::Data(data))) => Poll::Ready(Some(self.take(data))),
            Some(Ok(Piece::End)) if self.left.unwrap_or(0) == 0 => {
                self.ended = true;
                Poll::Ready(None)
            }
            Some(Ok(Piece::End)) => Poll::Ready(Some(Err(io::Error::other("fewer bytes than announced")))),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(Some(Err(io::Error::other("the reader stopped")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn collect(pieces: Vec<io::Result<Piece>>, length: Option<u64>) -> io::Result<Bytes> {
        let (tx, rx) = mpsc::channel(8);
        for piece in pieces {
            tx.send(piece).await.unwrap();
        }
        drop(tx);
        PieceBody::new(rx, length).collect().await.map(http_body_util::Collected::to_bytes)
    }

    fn data(text: &'static str) -> io::Result<Piece> {
        Ok(Piece::Data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_slow_reader_is_no_stalled_server() {
        let limit = Duration::from_millis(10);
        let (tx, rx) = mpsc::channel(8);
        let mut body = PieceBody::new(rx, None);
        let pace = body.pace();
        // The connection waits for the reader: for ever, if need be.
        assert!(futures::poll!(body.frame()).is_pending());
        assert!(tokio::time::timeout(limit * 20, pace.stalled(limit)).await.is_err());
        // There is something to take, and the connection does not come for it.
        tx.send(data("ab")).await.unwrap();
        tx.send(data("cd")).await.unwrap();
        body.frame().await.unwrap().unwrap();
        pace.stalled(limit).await;
    }

    #[tokio::test]
    async fn a_body_is_whole_only_with_its_end() {
        assert_eq!(collect(vec![data("ab"), data("c"), Ok(Piece::End)], Some(3)).await.unwrap(), "abc");
        assert_eq!(collect(vec![data("ab"), Ok(Piece::End)], None).await.unwrap(), "ab");
        assert!(collect(vec![data("ab")], None).await.is_err(), "a reader that died");
        assert!(collect(vec![data("ab"), Ok(Piece::End)], Some(3)).await.is_err(), "too short");
        assert!(collect(vec![data("ab"), data("cd"), Ok(Piece::End)], Some(3)).await.is_err(), "too long");
        assert!(collect(vec![data("ab"), Err(io::Error::other("x"))], None).await.is_err());
    }
}
