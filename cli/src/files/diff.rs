//! `hay diff`: whether a local folder and a stored one are the same, byte for byte.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::task::JoinSet;

use super::download::{DownloadError, Incoming, download};
use super::get::relative_to;
use super::local::{LocalError, LocalRoot};
use super::progress::Progress;
use super::put::{JOBS_MAX, check_folder, walk_in_background};
use super::source::read_piece;
use super::tally::Tally;
use super::walk::Found;
use crate::api::EntryType;
use crate::flags::DiffArgs;
use crate::output::shown;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};
use crate::units::{counted, show_bytes};

/// Differences that are listed in JSON; all are counted and printed.
const DIFFERENCES_KEPT: usize = 10_000;

/// How two sides differ at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Difference {
    /// Not stored.
    OnlyLocal,
    /// Not here.
    OnlyRemote,
    /// The bytes are not the same.
    Bytes,
    /// A file on one side, a directory on the other.
    Kind,
}

#[derive(Debug, Serialize)]
struct Line {
    path: String,
    difference: Difference,
}

/// Compares a file or a folder.
pub async fn diff(args: DiffArgs, context: Context) -> Result<Exit, Stop> {
    let remote = RemotePath::parse(&args.remote)?;
    let mut diff = Diff {
        context: &context,
        remote: if args.recursive { remote.as_directory() } else { remote },
        progress: Progress::new("comparing"),
        tally: Tally::default(),
        differences: Vec::new(),
        different: 0,
        running: JoinSet::new(),
        jobs: args.jobs.get().min(JOBS_MAX),
        gone: None,
    };
    if args.recursive {
        check_folder(&args.local)?;
        diff.folders(&args).await?;
    } else {
        let path = diff.remote.clone();
        diff.compare(args.local.clone(), path);
        diff.settle_one().await;
    }
    diff.finish()
}

struct Diff<'a> {
    context: &'a Context,
    remote: RemotePath,
    progress: Progress,
    tally: Tally,
    differences: Vec<Line>,
    different: u64,
    running: JoinSet<(String, Result<Option<u64>, Stop>)>,
    jobs: usize,
    gone: Option<Stop>,
}

impl Diff<'_> {
    async fn folders(&mut self, args: &DiffArgs) -> Result<(), Stop> {
        let mut found = walk_in_background(args.local.clone(), args.follow, self.progress.clone());
        while self.gone.is_none() {
            let Some(next) = found.recv().await else { break };
            match next {
                Found::File { local, relative, .. } => match self.remote.join(&relative) {
                    Ok(path) => self.compare(local, path),
                    Err(error) => self.fail(&relative, &error.into()),
                },
                Found::EmptyDirectory { relative } => self.directory(&relative).await?,
                Found::Symlink => self.tally.skipped.symlinks += 1,
                Found::Special => self.tally.skipped.special += 1,
                Found::Problem { local, cause } => {
                    self.fail(&local.display().to_string(), &Stop::local(cause.to_string()));
                }
            }
            while self.running.len() >= self.jobs {
                self.settle_one().await;
            }
        }
        drop(found);
        while !self.running.is_empty() {
            self.settle_one().await;
        }
        if self.gone.is_none() { self.only_remote(&args.local).await } else { Ok(()) }
    }

    async fn directory(&mut self, relative: &str) -> Result<(), Stop> {
        let path = self.remote.join(relative)?;
        if path.is_root() {
            return Ok(());
        }
        match self.context.client.stat(&path.as_directory()).await {
            Ok(stat) if stat.kind == EntryType::Directory => self.tally.directories += 1,
            Ok(_) => self.differs(&path.shown(), Difference::Kind),
            Err(error) => match Stop::from(error) {
                stop if stop.exit == Exit::NotFound => self.differs(&path.shown(), Difference::OnlyLocal),
                stop if stop.exit == Exit::Failed => self.differs(&path.shown(), Difference::Kind),
                stop => return Err(stop),
            },
        }
        Ok(())
    }

    /// What is stored and not here. That it is here was compared before.
    async fn only_remote(&mut self, local: &Path) -> Result<(), Stop> {
        let root =
            LocalRoot::open(local).map_err(|error| Stop::local(format!("{}: {error}", local.display())))?;
        let mut after: Option<String> = None;
        loop {
            let page = self.context.client.list(&self.remote, true, after.as_deref()).await?;
            for entry in &page.entries {
                let here = relative_to(&self.remote, entry).map(|relative| root.exists(relative));
                match here {
                    Some(Ok(true)) => {}
                    Some(Ok(false) | Err(LocalError::UnsafeName)) | None => {
                        self.differs(&shown(&format!("/{}", entry.path)), Difference::OnlyRemote);
                    }
                    Some(Err(error)) => self.fail(&entry.path, &Stop::local(error.to_string())),
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn compare(&mut self, local: PathBuf, path: RemotePath) {
        let (client, progress) = (self.context.client.clone(), self.progress.clone());
        self.running.spawn(async move {
            let same = download(&client, &path, &progress, move |incoming| {
                let file = File::open(&local)?;
                if file.metadata()?.is_dir() {
                    return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
                }
                same_bytes(file, incoming)
            });
            (path.shown(), same.await.map_err(Stop::from))
        });
    }

    async fn settle_one(&mut self) {
        match self.running.join_next().await {
            Some(Ok((_, Ok(Some(bytes))))) => self.tally.file(bytes),
            Some(Ok((path, Ok(None)))) => self.differs(&path, Difference::Bytes),
            Some(Ok((path, Err(stop)))) => match stop.code.as_str() {
                "not_found" => self.differs(&path, Difference::OnlyLocal),
                "is_directory" | "not_directory" => self.differs(&path, Difference::Kind),
                _ => {
                    self.fail(&path, &stop);
                    if stop.ends_everything() {
                        self.gone.get_or_insert(stop);
                    }
                }
            },
            Some(Err(panicked)) => self.fail("a comparison", &Stop::local(panicked.to_string())),
            None => {}
        }
    }

    fn differs(&mut self, path: &str, difference: Difference) {
        self.different += 1;
        if !self.context.out.json() {
            let words = match difference {
                Difference::OnlyLocal => "only local",
                Difference::OnlyRemote => "only stored",
                Difference::Bytes => "differs",
                Difference::Kind => "is a file on one side, a directory on the other",
            };
            self.progress.say(|| {
                // Who closed the pipe still gets the exit code.
                let _ = self.context.out.line(format_args!("{path}: {words}"));
            });
        }
        if self.differences.len() < DIFFERENCES_KEPT {
            self.differences.push(Line { path: path.to_owned(), difference });
        }
    }

    fn fail(&mut self, path: &str, stop: &Stop) {
        self.tally.fail(&shown(path), stop, self.context.out, &self.progress);
    }

    fn finish(self) -> Result<Exit, Stop> {
        self.progress.finish();
        let out = self.context.out;
        let same = self.different == 0 && self.tally.failed == 0 && self.gone.is_none();
        if out.json() {
            out.value(&serde_json::json!({
                "same": same, "files": self.tally.files, "bytes": self.tally.bytes,
                "different": self.different, "differences": self.differences,
                "skipped": self.tally.skipped, "failed": self.tally.failed, "failures": self.tally.failures,
            }))?;
        } else {
            out.line(format_args!(
                "{}, {} the same{}{}",
                counted(self.tally.files, "file", "files"),
                show_bytes(self.tally.bytes),
                if self.different == 0 { String::new() } else { format!(", {} different", self.different) },
                self.tally.remarks()
            ))?;
        }
        match self.gone {
            Some(stop) => Err(stop),
            None if same => Ok(Exit::Ok),
            None => Ok(Exit::Failed),
        }
    }
}

/// The number of bytes, if both sides hold the same; `None` where they differ. Fails where the stored bytes are
/// not what they should be.
fn same_bytes(mut local: impl Read, mut incoming: Incoming) -> Result<Option<u64>, DownloadError> {
    let mut same = true;
    while let Some(piece) = incoming.next() {
        let mut stored = &piece[..];
        while same && !stored.is_empty() {
            let here = read_piece(&mut local, stored.len() as u64)?;
            same = !here.is_empty() && stored.starts_with(&here);
            stored = stored.get(here.len()..).unwrap_or_default();
        }
    }
    same = same && read_piece(&mut local, 1)?.is_empty();
    let fetched = incoming.verify()?;
    Ok(same.then_some(fetched.size))
}
