//! GET and HEAD of files.

use std::sync::Arc;

use bytes::Bytes;
use hay_client::filer::{Resolve, Resolved};
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{DOWNLOAD_PIECE_BYTES, KIB, REFS_PER_ROW_MAX};
use hay_common::model::{EntryInfo, EntryKind};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};

use super::Ask;
use super::tree::own_path;
use crate::app::{App, token};
use crate::auth::Authenticated;
use crate::download::needle::{Source, read_whole};
use crate::download::plan::Plan;
use crate::download::pump::Download;
use crate::memory::downloads::tied;
use crate::reply::entry::{TYPE_HEADER, content_headers, file_headers};
use crate::reply::{self, Refusal, Reply, ReplyBody};
use crate::request::conditions::{Conditions, Verdict, if_range_holds};
use crate::request::range::{RangeAsk, Selection};

/// Answers of up to this size are too short to be worth counting.
const UNCOUNTED_BYTES_MAX: usize = 16 * KIB;

pub(super) async fn read(
    app: &Arc<App>,
    caller: Authenticated,
    raw_path: &str,
    ask: &Ask,
) -> Result<Reply, Refusal> {
    let path = own_path(app, &caller, raw_path).await?;
    let headers = &ask.head.headers;
    let conditions = Conditions::parse(headers)?;
    // Range has a meaning for GET alone (RFC 9110, section 14.2).
    let range = if ask.is_head() { RangeAsk::Whole } else { RangeAsk::of(headers) };
    if path.is_root() {
        app.whoami(&caller).await?;
        return directory(ask.is_head(), &conditions);
    }
    let path_text = path.as_str().to_owned();
    let resolved = match resolve(app, &caller, &path_text, range, ask.is_head()).await {
        // Named without its slash.
        Err(failure) if failure.code == ErrorCode::IsDirectory => {
            return directory(ask.is_head(), &conditions);
        }
        resolved => resolved?,
    };
    if resolved.entry.kind == EntryKind::Directory {
        return directory(ask.is_head(), &conditions);
    }
    if path.is_directory() {
        return Err(
            Failure::new(ErrorCode::NotDirectory, "the path ends in a slash, but a file is there").into()
        );
    }
    let entry = &resolved.entry;
    match conditions.judge_read(entry.content_hash, entry.modified_ms) {
        Verdict::Failed => {
            return Err(Failure::new(
                ErrorCode::PreconditionFailed,
                "the condition on the file does not hold",
            )
            .into());
        }
        Verdict::NotModified => {
            let mut reply = reply::empty(StatusCode::NOT_MODIFIED);
            file_headers(entry, reply.headers_mut());
            return Ok(reply);
        }
        Verdict::Proceed => {}
    }
    let range_counts =
        range != RangeAsk::Whole && if_range_holds(headers, entry.content_hash, entry.modified_ms);
    let selection = if range_counts { range.select(entry.size) } else { Selection::Whole };
    let (status, start, end) = match selection {
        Selection::Whole => (StatusCode::OK, 0, entry.size),
        Selection::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Selection::Unsatisfiable => return Err(Refusal::range(entry.size)),
    };
    let mut reply = Response::new(ReplyBody::empty());
    *reply.status_mut() = status;
    describe(entry, start, end, &mut reply);
    *reply.body_mut() = match ask.is_head() || start == end {
        true => ReplyBody::announced(end - start),
        false => {
            // The chunks that were resolved are those of the range that was asked for, not of the whole.
            let known = if range_counts || range == RangeAsk::Whole { resolved.chunks } else { Vec::new() };
            let entry = resolved.entry;
            content(app, &caller, path_text, entry, known, (start, end)).await?
        }
    };
    Ok(reply)
}

/// The entry and the chunks at the start of the range, in one snapshot.
async fn resolve(
    app: &App,
    caller: &Authenticated,
    path: &str,
    range: RangeAsk,
    is_head: bool,
) -> Result<Resolved, Failure> {
    let (offset, suffix) = match range {
        RangeAsk::Whole => (0, None),
        RangeAsk::From(first, _) => (first, None),
        RangeAsk::Suffix(count) => (0, Some(count)),
    };
    let chunks = if is_head { 0 } else { u32::try_from(REFS_PER_ROW_MAX).unwrap_or(u32::MAX) };
    let ask = Resolve { path: path.to_owned(), offset, chunks, suffix };
    app.deps.filer.resolve(token(caller), ask).await
}

/// A GET is refused whatever its conditions: they count only where the answer would be a good one (RFC 9110, 13.2.1).
fn directory(is_head: bool, conditions: &Conditions) -> Result<Reply, Refusal> {
    if !is_head {
        let hint = "a directory is there: GET /api/nfs/list/{path} lists it";
        return Err(Refusal::new(ErrorCode::IsDirectory, hint));
    }
    let status = match conditions.judge_bare() {
        Verdict::Proceed => StatusCode::OK,
        Verdict::NotModified => StatusCode::NOT_MODIFIED,
        Verdict::Failed => {
            let hint = "a directory has no ETag: If-Match can't hold";
            return Err(Refusal::new(ErrorCode::PreconditionFailed, hint));
        }
    };
    let mut reply = reply::empty(status);
    reply.headers_mut().insert(TYPE_HEADER, HeaderValue::from_static("directory"));
    Ok(reply)
}

fn describe(entry: &EntryInfo, start: u64, end: u64, reply: &mut Reply) {
    let partial = reply.status() == StatusCode::PARTIAL_CONTENT;
    let headers = reply.headers_mut();
    file_headers(entry, headers);
    content_headers(entry, headers);
    // A stored page must not run as one of ours.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if partial && let Ok(value) = HeaderValue::try_from(format!("bytes {start}-{}/{}", end - 1, entry.size)) {
        headers.insert(CONTENT_RANGE, value);
    }
}

async fn content(
    app: &Arc<App>,
    caller: &Authenticated,
    path: String,
    entry: EntryInfo,
    known: Vec<hay_common::model::LocatedChunk>,
    (start, end): (u64, u64),
) -> Result<ReplyBody, Failure> {
    let length = end - start;
    let source = Source { path, content_hash: entry.content_hash, manifest: entry.manifest };
    let known = match known.is_empty() {
        false => known,
        true => first_chunks(app, caller, &source, start).await?,
    };
    app.meters.sent_bytes.increment(length);
    let mut plan = Plan::new(start, end, known);
    if length <= DOWNLOAD_PIECE_BYTES as u64 {
        return short(app, caller, &source, &mut plan, length).await.map(ReplyBody::whole);
    }
    let download = Download { app: Arc::clone(app), caller: *caller, source, plan };
    Ok(ReplyBody::parts(length, download.start().await?))
}

/// Chunks from `start` on of the file as it was resolved before.
async fn first_chunks(
    app: &App,
    caller: &Authenticated,
    source: &Source,
    start: u64,
) -> Result<Vec<hay_common::model::LocatedChunk>, Failure> {
    let range = RangeAsk::From(start, None);
    let resolved = resolve(app, caller, &source.path, range, false).await?;
    if resolved.entry.content_hash != source.content_hash {
        return Err(Failure::new(
            ErrorCode::Unavailable,
            "the file was replaced while it was read: read it again",
        ));
    }
    Ok(resolved.chunks)
}

/// A short answer as a whole: one read, or two where it lies across two chunks.
async fn short(
    app: &App,
    caller: &Authenticated,
    source: &Source,
    plan: &mut Plan,
    length: u64,
) -> Result<Bytes, Failure> {
    let corrupt = || Failure::new(ErrorCode::Corrupt, "the file has fewer chunks than bytes");
    let mut all = Vec::new();
    let bytes = loop {
        let wanted = plan.next().map_err(|hole| Failure::new(ErrorCode::Corrupt, hole.to_string()))?;
        let bytes = read_whole(app, caller, source, wanted.ok_or_else(corrupt)?).await?;
        match (plan.is_done(), all.is_empty()) {
            (true, true) => break bytes,
            (true, false) => {
                all.extend_from_slice(&bytes);
                break Bytes::from(all);
            }
            (false, _) => all.extend_from_slice(&bytes),
        }
    };
    if bytes.len() as u64 != length {
        return Err(corrupt());
    }
    if bytes.len() <= UNCOUNTED_BYTES_MAX {
        return Ok(bytes);
    }
    let room = app.downloads.minimum(bytes.len());
    Ok(tied(bytes, room))
}
