//! PUT of files and directories.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hay_client::filer::{Begun, Idempotency, MakeDirectory, NewIds, Put};
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{
    CHUNK_BYTES_MAX, DRAINED_BODY_BYTES_MAX, DRAINED_BODY_TIME, FILE_BYTES_MAX, SMALL_BODY_BYTES_MAX,
};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tracing::Instrument;

use super::Ask;
use super::tree::own_path;
use crate::app::{App, token};
use crate::auth::Authenticated;
use crate::ingest::body::BodyReader;
use crate::ingest::chunk::{Chunker, Start};
use crate::ingest::finish::put_known;
use crate::ingest::large::LargeUpload;
use crate::ingest::{PutAsk, write_condition};
use crate::reply::entry::{EntryJson, validators};
use crate::reply::{self, Refusal, Reply};
use crate::request::attributes::WrittenAttributes;
use crate::request::conditions::Conditions;
use crate::request::idempotency::Fingerprint;
use crate::request::path::TreePath;
use crate::request::{digest, idempotency};

/// How long a client may take over a small body before its token is looked at.
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(100);

pub(super) async fn put(
    app: &Arc<App>,
    caller: Authenticated,
    raw_path: &str,
    ask: Ask,
) -> Result<Reply, Refusal> {
    let Ask { head, body } = ask;
    let length = body.size_hint().exact();
    let checked = check(app, &caller, raw_path, &head, length).await;
    let (path, conditions) = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            drain(app, &head.headers, body);
            return Err(refusal);
        }
    };
    if path.is_directory() {
        return make_directory(app, &caller, path, &conditions, &head.headers, length).await;
    }
    let ask = match put_ask(app, &path, &conditions, &head.headers) {
        Ok(ask) => ask,
        Err(failure) => {
            drain(app, &head.headers, body);
            return Err(failure.into());
        }
    };
    let rules = app.body_rules(head.version);
    let reader = BodyReader::new(body, length, rules, app.deps.clock.clone());
    let mut chunker = Chunker::new(reader, app.uploads.clone(), CHUNK_BYTES_MAX);
    let maybe_small = length.is_none_or(|l| l <= SMALL_BODY_BYTES_MAX as u64);
    let start = match maybe_small {
        true => first_bytes(app, &caller, &mut chunker, head.headers.contains_key(EXPECT)).await,
        false => Ok(Start::Large),
    };
    let start = match start {
        Ok(start) => start,
        Err(refused) if matches!(refused.code, ErrorCode::Unauthenticated | ErrorCode::Forbidden) => {
            drain(app, &head.headers, chunker.into_body());
            return Err(refused.into());
        }
        Err(failure) => return Err(Refusal::from(failure).closing()),
    };
    if let Start::Small(chunk) = start {
        let _place = App::enter(&app.requests)?;
        app.meters.received_bytes.increment(chunk.data.len() as u64);
        let put = put_known(app, &caller, &ask, &chunk.data).await?;
        return Ok(done(put));
    }
    put_large(app, caller, ask, chunker, length, &head.headers).await
}

/// Reads a body that may be small. What is here already, as it usually is, costs no question; before the client is
/// waited for, or told to go on, its token must be a good one.
async fn first_bytes(
    app: &App,
    caller: &Authenticated,
    chunker: &mut Chunker<Incoming>,
    waits_for_us: bool,
) -> Result<Start, Failure> {
    let mut start = pin!(chunker.start());
    if waits_for_us {
        app.whoami(caller).await?;
        return Ok(start.await?);
    }
    if let Ok(start) = tokio::time::timeout(UNKNOWN_PATIENCE, &mut start).await {
        return Ok(start?);
    }
    // Both at once: a buffer that nobody listens for could not be set aside while others need its memory.
    let mut known = pin!(app.whoami(caller));
    tokio::select! {
        biased;
        known = &mut known => {
            known?;
            Ok(start.await?)
        }
        start = &mut start => {
            known.await?;
            Ok(start?)
        }
    }
}

/// What can be said before anything else is looked at.
async fn check(
    app: &App,
    caller: &Authenticated,
    raw_path: &str,
    head: &Parts,
    length: Option<u64>,
) -> Result<(TreePath, Conditions), Refusal> {
    let path = own_path(app, caller, raw_path).await?;
    let conditions = Conditions::parse_for_write(&head.headers)?;
    if head.headers.contains_key(CONTENT_RANGE) {
        // RFC 9110, section 14.4: a part must never be taken for the whole.
        return Err(Refusal::new(
            ErrorCode::InvalidArgument,
            "Content-Range is not supported: send the whole file",
        ));
    }
    let is_framed = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|h| head.headers.contains_key(h));
    if head.version < Version::HTTP_2 && !is_framed && !path.is_directory() {
        app.whoami(caller).await?;
        // The rest of the connection may be meant as the body: an empty file must not take its place.
        let hint = "say how long the body is: Content-Length, 0 too, or Transfer-Encoding: chunked";
        let refusal = Refusal::new(ErrorCode::InvalidArgument, hint);
        return Err(refusal.with_status(StatusCode::LENGTH_REQUIRED).closing());
    }
    if head.headers.get_all(CONTENT_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        app.whoami(caller).await?;
        let hint = "Content-Encoding is not kept: send the file as it is to be read";
        let refusal = Refusal::new(ErrorCode::InvalidArgument, hint);
        return Err(refusal.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if length.is_some_and(|l| l > FILE_BYTES_MAX) {
        app.whoami(caller).await?;
        return Err(Refusal::new(ErrorCode::TooLarge, format!("a file may have {FILE_BYTES_MAX} bytes")));
    }
    if conditions.can_never_hold() {
        app.whoami(caller).await?;
        return Err(Refusal::new(
            ErrorCode::PreconditionFailed,
            "If-Match names no ETag that a file can have",
        ));
    }
    Ok((path, conditions))
}

fn put_ask(
    app: &App,
    path: &TreePath,
    conditions: &Conditions,
    headers: &HeaderMap,
) -> Result<PutAsk, Failure> {
    Ok(PutAsk {
        path: path.as_str().to_owned(),
        condition: write_condition(conditions),
        attributes: WrittenAttributes::parse(headers)?,
        idempotency_key: idempotency::key(headers)?,
        digest: digest::announced(headers)?,
        ids: NewIds::draw(app.deps.random.as_ref()),
    })
}

async fn put_large(
    app: &Arc<App>,
    caller: Authenticated,
    ask: PutAsk,
    mut chunker: Chunker<Incoming>,
    length: Option<u64>,
    headers: &HeaderMap,
) -> Result<Reply, Refusal> {
    let opened = async {
        let session = app.deps.filer.session().await?;
        let begun = app.deps.filer.begin(token(&caller), &session, &ask.opening(), None, length).await?;
        Ok::<_, Failure>((session, begun))
    };
    let session = match opened.await {
        Ok((session, Begun::Proceed { .. })) => session,
        Ok((_, Begun::Finished(_))) => {
            return Err(Refusal::new(ErrorCode::Internal, "a put was finished before its content was known"));
        }
        Err(failure) => {
            drain(app, headers, chunker.into_body());
            return Err(failure.into());
        }
    };
    let upload = LargeUpload { app: Arc::clone(app), caller, ask, session, announced: length };
    // A task of its own: when the client goes away, hyper drops this future, and what was referenced so far must
    // still be given up.
    let work = async move {
        let put = upload.run(&mut chunker).await;
        (put, chunker)
    }
    .instrument(tracing::Span::current());
    let task = match hay_proto::rpc::RequestContext::current() {
        Some(context) => app.tasks.spawn(context.scope(work)),
        None => app.tasks.spawn(work),
    };
    let (put, chunker) = task
        .await
        .map_err(|_| Refusal::new(ErrorCode::Internal, "the upload broke off inside the gateway"))?;
    match put {
        Ok(put) => Ok(done(put)),
        Err(failure)
            if matches!(failure.code, ErrorCode::TooSlow | ErrorCode::IncompleteBody)
                || app.is_stopping() =>
        {
            Err(Refusal::from(failure).closing())
        }
        Err(failure) => {
            drain(app, headers, chunker.into_body());
            Err(failure.into())
        }
    }
}

async fn make_directory(
    app: &Arc<App>,
    caller: &Authenticated,
    path: TreePath,
    conditions: &Conditions,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<Reply, Refusal> {
    let has_body = length.is_none_or(|l| l > 0);
    if has_body && (headers.contains_key(CONTENT_LENGTH) || length.is_none()) {
        app.whoami(caller).await?;
        let hint = "a path that ends in a slash names a directory, which has no bytes";
        return Err(Refusal::new(ErrorCode::InvalidArgument, hint).closing());
    }
    let condition = write_condition(conditions);
    if !conditions.is_empty() && !condition.if_none_match_any {
        app.whoami(caller).await?;
        let hint = "a directory has no ETag: only If-None-Match: * can be asked of it";
        return Err(Refusal::new(ErrorCode::InvalidArgument, hint));
    }
    if path.is_root() {
        app.whoami(caller).await?;
        return Ok(reply::empty(StatusCode::OK));
    }
    let print = Fingerprint::of("MKDIR")
        .with(path.as_str().as_bytes())
        .with(&[u8::from(condition.if_none_match_any)])
        .finish();
    let make = MakeDirectory {
        path: path.as_str().to_owned(),
        ids: NewIds::draw(app.deps.random.as_ref()),
        exist_ok: !condition.if_none_match_any,
        idempotency: idempotency::key(headers)?.map(|key| Idempotency { key, fingerprint: print }),
    };
    Ok(done(app.deps.filer.make_directory(token(caller), make).await?))
}

fn done(put: Put) -> Reply {
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    let (hash, modified_ms) = (put.entry.content_hash, put.entry.modified_ms);
    let mut reply = reply::json(status, &EntryJson::from(put.entry));
    validators(hash, modified_ms, reply.headers_mut());
    reply
}

/// Reads some of a body that nobody wants, so that a client that is still sending sees the answer instead of a
/// reset. Bounded in bytes and time; a client that waits for a 100 has sent nothing and gets none.
fn drain(app: &App, headers: &HeaderMap, mut body: Incoming) {
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let reading = async move {
        let mut left = DRAINED_BODY_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else { return };
            left = rest;
        }
    };
    let patience: Duration = DRAINED_BODY_TIME;
    app.tasks.spawn(async move {
        // Either way the body is dropped, and with it the connection unless it was read to its end.
        let _ = tokio::time::timeout(patience, reading).await;
    });
}
