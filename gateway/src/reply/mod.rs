//! Answers: bodies that are sent, JSON, and refusals.

pub(crate) mod body;
pub(crate) mod entry;
pub(crate) mod refusal;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

pub(crate) use body::ReplyBody;
pub(crate) use refusal::Refusal;

/// Most answers that are no lists take less.
const JSON_BYTES_USUAL: usize = 512;

/// What a handler answers with.
pub(crate) type Reply = Response<ReplyBody>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ReplyBody::empty());
    *reply.status_mut() = status;
    reply
}

/// An answer in JSON, never kept by caches on the way.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut bytes = Vec::with_capacity(JSON_BYTES_USUAL);
    if serde_json::to_writer(&mut bytes, value).is_err() {
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut reply = Response::new(ReplyBody::whole(Bytes::from(bytes)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, content_type: &'static str, text: String) -> Reply {
    let mut reply = Response::new(ReplyBody::whole(Bytes::from(text)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
