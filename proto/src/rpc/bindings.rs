//! The two bindings of each service, written by `build/bindings.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use prost::Message;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::gate::Gate;
use super::layer::{Both, Layer, Layered, MESSAGE_BYTES_MAX, Payload};
use super::sign::{Credentials, Sign};
use super::transport::Channels;
use super::{BoxStream, DynFiler, DynMaster, DynRaft, DynVolume, Guard, Peer};
use crate::v1;

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

fn boxed<T: Send + 'static>(response: Response<Streaming<T>>) -> Response<BoxStream<T>>
where
    Streaming<T>: Stream<Item = Result<T, Status>>,
{
    response.map(|stream| Box::pin(stream) as BoxStream<T>)
}

/// A stream of the caller's on its way to a channel, which takes messages and no errors.
struct Outbound<T> {
    messages: Streaming<T>,
    failed: Option<oneshot::Sender<Status>>,
    /// The call is being reset: nothing more comes, an end least of all.
    cut: bool,
}

fn outbound<T>(request: Request<Streaming<T>>) -> (Request<Outbound<T>>, oneshot::Receiver<Status>) {
    let (sender, receiver) = oneshot::channel();
    (request.map(|messages| Outbound { messages, failed: Some(sender), cut: false }), receiver)
}

impl<T> Stream for Outbound<T> {
    type Item = T;

    /// After an error this stays pending, so that the call is cut by [`carry`] and never looks complete.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.cut {
            return Poll::Pending;
        }
        match Pin::new(&mut self.messages).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(message)),
            Poll::Ready(Some(Err(status))) => match self.failed.take().map(|failed| failed.send(status)) {
                Some(Ok(())) => {
                    self.cut = true;
                    Poll::Pending
                }
                // The reply is there already and its stream goes on: all that is left is to end this one.
                Some(Err(_)) | None => Poll::Ready(None),
            },
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Awaits `call` unless the caller's own stream fails first: then the call is dropped, which resets it.
async fn carry<R>(
    call: impl Future<Output = Result<R, Status>>,
    failed: oneshot::Receiver<Status>,
) -> Result<R, Status> {
    tokio::pin!(call);
    tokio::select! {
        biased;
        reply = &mut call => reply,
        Ok(status) = failed => Err(status),
    }
}
