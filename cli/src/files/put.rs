//! `hay put`.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::progress::Progress;
use super::tally::Tally;
use super::upload::{Destination, upload_file, upload_stdin};
use super::walk::{Found, walk};
use crate::api::Client;
use crate::flags::PutArgs;
use crate::output::shown;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};
use crate::units::{counted, show_bytes};

/// Files found and not yet sent: so far the walk may run ahead, and the progress bar's total with it.
const FOUND_WAITING: usize = 16_384;
/// More than this many at once only queue at the server.
pub const JOBS_MAX: usize = 256;

/// Stores a file, stdin or a folder.
pub async fn put(args: PutArgs, context: Context) -> Result<Exit, Stop> {
    let target = RemotePath::parse(&args.target)?;
    if args.recursive {
        return put_folder(&args, &target, &context).await;
    }
    let stdin = args.source == Path::new("-");
    let path = single_target(&args.source, &target, stdin)?;
    let to = Destination { path: &path, content_type: args.content_type.as_deref() };
    let progress = Progress::new("storing");
    let started = context.clock.monotonic();
    let sent = if stdin {
        upload_stdin(&context.client, &to, &progress).await
    } else {
        if let Ok(metadata) = std::fs::metadata(&args.source) {
            if metadata.is_dir() {
                return Err(Stop::usage(format!("{} is a folder: use -r", args.source.display())));
            }
            progress.expect(metadata.len());
        }
        upload_file(&context.client, &args.source, true, &to, &progress).await
    };
    progress.finish();
    let bytes = sent.map_err(|error| Stop::from(error).about(&args.source.display().to_string()))?;
    if context.out.json() {
        let seconds = (context.clock.monotonic() - started).as_secs_f64();
        context.out.value(
            &serde_json::json!({ "path": format!("/{}", path.as_str()), "bytes": bytes, "seconds": seconds }),
        )?;
    } else {
        context.out.line(format_args!("{}  {}", path.shown(), show_bytes(bytes)))?;
    }
    Ok(Exit::Ok)
}

/// The path of a single file: as named, or below a directory that was named with a slash.
fn single_target(source: &Path, target: &RemotePath, stdin: bool) -> Result<RemotePath, Stop> {
    if !target.is_directory() {
        return Ok(target.clone());
    }
    if stdin {
        return Err(Stop::usage("stdin has no name: name the whole path to store it at"));
    }
    let name = source
        .file_name()
        .ok_or_else(|| Stop::usage(format!("{} has no name: name the whole target", source.display())))?;
    let name = name
        .to_str()
        .ok_or_else(|| Stop::usage(format!("{} is not UTF-8: name the whole target", source.display())))?;
    Ok(target.join(name)?)
}

/// What a transfer left behind.
enum Done {
    File { bytes: u64 },
    Directory,
}

/// One transfer's end.
type Sent = (String, Result<Done, Stop>);

struct FolderPut<'a> {
    context: &'a Context,
    target: &'a RemotePath,
    follow: bool,
    jobs: usize,
    progress: Progress,
    tally: Tally,
    running: JoinSet<Sent>,
    // The server is gone: the rest of the folder would only wait for its turn to fail.
    gone: Option<Stop>,
}

async fn put_folder(args: &PutArgs, target: &RemotePath, context: &Context) -> Result<Exit, Stop> {
    let started = context.clock.monotonic();
    check_folder(&args.source)?;
    let mut put = FolderPut {
        context,
        target,
        follow: args.follow,
        jobs: args.jobs.get().min(JOBS_MAX),
        progress: Progress::new("storing"),
        tally: Tally::default(),
        running: JoinSet::new(),
        gone: None,
    };
    put.run(args.source.clone()).await;
    put.progress.finish();
    let seconds = (context.clock.monotonic() - started).as_secs_f64();
    let FolderPut { tally, gone, .. } = put;
    if context.out.json() {
        let mut value = serde_json::to_value(&tally).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("target".into(), format!("/{}", target.as_str()).into());
            map.insert("seconds".into(), seconds.into());
            map.insert("complete".into(), gone.is_none().into());
        }
        context.out.value(&value)?;
    } else {
        context.out.line(format_args!(
            "{}, {} in {seconds:.1} s to {}{}",
            counted(tally.files, "file", "files"),
            show_bytes(tally.bytes),
            target.shown(),
            tally.remarks()
        ))?;
    }
    match gone {
        None => Ok(tally.exit()),
        Some(stop) => {
            context.out.note(format_args!("hay: stopped, not all was stored: {}", stop.message));
            Ok(stop.exit)
        }
    }
}

pub fn check_folder(source: &Path) -> Result<(), Stop> {
    match std::fs::metadata(source) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Stop::usage(format!("{} is not a folder: leave -r out", source.display()))),
        Err(error) => Err(Stop::local(format!("{}: {error}", source.display()))),
    }
}

/// Walks a folder on a thread of its own.
pub fn walk_in_background(source: PathBuf, follow: bool, progress: Progress) -> mpsc::Receiver<Found> {
    let (tx, rx) = mpsc::channel(FOUND_WAITING);
    tokio::task::spawn_blocking(move || {
        walk(&source, follow, &mut |found| {
            if let Found::File { size, .. } = &found {
                progress.expect(*size);
            }
            tx.blocking_send(found).is_ok()
        });
    });
    rx
}

impl FolderPut<'_> {
    async fn run(&mut self, source: PathBuf) {
        let mut found = walk_in_background(source, self.follow, self.progress.clone());
        while self.gone.is_none() {
            let Some(next) = found.recv().await else { break };
            self.found(next);
            while self.running.len() >= self.jobs {
                self.settle_one().await;
            }
        }
        drop(found);
        while !self.running.is_empty() {
            self.settle_one().await;
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::File { local, relative, .. } => match self.target.join(&relative) {
                Ok(path) => self.send(local, path),
                Err(error) => self.fail(&local.display().to_string(), &error.into()),
            },
            Found::EmptyDirectory { relative } => match self.target.join(&relative) {
                Ok(path) if path.is_root() => {}
                Ok(path) => self.make_directory(path),
                Err(error) => self.fail(&relative, &error.into()),
            },
            Found::Symlink => self.tally.skipped.symlinks += 1,
            Found::Special => self.tally.skipped.special += 1,
            Found::Problem { local, cause } => {
                self.fail(&local.display().to_string(), &Stop::local(cause.to_string()));
            }
        }
    }

    fn send(&mut self, local: PathBuf, path: RemotePath) {
        let (client, progress, follow) = (self.context.client.clone(), self.progress.clone(), self.follow);
        self.running.spawn(async move {
            let to = Destination { path: &path, content_type: None };
            let sent = upload_file(&client, &local, follow, &to, &progress).await;
            (local.display().to_string(), sent.map(|bytes| Done::File { bytes }).map_err(Stop::from))
        });
    }

    fn make_directory(&mut self, path: RemotePath) {
        let client: Client = self.context.client.clone();
        self.running.spawn(async move {
            let made = client.make_directory(&path).await;
            (path.shown(), made.map(|()| Done::Directory).map_err(Stop::from))
        });
    }

    async fn settle_one(&mut self) {
        match self.running.join_next().await {
            Some(Ok((_, Ok(Done::Directory)))) => self.tally.directories += 1,
            Some(Ok((_, Ok(Done::File { bytes })))) => self.tally.file(bytes),
            Some(Ok((path, Err(stop)))) => {
                self.fail(&path, &stop);
                if stop.ends_everything() {
                    self.gone.get_or_insert(stop);
                }
            }
            Some(Err(panicked)) => self.fail("a transfer", &Stop::local(panicked.to_string())),
            None => {}
        }
    }

    fn fail(&mut self, path: &str, stop: &Stop) {
        self.tally.fail(&shown(path), stop, self.context.out, &self.progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_file_takes_its_name_along_only_into_a_directory() {
        let target = |source: &str, target: &str| {
            single_target(Path::new(source), &RemotePath::parse(target).unwrap(), false).map(|p| p.shown())
        };
        assert_eq!(target("dir/a.txt", "/x/b.txt").unwrap(), "/x/b.txt");
        assert_eq!(target("dir/a.txt", "/x/").unwrap(), "/x/a.txt");
        assert_eq!(target("dir/a.txt", "/").unwrap(), "/a.txt");
        assert_eq!(target("..", "/x/").unwrap_err().exit, Exit::Usage);
        let stdin = single_target(Path::new("-"), &RemotePath::parse("/x/").unwrap(), true);
        assert_eq!(stdin.unwrap_err().exit, Exit::Usage);
    }
}
