//! Around every request: admission, its id, its span, its meters, and what every answer carries.

use std::convert::Infallible;
use std::sync::Arc;

use hay_common::error::ErrorCode;
use hay_common::limits::{HTTP_HEADER_BYTES_MAX, HTTP_HEADERS_MAX};
use hay_proto::rpc::RequestContext;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Incoming;
use tracing::Instrument;

use super::request_id::{REQUEST_ID, request_id};
use super::usage::InWork;
use crate::app::App;
use crate::meters::RouteLabel;
use crate::reply::{Refusal, Reply};
use crate::routes::{self, Route};

/// Answers one request. Never fails: what goes wrong is an answer.
pub(crate) async fn serve(
    app: Arc<App>,
    in_work: InWork,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let started = app.deps.clock.monotonic();
    let id = request_id(request.headers(), app.deps.random.as_ref());
    let is_head = request.method() == Method::HEAD;
    let route = Route::of(request.uri().path());
    let label = route.map_or(RouteLabel::Refused, |r| r.label(request.method()));
    // Health is asked when there is much to do above all.
    let always = matches!(route, Some(Route::Health | Route::Ready | Route::Metrics));
    let context = RequestContext::new(id);
    let span = tracing::debug_span!("http", request_id = %id, method = %request.method(), path = request.uri().path());
    let mut reply = admitted(&app, always, request, context.clone(), span.clone()).await;
    reply.body_mut().keep_connection(in_work);
    if is_head {
        without_bytes(&mut reply);
    }
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        reply.headers_mut().insert(HeaderName::from_static(REQUEST_ID), value);
    }
    let took = app.deps.clock.monotonic().saturating_sub(started);
    app.meters.answered(label, reply.status(), took, context.calls());
    let _entered = span.enter();
    if reply.status().is_server_error() {
        tracing::warn!(status = reply.status().as_u16(), took_ms = took.as_millis() as u64, "answered");
    } else {
        tracing::debug!(
            status = reply.status().as_u16(),
            inner_calls = context.calls(),
            took_us = took.as_micros() as u64,
            "answered"
        );
    }
    Ok(reply)
}

async fn admitted(
    app: &Arc<App>,
    always: bool,
    request: Request<Incoming>,
    context: RequestContext,
    span: tracing::Span,
) -> Reply {
    if let Err(refusal) = check_headers(request.headers()).and_then(|()| check_message(&request)) {
        return refusal.into_reply();
    }
    // Uploads are in work once their bodies are here: until then it is the client who takes the time.
    let places = if request.method() == Method::PUT { &app.bodies } else { &app.requests };
    let permit = match App::enter(places) {
        Ok(permit) => Some(permit),
        Err(_) if always => None,
        Err(failure) => return Refusal::from(failure).into_reply(),
    };
    let mut reply = context.scope(routes::answer(app, request)).instrument(span).await;
    // In work until the last byte is on its way.
    reply.body_mut().keep(permit);
    reply
}

fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if headers.len() <= HTTP_HEADERS_MAX && bytes <= HTTP_HEADER_BYTES_MAX {
        return Ok(());
    }
    let hint =
        format!("a request may have {HTTP_HEADERS_MAX} headers and {HTTP_HEADER_BYTES_MAX} bytes of them");
    Err(Refusal::new(ErrorCode::TooLarge, hint)
        .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        .closing())
}

/// What hyper lets pass although HTTP/1.1 does not: a request for no host or for several (RFC 9112, section 3.2), and
/// codings that nobody here undoes.
fn check_message<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        let hint = "HTTP/1.1 wants exactly one Host header";
        return Err(Refusal::new(ErrorCode::InvalidArgument, hint).closing());
    }
    if headers.get_all(TRANSFER_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        let hint = "no transfer coding but chunked is supported";
        let refusal = Refusal::new(ErrorCode::InvalidArgument, hint);
        return Err(refusal.with_status(StatusCode::NOT_IMPLEMENTED).closing());
    }
    Ok(())
}

/// What GET would have said of its length, without the bytes.
fn without_bytes(reply: &mut Reply) {
    let body = std::mem::take(reply.body_mut()).without_bytes();
    let has_length = !matches!(reply.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    if has_length && !reply.headers().contains_key(CONTENT_LENGTH) {
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.length()));
    }
    *reply.body_mut() = body;
}
