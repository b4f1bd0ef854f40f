//! A request body, read with a floor under its rate.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::FILE_BYTES_MAX;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use crate::memory::buffer::{BufferLoss, ChunkBuffer};
use crate::memory::rate::{PressureFloor, RateFloor, RateLimits};
use crate::memory::uploads::News;

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
    /// Buffers stayed short for longer than a body is let wait.
    #[error("there was no room for the body: nothing was stored, try again")]
    NoRoom,
    /// Its first bytes were set aside, and the disk did not give them back as they were.
    #[error("what had come of the body could not be read back from disk: nothing was stored, send it again")]
    AsideLost,
    /// The server is being stopped and nothing comes.
    #[error("the server is being stopped: nothing was stored, send it again")]
    Stopping,
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Self {
        let code = match fault {
            BodyFault::TooSlow(_) => ErrorCode::TooSlow,
            BodyFault::Incomplete { .. } => ErrorCode::IncompleteBody,
            BodyFault::TooLarge => ErrorCode::TooLarge,
            BodyFault::NoRoom => ErrorCode::Overloaded,
            BodyFault::AsideLost | BodyFault::Stopping => ErrorCode::Unavailable,
        };
        Failure::new(code, fault.to_string())
    }
}

/// How long a body may bring nothing once the server is being stopped.
pub(crate) const STOPPING_PATIENCE: Duration = Duration::from_secs(2);

type NextFrame<B> = Option<Result<Frame<Bytes>, <B as Body>::Error>>;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndMark {
    /// The body gives an error where it was cut: HTTP/1.
    Given,
    /// Only the flag of the last frame: HTTP/2. A stream that is reset with `NO_ERROR` looks like one that ended.
    Flag,
}

/// What a body must keep to.
#[derive(Clone)]
pub(crate) struct BodyRules {
    /// Its floor at any time.
    pub(crate) rate: RateLimits,
    /// Its floor while others wait for buffers.
    pub(crate) pressure: RateLimits,
    pub(crate) end: EndMark,
    /// Once cancelled, a body from which nothing comes any more is given up.
    pub(crate) stopping: CancellationToken,
    /// How long it may bring nothing then.
    pub(crate) stopping_patience: Duration,
}

/// A body and what is known of it.
pub(crate) struct BodyReader<B> {
    body: B,
    floor: RateFloor,
    pressure: PressureFloor,
    rules: BodyRules,
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
    pub(crate) fn new(body: B, announced: Option<u64>, rules: BodyRules, clock: SharedClock) -> Self {
        let (floor, pressure) = (RateFloor::new(rules.rate), PressureFloor::new(rules.pressure));
        Self { body, floor, pressure, rules, clock, announced, received: 0, ended: false }
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.announced.map(|a| a.saturating_sub(self.received))
    }

    /// Whether it is known that nothing more comes.
    pub(crate) fn is_finished(&self) -> bool {
        self.body.is_end_stream() && self.announced.is_none_or(|a| a == self.received)
    }

    /// The next bytes, or `None` at the end of a whole body. `held` is the memory that is held against the client
    /// meanwhile; it is told when the client lets it wait, and then set aside when others need it.
    ///
    /// # Errors
    /// See [`BodyFault`].
    pub(crate) async fn next(
        &mut self,
        mut held: Option<&mut ChunkBuffer>,
    ) -> Result<Option<Bytes>, BodyFault> {
        while !self.ended {
            let ready = futures::poll!(self.body.frame());
            let frame = match ready {
                Poll::Ready(ready) => {
                    // It was last seen idle if it came while the buffer was being set aside.
                    let is_slow = self.pressure.is_used_up();
                    let kept = held.as_deref_mut().map_or(Ok(()), |held| held.active(is_slow));
                    kept.map_err(|_| self.lost(BufferLoss::Evicted))?;
                    ready
                }
                Poll::Pending => match self.wait(held.as_deref_mut()).await? {
                    Some(ready) => ready,
                    None => continue,
                },
            };
            match frame {
                None if self.rules.end == EndMark::Flag && !self.body.is_end_stream() => {
                    return Err(self.incomplete());
                }
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

    /// Waits for the client. `None`: nothing came, and its credit is not used up.
    async fn wait(&mut self, mut held: Option<&mut ChunkBuffer>) -> Result<Option<NextFrame<B>>, BodyFault> {
        let started = self.clock.monotonic();
        let patience = self.floor.patience();
        if let Some(held) = held.as_deref_mut() {
            held.idle();
        }
        let news = async {
            match held.as_deref() {
                Some(held) => held.news().await,
                None => std::future::pending().await,
            }
        };
        let stopping = async {
            self.rules.stopping.cancelled().await;
            tokio::time::sleep(self.rules.stopping_patience).await;
        };
        let (mut came, mut told, mut in_time) = (None, None, true);
        tokio::select! {
            next = tokio::time::timeout(patience, self.body.frame()) => match next {
                Ok(next) => came = Some(next),
                Err(_) => in_time = false,
            },
            news = news => told = Some(news),
            () = stopping => return Err(BodyFault::Stopping),
        }
        let bytes = match &came {
            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        let mut waited = self.clock.monotonic().saturating_sub(started);
        if !in_time {
            // The timer's word counts, whatever the clock says.
            waited = waited.max(patience);
        }
        let is_slow = self.pressure.note(bytes, waited);
        if let Some(held) = held {
            let kept = match told {
                Some(News::Evicted) => Err(BufferLoss::Evicted),
                // The time that it takes is ours, not the client's.
                Some(News::SetAside) => held.set_aside().await,
                None => held.active(is_slow).map_err(|_| BufferLoss::Evicted),
            };
            kept.map_err(|loss| self.lost(loss))?;
        }
        self.floor.note(bytes, waited).map_err(|_| self.lost(BufferLoss::Evicted))?;
        Ok(came)
    }

    /// How the client is told of it.
    pub(crate) fn lost(&self, loss: BufferLoss) -> BodyFault {
        match loss {
            BufferLoss::Evicted => BodyFault::TooSlow(self.rules.rate.bytes_per_s_min),
            BufferLoss::NoRoom => BodyFault::NoRoom,
            BufferLoss::AsideLost => BodyFault::AsideLost,
        }
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
    use http_body_util::StreamBody;
    use std::sync::Arc;

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

    pub(crate) fn rules() -> BodyRules {
        let stopping = CancellationToken::new();
        let stopping_patience = Duration::from_millis(20);
        BodyRules { rate: LIMITS, pressure: LIMITS, end: EndMark::Given, stopping, stopping_patience }
    }

    async fn read_all(steps: Vec<(Duration, Step)>, announced: Option<u64>) -> Result<Vec<u8>, BodyFault> {
        let clock = ManualClock::at(0);
        let mut reader = BodyReader::new(scripted(steps, clock.clone()), announced, rules(), clock);
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
        let mut reader =
            BodyReader::new(body, None, BodyRules { rate: limits, ..rules() }, ManualClock::at(0));
        assert_eq!(reader.next(None).await, Err(BodyFault::TooSlow(4096)));
    }

    #[tokio::test]
    async fn a_body_in_one_frame_is_known_to_be_finished() {
        let clock = ManualClock::at(0);
        let body = http_body_util::Full::<Bytes>::new(Bytes::from_static(b"abc"));
        let mut reader = BodyReader::new(body, Some(3), rules(), clock);
        assert!(!reader.is_finished());
        reader.next(None).await.unwrap().unwrap();
        assert!(reader.is_finished());
    }

    #[tokio::test]
    async fn where_only_a_flag_ends_a_body_silence_does_not() {
        let flagged = || BodyRules { end: EndMark::Flag, ..rules() };
        for announced in [None, Some(3)] {
            let clock = ManualClock::at(0);
            let reset = scripted(vec![(Duration::ZERO, data(b"abc"))], clock.clone());
            let mut reader = BodyReader::new(reset, announced, flagged(), clock.clone());
            reader.next(None).await.unwrap().unwrap();
            assert!(matches!(reader.next(None).await, Err(BodyFault::Incomplete { received: 3, .. })));
            let whole = http_body_util::Full::<Bytes>::new(Bytes::from_static(b"abc"));
            let mut reader = BodyReader::new(whole, announced, flagged(), clock);
            reader.next(None).await.unwrap().unwrap();
            assert_eq!(reader.next(None).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn a_body_that_brings_nothing_does_not_hold_up_the_end() {
        let body = StreamBody::new(futures::stream::pending::<Step>());
        let mut reader = BodyReader::new(body, None, rules(), ManualClock::at(0));
        reader.rules.stopping.cancel();
        assert_eq!(reader.next(None).await, Err(BodyFault::Stopping));
    }
}
