//! DELETE.

use std::sync::Arc;

use hay_client::filer::{Delete, Deleted, Idempotency};
use hay_common::error::{ErrorCode, Failure};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::tree::own_path;
use crate::app::{App, token};
use crate::auth::Authenticated;
use crate::ingest::{condition_print, write_condition};
use crate::reply::{self, Refusal, Reply};
use crate::request::conditions::Conditions;
use crate::request::idempotency::{self, Fingerprint};
use crate::request::query::Query;

#[derive(Serialize)]
struct RemovedJson {
    removed: u64,
}

pub(super) async fn remove(
    app: &Arc<App>,
    caller: Authenticated,
    raw_path: &str,
    head: &Parts,
) -> Result<Reply, Refusal> {
    let path = own_path(app, &caller, raw_path).await?;
    let conditions = Conditions::parse_for_write(&head.headers)?;
    let recursive = Query::parse(head.uri.query())?.flag("recursive")?;
    let key = idempotency::key(&head.headers)?;
    if path.is_root() {
        app.whoami(&caller).await?;
        return Err(Failure::new(ErrorCode::InvalidPath, "the root of a tree can't be removed").into());
    }
    if conditions.can_never_hold() {
        app.whoami(&caller).await?;
        return Err(Failure::new(
            ErrorCode::PreconditionFailed,
            "If-Match names no ETag that a file can have",
        )
        .into());
    }
    let condition = write_condition(&conditions);
    let print = Fingerprint::of("DELETE").with(path.as_str().as_bytes()).with(&[u8::from(recursive)]);
    let fingerprint = condition_print(print, &condition).finish();
    let idempotency = key.map(|key| Idempotency { key, fingerprint });
    let delete = Delete { path: path.as_str().to_owned(), condition, recursive, idempotency };
    let removed = all(app, &caller, delete).await?;
    Ok(match recursive {
        true => reply::json(StatusCode::OK, &RemovedJson { removed }),
        false => reply::empty(StatusCode::NO_CONTENT),
    })
}

/// One command removes a bounded number of entries, so a large tree takes several. Each goes under a key of its own,
/// made of the client's: a retry hears the answers of those that were done and goes on with the first that was not.
async fn all(app: &App, caller: &Authenticated, delete: Delete) -> Result<u64, Failure> {
    let (mut removed, mut step) = (0, 0u64);
    loop {
        let mut command = delete.clone();
        if let Some(idempotency) = &mut command.idempotency {
            idempotency.key = step_key(&idempotency.key, step);
        }
        let Deleted { removed: now, more } = app.deps.filer.delete(token(caller), command).await?;
        removed += u64::from(now);
        if !more {
            return Ok(removed);
        }
        if now == 0 {
            return Err(Failure::new(
                ErrorCode::Unavailable,
                "the directory could not be emptied: try again",
            ));
        }
        step += 1;
    }
}

fn step_key(key: &str, step: u64) -> String {
    match step {
        0 => key.to_owned(),
        _ => hex::encode(Fingerprint::of("step").with(key.as_bytes()).with(&step.to_le_bytes()).finish()),
    }
}
