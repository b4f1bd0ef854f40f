//! A layer around a service: the same code for every method and both bindings.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{RPC_ENVELOPE_BYTES, RPC_MESSAGE_BYTES_MAX};
use prost::Message;
use tokio::time::Sleep;
use tonic::{Request, Response, Status, Streaming};

use super::{BoxStream, Rpc, to_status};

/// Bytes of one encoded message: its payload and what stands around it.
pub const MESSAGE_BYTES_MAX: usize = RPC_MESSAGE_BYTES_MAX + RPC_ENVELOPE_BYTES;

/// Something that happens around calls of any method.
pub trait Layer: Send + Sync + 'static {
    /// Runs `next` with `request`, or refuses to.
    fn around<Q, R, F, Fut>(
        &self,
        rpc: Rpc,
        request: Request<Q>,
        next: F,
    ) -> impl Future<Output = Result<Response<R>, Status>> + Send
    where
        Q: Payload,
        R: Payload,
        F: FnOnce(Request<Q>) -> Fut + Send,
        Fut: Future<Output = Result<Response<R>, Status>> + Send;
}

impl<L: Layer> Layer for Arc<L> {
    fn around<Q, R, F, Fut>(
        &self,
        rpc: Rpc,
        request: Request<Q>,
        next: F,
    ) -> impl Future<Output = Result<Response<R>, Status>> + Send
    where
        Q: Payload,
        R: Payload,
        F: FnOnce(Request<Q>) -> Fut + Send,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        L::around(self, rpc, request, next)
    }
}

/// Two layers as one: a service inside it boxes one future for each call, not one for each layer.
pub(crate) struct Both<A, B>(pub(crate) A, pub(crate) B);

impl<A: Layer, B: Layer> Layer for Both<A, B> {
    fn around<Q, R, F, Fut>(
        &self,
        rpc: Rpc,
        request: Request<Q>,
        next: F,
    ) -> impl Future<Output = Result<Response<R>, Status>> + Send
    where
        Q: Payload,
        R: Payload,
        F: FnOnce(Request<Q>) -> Fut + Send,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let Self(outer, inner) = self;
        outer.around(rpc, request, move |request| inner.around(rpc, request, next))
    }
}

/// A service inside a layer; implements the service's trait.
pub struct Layered<S: ?Sized, L> {
    /// The service.
    pub inner: Arc<S>,
    /// What is around it.
    pub layer: L,
}

/// What goes in or comes out of a method: a message or a stream of them.
pub trait Payload: Send + Sized + 'static {
    /// Bytes when encoded; 0 for a stream, whose messages are measured one by one.
    fn size(&self) -> usize;

    /// Ties the end of a call to the end of what it returned: a message has ended already.
    fn held(self, watch: Watch) -> Self {
        drop(watch);
        self
    }
}

impl<T: Send + 'static> Payload for Streaming<T> {
    fn size(&self) -> usize {
        0
    }
}

impl<T: Message + 'static> Payload for BoxStream<T> {
    fn size(&self) -> usize {
        0
    }

    fn held(self, watch: Watch) -> Self {
        let sleep = watch.time_left.map(|left| Box::pin(tokio::time::sleep(left)));
        Box::pin(Watched { stream: Some((self, watch.place)), sleep, rpc: watch.rpc })
    }
}

/// What goes on for as long as a reply does.
pub struct Watch {
    pub(crate) rpc: Rpc,
    pub(crate) place: Place,
    pub(crate) time_left: Option<Duration>,
}

/// One of a limited number of calls in work, given back when dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place, unless `max` are taken.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        // Counted up first: two that race for the last place are both refused rather than both let in.
        let place = Self(taken.clone());
        (taken.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reply's stream that holds its call's place, ends at its deadline, and lets no oversized message through.
struct Watched<T> {
    /// Given up, the place with it, when it ends, whether its receiver drops it then or not.
    stream: Option<(BoxStream<T>, Place)>,
    sleep: Option<Pin<Box<Sleep>>>,
    rpc: Rpc,
}

impl<T: Message> Stream for Watched<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((stream, _)) = &mut self.stream else { return Poll::Ready(None) };
        let item = match stream.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                Some(within_limit(self.rpc, message.encoded_len()).map(|()| message))
            }
            Poll::Ready(ended) => ended,
            Poll::Pending => match self.sleep.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => Some(Err(too_late(self.rpc))),
                Some(Poll::Pending) | None => return Poll::Pending,
            },
        };
        if !matches!(item, Some(Ok(_))) {
            self.stream = None;
        }
        Poll::Ready(item)
    }
}

/// Refuses a message beyond the limit. On the wire tonic does; direct calls have only this.
pub(crate) fn within_limit(rpc: Rpc, bytes: usize) -> Result<(), Status> {
    if bytes <= MESSAGE_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "a message of {}.{} has {bytes} bytes; at most {MESSAGE_BYTES_MAX} are allowed",
        rpc.service(),
        rpc.name()
    );
    Err(to_status(Failure::new(ErrorCode::TooLarge, text)))
}

pub(crate) fn too_late(rpc: Rpc) -> Status {
    let text =
        format!("{}.{} passed its deadline; whether it happened is not known", rpc.service(), rpc.name());
    to_status(Failure::new(ErrorCode::DeadlineExceeded, text))
}
