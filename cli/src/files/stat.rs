//! `hay stat`.

use hay_common::error::ErrorCode;

use crate::api::{EntryType, Stat};
use crate::flags::StatArgs;
use crate::output::shown;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};
use crate::units::show_bytes;

/// Shows what HEAD tells of a path.
pub async fn stat(args: StatArgs, context: Context) -> Result<Exit, Stop> {
    let path = RemotePath::parse(&args.path)?;
    let stat = stat_either(&context, &path).await.map_err(|stop| stop.about(&path.shown()))?;
    if context.out.json() {
        context.out.value(&stat)?;
        return Ok(Exit::Ok);
    }
    let kind = match stat.kind {
        EntryType::File => "file",
        EntryType::Directory => "directory",
    };
    context.out.line(format_args!("path          {}", shown(&stat.path)))?;
    context.out.line(format_args!("type          {kind}"))?;
    if let Some(size) = stat.size {
        context.out.line(format_args!("size          {size} ({})", show_bytes(size)))?;
    }
    let fields = [("etag", &stat.etag), ("modified", &stat.modified), ("content type", &stat.content_type)];
    for (name, value) in fields {
        if let Some(value) = value {
            context.out.line(format_args!("{name:<12}  {}", shown(value)))?;
        }
    }
    for (name, value) in &stat.metadata {
        context.out.line(format_args!("meta {}: {}", shown(name), shown(value)))?;
    }
    Ok(Exit::Ok)
}

/// A path may be typed without the slash that a directory's name ends in.
pub async fn stat_either(context: &Context, path: &RemotePath) -> Result<Stat, Stop> {
    match context.client.stat(path).await {
        Err(error)
            if !path.is_directory()
                && matches!(error.code(), Some(ErrorCode::IsDirectory | ErrorCode::NotFound) | None) =>
        {
            // What the first answer said is the better word where the second try finds nothing either.
            context.client.stat(&path.as_directory()).await.map_err(|_| error.into())
        }
        other => Ok(other?),
    }
}
