//! Listings of directories, paged.

use std::sync::Arc;

use hay_client::filer::List;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX, PATH_BYTES_MAX};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::tree::own_path;
use crate::app::{App, token};
use crate::auth::Authenticated;
use crate::reply::entry::EntryJson;
use crate::reply::{self, Refusal, Reply};
use crate::request::query::Query;

#[derive(Serialize)]
struct PageJson {
    entries: Vec<EntryJson>,
    /// To be given as `after`: the path of the last entry, relative to the directory.
    next: Option<String>,
}

pub(super) async fn list(
    app: &Arc<App>,
    caller: Authenticated,
    raw_path: &str,
    head: &Parts,
) -> Result<Reply, Refusal> {
    let directory = own_path(app, &caller, raw_path).await?.into_directory();
    let query = Query::parse(head.uri.query())?;
    let recursive = query.flag("recursive")?;
    let limit = query.count("limit", LIST_PAGE_DEFAULT, LIST_PAGE_MAX)?;
    let after = query.text("after").filter(|a| !a.is_empty()).map(str::to_owned);
    if after.as_ref().is_some_and(|a| a.len() > PATH_BYTES_MAX || a.contains('\0')) {
        return Err(Failure::new(ErrorCode::InvalidArgument, "the parameter \"after\" is no path").into());
    }
    let ask = List {
        directory: directory.as_str().to_owned(),
        recursive,
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        after,
    };
    let page = app.deps.filer.list(token(&caller), ask).await?;
    let next = match page.more {
        true => page.entries.last().map(|last| relative(&last.path, directory.as_str())),
        false => None,
    };
    let entries = page.entries.into_iter().map(EntryJson::from).collect();
    Ok(reply::json(StatusCode::OK, &PageJson { entries, next }))
}

fn relative(path: &str, directory: &str) -> String {
    path.strip_prefix(directory).unwrap_or(path).to_owned()
}
