//! A request body that another task fills, with a length that is known or not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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

/// A body that arrives piece by piece.
pub struct PieceBody {
    pieces: mpsc::Receiver<io::Result<Piece>>,
    left: Option<u64>,
    ended: bool,
}

impl PieceBody {
    /// A body of `length` bytes, or of as many as come.
    pub fn new(pieces: mpsc::Receiver<io::Result<Piece>>, length: Option<u64>) -> Self {
        Self { pieces, left: length, ended: false }
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
        match ready!(self.pieces.poll_recv(cx)) {
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
    async fn a_body_is_whole_only_with_its_end() {
        assert_eq!(collect(vec![data("ab"), data("c"), Ok(Piece::End)], Some(3)).await.unwrap(), "abc");
        assert_eq!(collect(vec![data("ab"), Ok(Piece::End)], None).await.unwrap(), "ab");
        assert!(collect(vec![data("ab")], None).await.is_err(), "a reader that died");
        assert!(collect(vec![data("ab"), Ok(Piece::End)], Some(3)).await.is_err(), "too short");
        assert!(collect(vec![data("ab"), data("cd"), Ok(Piece::End)], Some(3)).await.is_err(), "too long");
        assert!(collect(vec![data("ab"), Err(io::Error::other("x"))], None).await.is_err());
    }
}
