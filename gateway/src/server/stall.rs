//! A connection that knows since when its client takes nothing, and how much it sends.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hay_common::clock::SharedClock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::usage::Usage;

/// Since when a write waits, in ms of the monotonic clock; `u64::MAX` when none does.
#[derive(Clone)]
pub(crate) struct StallWatch {
    since_ms: Arc<AtomicU64>,
    clock: SharedClock,
}

const NOT_STALLED: u64 = u64::MAX;

impl StallWatch {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { since_ms: Arc::new(AtomicU64::new(NOT_STALLED)), clock }
    }

    /// How long the client has taken nothing of what waits for it.
    pub(crate) fn stalled_for(&self) -> Duration {
        match self.since_ms.load(Ordering::Relaxed) {
            NOT_STALLED => Duration::ZERO,
            since => self.clock.monotonic().saturating_sub(Duration::from_millis(since)),
        }
    }

    fn note<T>(&self, poll: &Poll<io::Result<T>>) {
        if poll.is_ready() {
            self.since_ms.store(NOT_STALLED, Ordering::Relaxed);
        } else if self.since_ms.load(Ordering::Relaxed) == NOT_STALLED {
            let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(NOT_STALLED - 1);
            self.since_ms.store(now, Ordering::Relaxed);
        }
    }
}

/// A stream that is watched.
pub(crate) struct Watched<S> {
    inner: S,
    watch: StallWatch,
    usage: Arc<Usage>,
}

impl<S> Watched<S> {
    pub(crate) fn new(inner: S, watch: StallWatch, usage: Arc<Usage>) -> Self {
        Self { inner, watch, usage }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.usage.note_read(buf.filled().len().saturating_sub(before))?;
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch.note(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch.note(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::gauge::BufferGauge;
    use hay_common::clock::ManualClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_seen() {
        let clock = ManualClock::at(0);
        let watch = StallWatch::new(clock.clone());
        let (near, mut far) = tokio::io::duplex(8);
        let usage = Usage::new(BufferGauge::default(), clock.clone());
        let mut near = Watched::new(near, watch.clone(), usage);
        near.write_all(b"12345678").await.unwrap();
        assert_eq!(watch.stalled_for(), Duration::ZERO);
        let mut blocked = Box::pin(near.write_all(b"9"));
        assert!(futures::poll!(&mut blocked).is_pending());
        clock.advance(Duration::from_secs(7));
        assert!(futures::poll!(&mut blocked).is_pending());
        assert_eq!(watch.stalled_for(), Duration::from_secs(7));
        far.read_u8().await.unwrap();
        blocked.await.unwrap();
        assert_eq!(watch.stalled_for(), Duration::ZERO);
    }
}
