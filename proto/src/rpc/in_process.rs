//! A `tonic::Streaming` over a stream of this process.
//!
//! tonic's type can only be made from bytes and a decoder. So the item waits in a slot, the "bytes" are an empty gRPC
//! frame that says that one is there, and the decoder takes it out of the slot: nothing is encoded or copied.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use hay_common::error::{ErrorCode, Failure};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use prost::Message;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::{Code, Status, Streaming};

use super::layer::MESSAGE_BYTES_MAX;
use super::to_status;

/// An uncompressed message of length 0.
const EMPTY_FRAME: &[u8] = &[0; 5];
/// What the buffer for frames needs; tonic's default would take 8 KiB for each stream.
const BUFFER_BYTES: usize = 16;

type Slot<T> = Arc<Mutex<Option<T>>>;

/// The stream as handlers take it. A message beyond the limit ends it with `too_large`, as on the wire.
pub fn in_process<T, S>(stream: S) -> Streaming<T>
where
    T: Message + 'static,
    S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
{
    let slot: Slot<T> = Arc::new(Mutex::new(None));
    let body = SlotBody { stream, slot: slot.clone() };
    Streaming::new_request(SlotDecoder { slot }, body, None, None)
}

struct SlotBody<T, S> {
    stream: S,
    slot: Slot<T>,
}

impl<T, S> Body for SlotBody<T, S>
where
    T: Message,
    S: Stream<Item = Result<T, Status>> + Send + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(self.place(message))),
            // tonic takes a request that ends in Cancelled for one that ends well.
            Poll::Ready(Some(Err(status))) if status.code() == Code::Cancelled => {
                Poll::Ready(Some(Err(Status::aborted(status.message()))))
            }
            Poll::Ready(Some(Err(status))) => Poll::Ready(Some(Err(status))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Message, S> SlotBody<T, S> {
    fn place(&self, message: T) -> Result<Frame<Bytes>, Status> {
        let bytes = message.encoded_len();
        if bytes > MESSAGE_BYTES_MAX {
            let text =
                format!("a message of a stream has {bytes} bytes; at most {MESSAGE_BYTES_MAX} are allowed");
            return Err(to_status(Failure::new(ErrorCode::TooLarge, text)));
        }
        *self.slot.lock() = Some(message);
        Ok(Frame::data(Bytes::from_static(EMPTY_FRAME)))
    }
}

struct SlotDecoder<T> {
    slot: Slot<T>,
}

impl<T: Send + 'static> Decoder for SlotDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        Ok(self.slot.lock().take())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::stream;

    use super::*;
    use crate::rpc::to_failure;
    use crate::v1::ReadPart;

    fn part(data: Bytes) -> Result<ReadPart, Status> {
        Ok(ReadPart { data, ..ReadPart::default() })
    }

    #[tokio::test]
    async fn items_come_out_in_order_and_uncopied() {
        let data: Vec<Bytes> = (0..100u8).map(|n| Bytes::from(vec![n; 1000])).collect();
        let mut streaming = in_process(stream::iter(data.clone()).map(part));
        for sent in &data {
            let got = streaming.message().await.unwrap().unwrap();
            assert_eq!(got.data.as_ptr(), sent.as_ptr());
        }
        assert_eq!(streaming.message().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_error_is_an_error_whatever_its_code() {
        for code in [Code::Cancelled, Code::Internal, Code::Unavailable] {
            let items = vec![part(Bytes::from_static(b"x")), Err(Status::new(code, "broken"))];
            let mut streaming = in_process(stream::iter(items));
            assert!(streaming.message().await.unwrap().is_some());
            assert_eq!(streaming.message().await.unwrap_err().message(), "broken", "{code:?}");
        }
    }

    #[tokio::test]
    async fn an_oversized_message_is_refused() {
        let items = vec![part(Bytes::from(vec![0; MESSAGE_BYTES_MAX]))];
        let mut streaming = in_process(stream::iter(items));
        let failure = to_failure(&streaming.message().await.unwrap_err());
        assert_eq!(failure.code, ErrorCode::TooLarge);
    }
}
