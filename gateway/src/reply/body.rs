//! Bodies of answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::server::usage::InWork;

/// A body that broke off: the connection is aborted, so that nobody takes what was sent for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the file could not be read to its end: {0}")]
pub(crate) struct BrokenOff(pub(crate) String);

/// Parts of a body in their order.
pub(crate) type PartStream = Pin<Box<dyn Stream<Item = Result<Bytes, BrokenOff>> + Send>>;

/// What is sent. Its length is always known.
pub(crate) struct ReplyBody {
    inner: Inner,
    /// Counted as a request in work until the body is dropped.
    _permit: Option<OwnedSemaphorePermit>,
    _in_work: Option<InWork>,
}

enum Inner {
    Whole(Option<Bytes>),
    Parts {
        stream: PartStream,
        left: u64,
    },
    /// No bytes, but the length that a GET would have: for HEAD.
    Announced(u64),
}

impl Default for ReplyBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl ReplyBody {
    fn of(inner: Inner) -> Self {
        Self { inner, _permit: None, _in_work: None }
    }

    /// Holds the permit until the body is dropped.
    pub(crate) fn keep(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self._permit = permit;
    }

    /// The connection is in use until the body is dropped.
    pub(crate) fn keep_connection(&mut self, in_work: InWork) {
        self._in_work = Some(in_work);
    }

    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::of(Inner::Whole(None))
    }

    /// These bytes.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::of(Inner::Whole(Some(bytes).filter(|b| !b.is_empty())))
    }

    /// `length` bytes, in parts.
    pub(crate) fn parts(length: u64, stream: PartStream) -> Self {
        Self::of(Inner::Parts { stream, left: length })
    }

    /// The length alone.
    pub(crate) fn announced(length: u64) -> Self {
        Self::of(Inner::Announced(length))
    }

    /// For HEAD: the same length, no bytes.
    pub(crate) fn without_bytes(self) -> Self {
        let length = self.length();
        Self { inner: Inner::Announced(length), ..self }
    }

    /// How many bytes are left.
    pub(crate) fn length(&self) -> u64 {
        match &self.inner {
            Inner::Whole(bytes) => bytes.as_ref().map_or(0, |b| b.len() as u64),
            Inner::Parts { left, .. } => *left,
            Inner::Announced(length) => *length,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.inner {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Inner::Announced(_) => Poll::Ready(None),
            Inner::Parts { left: 0, .. } => Poll::Ready(None),
            Inner::Parts { stream, left } => match stream.as_mut().poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) if bytes.len() as u64 <= *left => {
                    *left -= bytes.len() as u64;
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(Some(Ok(_))) => {
                    Poll::Ready(Some(Err(BrokenOff("more bytes came than the file has".into()))))
                }
                Poll::Ready(Some(Err(broken))) => Poll::Ready(Some(Err(broken))),
                Poll::Ready(None) => Poll::Ready(Some(Err(BrokenOff(format!("{left} bytes are missing"))))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Parts { left, .. } => *left == 0,
            Inner::Announced(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            // hyper writes the length of HEAD's answers from the header that stands already.
            Inner::Announced(_) => SizeHint::with_exact(0),
            _ => SizeHint::with_exact(self.length()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn collect(
        length: u64,
        parts: Vec<Result<&'static [u8], &'static str>>,
    ) -> Result<Bytes, BrokenOff> {
        let parts = parts.into_iter().map(|p| p.map(Bytes::from_static).map_err(|e| BrokenOff(e.into())));
        ReplyBody::parts(length, Box::pin(futures::stream::iter(parts))).collect().await.map(|c| c.to_bytes())
    }

    #[tokio::test]
    async fn only_a_whole_body_ends_well() {
        assert_eq!(&collect(5, vec![Ok(b"he"), Ok(b"llo")]).await.unwrap()[..], b"hello");
        assert!(collect(5, vec![Ok(b"he")]).await.is_err(), "too short");
        assert!(collect(5, vec![Ok(b"hello"), Ok(b"!")]).await.is_ok(), "nobody asks beyond the end");
        assert!(collect(4, vec![Ok(b"he"), Ok(b"llo")]).await.is_err(), "too long");
        assert!(collect(5, vec![Ok(b"he"), Err("gone")]).await.is_err());
    }
}
