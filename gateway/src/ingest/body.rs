//! A request body, read with a floor under its rate.

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::FILE_BYTES_MAX;
use http_body::Body;
use http_body_util::BodyExt;

use crate::memory::rate::{RateFloor, RateLimits};
use crate::memory::uploads::Share;

/// Why a body gave no more bytes before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    /// Below the rate, or idle while buffers are short.
    #[error("the body came too slowly: send it again, faster than {0} bytes a second")]
    TooSlow(u64),
    /// The connection ended, or broke the rules of HTTP.
    #[error("the body ended after {received} bytes{of}: nothing was stored")]
    Incomplete {
        /// Bytes that came.
        received: u64,
        /// " of N", where N is known.
        of: String,
    },
    /// Larger than any file may be.
    #[error("a file may have {FILE_BYTES_MAX} bytes")]
    TooLarge,
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Self {
        let code = match fault {
            BodyFault::TooSlow(_) => ErrorCode::TooSlow,
            BodyFault::Incomplete { .. } => ErrorCode::IncompleteBody,
            BodyFault::TooLarge => ErrorCode::TooLarge,
        };
        Failure::new(code, fault.to_string())
    }
}

/// A body and what is known of it.
pub(crate) struct BodyReader<B> {
    body: B,
    floor: RateFloor,
    limits: RateLimits,
    clock: SharedClock,
    announced: Option<u64>,
    received: u64,
    ended: bool,
}

impl<B> BodyReader<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// `announced`: its `Content-Length`, where it has one.
    pub(crate) fn new(body: B, announced: Option<u64>, limits: RateLimits, clock: SharedClock) -> Self {
        Self { body, floor: RateFloor::new(limits), limits, clock, announced, received: 0, ended: false }
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.announced.map(|a| a.saturating_sub(self.received))
    }

    /// Whether it is known that nothing more comes.
    pub(crate) fn is_finished(&self) -> bool {
        self.body.is_end_stream() && self.announced.is_none_or(|a| a == self.received)
    }

    /// The next bytes, or `None` at the end of a whole body. `share` is the buffer that is held against the client
    /// meanwhile; it is told when the client lets it wait.
    ///
    /// # Errors
    /// See [`BodyFault`].
    pub(crate) async fn next(&mut self, mut share: Option<&mut Share>) -> Result<Option<Bytes>, BodyFault> {
        while !self.ended {
            let frame = {
                let mut frame = pin!(self.body.frame());
                match futures::poll!(&mut frame) {
                    Poll::Ready(ready) => ready,
                    Poll::Pending => {
                        let started = self.clock.monotonic();
                        let patience = self.floor.patience();
                        let lost = BodyFault::TooSlow(self.limits.bytes_per_s_min);
                        let came = match share.as_deref_mut() {
                            None => tokio::time::timeout(patience, frame).await.ok(),
                            Some(share) => {
                                share.idle();
                                let came = tokio::select! {
                                    _ = share.evicted() => return Err(lost),
                                    came = tokio::time::timeout(patience, frame) => came.ok(),
                                };
                                share.active().map_err(|_| lost.clone())?;
                                came
                            }
                        };
                        let bytes = match &came {
                            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
                            _ => 0,
                        };
                        let waited = match came {
                            // The timer's word counts, whatever the clock says.
                            None => patience.max(self.clock.monotonic().saturating_sub(started)),
                            Some(_) => self.clock.monotonic().saturating_sub(started),
                        };
                        self.floor.note(bytes, waited).map_err(|_| lost)?;
                        match came {
                            Some(ready) => ready,
                            None => continue,
                        }
                    }
                }
            };
            match frame {
                None => self.ended = true,
                Some(Err(_)) => return Err(self.incomplete()),
                Some(Ok(frame)) => {
                    // Trailers say nothing that is kept.
                    let Ok(data) = frame.into_data() else { continue };
                    self.received += data.len() as u64;
                    if self.received > FILE_BYTES_MAX {
                        return Err(BodyFault::TooLarge);
                    }
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
            }
        }
        self.end()
    }

    fn end(&self) -> Result<Option<Bytes>, BodyFault> {
        match self.announced {
            Some(announced) if announced != self.received => Err(self.incomplete()),
            _ => Ok(None),
        }
    }

    fn incomplete(&self) -> BodyFault {
        let of = self.announced.map(|a| format!(" of {a}")).unwrap_or_default();
        BodyFault::Incomplete { received: self.received, of }
    }

    /// The body itself, to be read to its end without use.
    pub(crate) fn into_inner(self) -> B {
        self.body
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hay_common::clock::ManualClock;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use std::sync::Arc;
    use std::time::Duration;

    type Step = Result<Frame<Bytes>, &'static str>;

    /// A body of (pause, step).
    pub(crate) fn scripted(
        steps: Vec<(Duration, Step)>,
        clock: Arc<ManualClock>,
    ) -> impl Body<Data = Bytes, Error = &'static str> + Unpin {
        let stream = futures::stream::unfold(steps.into_iter(), move |mut steps| {
            let clock = clock.clone();
            async move {
                let (pause, step) = steps.next()?;
                if !pause.is_zero() {
                    tokio::task::yield_now().await;
                    clock.advance(pause);
                }
                Some((step, steps))
            }
        });
        StreamBody::new(Box::pin(stream))
    }

    pub(crate) fn data(bytes: &[u8]) -> Step {
        Ok(Frame::data(Bytes::copy_from_slice(bytes)))
    }

    pub(crate) const LIMITS: RateLimits =
        RateLimits { bytes_per_s_min: 4096, window: Duration::from_secs(30) };

    async fn read_all(steps: Vec<(Duration, Step)>, announced: Option<u64>) -> Result<Vec<u8>, BodyFault> {
        let clock = ManualClock::at(0);
        let mut reader = BodyReader::new(scripted(steps, clock.clone()), announced, LIMITS, clock);
        let mut all = Vec::new();
        while let Some(bytes) = reader.next(None).await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_whole_body_is_read() {
        let second = Duration::from_secs(1);
        let steps = || vec![(second, data(b"ab")), (second, data(b"")), (second, data(b"c"))];
        assert_eq!(read_all(steps(), None).await.unwrap(), b"abc");
        assert_eq!(read_all(steps(), Some(3)).await.unwrap(), b"abc");
    }

    #[tokio::test]
    async fn a_cut_body_is_never_whole() {
        let cut = || vec![(Duration::ZERO, data(b"ab"))];
        let error = read_all(cut(), Some(3)).await.unwrap_err();
        assert_eq!(error, BodyFault::Incomplete { received: 2, of: " of 3".into() });
        let mut broken = cut();
        broken.push((Duration::ZERO, Err("reset")));
        assert!(matches!(read_all(broken, None).await, Err(BodyFault::Incomplete { received: 2, .. })));
        assert!(
            matches!(read_all(cut(), Some(1)).await, Err(BodyFault::Incomplete { .. })),
            "longer than announced"
        );
    }

    #[tokio::test]
    async fn a_body_below_the_rate_is_given_up() {
        let steps = (0..100).map(|_| (Duration::from_secs(1), data(&[0; 100]))).collect();
        assert_eq!(read_all(steps, None).await, Err(BodyFault::TooSlow(4096)));
        let stalled = vec![(Duration::ZERO, data(b"ab")), (Duration::from_secs(3600), data(b"c"))];
        assert_eq!(read_all(stalled, None).await, Err(BodyFault::TooSlow(4096)));
        let steady = (0..100).map(|_| (Duration::from_secs(1), data(&[0; 4096]))).collect();
        assert_eq!(read_all(steady, None).await.unwrap().len(), 409_600);
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up_by_the_timer() {
        let limits = RateLimits { bytes_per_s_min: 4096, window: Duration::from_millis(20) };
        let body = StreamBody::new(futures::stream::pending::<Step>());
        let mut reader = BodyReader::new(body, None, limits, ManualClock::at(0));
        assert_eq!(reader.next(None).await, Err(BodyFault::TooSlow(4096)));
    }

    #[tokio::test]
    async fn a_body_in_one_frame_is_known_to_be_finished() {
        let clock = ManualClock::at(0);
        let body = http_body_util::Full::<Bytes>::new(Bytes::from_static(b"abc"));
        let mut reader = BodyReader::new(body, Some(3), LIMITS, clock);
        assert!(!reader.is_finished());
        reader.next(None).await.unwrap().unwrap();
        assert!(reader.is_finished());
    }
}
