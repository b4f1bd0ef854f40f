//! `hay cat`.

use std::io::{self, Write};

use super::download::{DownloadError, download};
use super::progress::Progress;
use crate::api::Fetched;
use crate::flags::CatArgs;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// Prints files on stdout. With `--json` stdout still holds their bytes: they are what was asked for.
pub async fn cat(args: CatArgs, context: Context) -> Result<Exit, Stop> {
    if context.out.json() {
        return Err(Stop::usage("cat prints bytes, not JSON: use `hay get --json` to fetch into a file"));
    }
    for path in &args.paths {
        let path = RemotePath::parse(path)?;
        // No bar: it would share the terminal with the bytes.
        copy_to_stdout(&context, &path, &Progress::hidden())
            .await
            .map_err(|error| Stop::from(error).about(&path.shown()))?;
    }
    Ok(Exit::Ok)
}

/// Copies one file to stdout, and verifies it on the way: what was wrong is known only at the end.
pub async fn copy_to_stdout(
    context: &Context,
    path: &RemotePath,
    progress: &Progress,
) -> Result<Fetched, DownloadError> {
    let fetched = download(&context.client, path, progress, |mut incoming| {
        let mut stdout = io::stdout().lock();
        while let Some(piece) = incoming.next() {
            stdout.write_all(&piece)?;
        }
        stdout.flush()?;
        incoming.verify()
    })
    .await;
    progress.finish();
    fetched
}
