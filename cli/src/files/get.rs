//! `hay get`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hay_common::error::ErrorCode;
use tokio::task::JoinSet;

use super::cat::copy_to_stdout;
use super::download::{DownloadError, Incoming, download};
use super::local::{LocalError, LocalRoot, PartFile, local_segments};
use super::progress::Progress;
use super::put::JOBS_MAX;
use super::tally::Tally;
use crate::api::{Client, Entry, EntryType, Fetched};
use crate::flags::GetArgs;
use crate::output::shown;
use crate::remote::{RemotePath, RemotePathError};
use crate::run::Context;
use crate::stop::{Exit, Stop};
use crate::units::{counted, show_bytes};

/// Fetches a file or a directory.
pub async fn get(args: GetArgs, context: Context) -> Result<Exit, Stop> {
    let source = RemotePath::parse(&args.source)?;
    if args.recursive {
        return get_folder(&args, &source.as_directory(), &context).await;
    }
    if args.target == Path::new("-") {
        copy_to_stdout(&context, &source, &Progress::new("fetching"))
            .await
            .map_err(|error| told(Stop::from(error), &source))?;
        return Ok(Exit::Ok);
    }
    let (directory, name) = single_target(&source, &args.target)?;
    let started = context.clock.monotonic();
    let root = open_root(&directory)?;
    let progress = Progress::new("fetching");
    let fetched = fetch_into(&context.client, &source, root, name.clone(), &progress).await;
    progress.finish();
    let fetched = fetched.map_err(|error| told(Stop::from(error), &source))?;
    let target = directory.join(&name);
    if context.out.json() {
        context.out.value(&serde_json::json!({
            "path": format!("/{}", source.as_str()), "target": target, "bytes": fetched.size,
            "etag": fetched.etag.to_string(), "seconds": (context.clock.monotonic() - started).as_secs_f64(),
        }))?;
    } else {
        context.out.line(format_args!("{}  {}, verified", target.display(), show_bytes(fetched.size)))?;
    }
    Ok(Exit::Ok)
}

/// What went wrong with a single file, and what to do.
fn told(stop: Stop, source: &RemotePath) -> Stop {
    if stop.code == ErrorCode::IsDirectory.as_str() {
        return Stop { exit: Exit::Usage, message: "is a directory: use -r".to_owned(), ..stop }
            .about(&source.shown());
    }
    stop.about(&source.shown())
}

fn open_root(directory: &Path) -> Result<LocalRoot, Stop> {
    LocalRoot::open(directory).map_err(|error| Stop::local(format!("{}: {error}", directory.display())))
}

/// The directory and name for a single file: like `cp`, into a directory under its own name, else as named.
fn single_target(source: &RemotePath, target: &Path) -> Result<(PathBuf, String), Stop> {
    let ends_in_slash = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    if ends_in_slash || target.is_dir() {
        let name = source.name()?;
        local_segments(name).map_err(|error| Stop::local(format!("{name:?} {error}")))?;
        return Ok((target.to_owned(), name.to_owned()));
    }
    let name = target.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Stop::usage(format!("{} is no name for a file", target.display())))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent.to_owned(), name.to_owned()))
}

/// Fetches one file to `relative` below `root`, verified before it appears.
async fn fetch_into(
    client: &Client,
    path: &RemotePath,
    root: LocalRoot,
    relative: String,
    progress: &Progress,
) -> Result<Fetched, DownloadError> {
    let random = Arc::clone(client.random());
    download(client, path, progress, move |incoming| {
        let part = root.create(&relative, random.as_ref())?;
        write_and_publish(part, incoming)
    })
    .await
}

fn write_and_publish(mut part: PartFile, mut incoming: Incoming) -> Result<Fetched, DownloadError> {
    while let Some(piece) = incoming.next() {
        part.file().write_all(&piece)?;
    }
    let fetched = incoming.verify()?;
    part.publish()?;
    Ok(fetched)
}

type Came = (String, Result<Fetched, Stop>);

struct FolderGet<'a> {
    context: &'a Context,
    source: &'a RemotePath,
    root: LocalRoot,
    jobs: usize,
    progress: Progress,
    tally: Tally,
    running: JoinSet<Came>,
    gone: Option<Stop>,
}

async fn get_folder(args: &GetArgs, source: &RemotePath, context: &Context) -> Result<Exit, Stop> {
    let started = context.clock.monotonic();
    // The source is asked for first: a path that is not there makes no folder here.
    let first =
        context.client.list(source, true, None).await.map_err(|e| Stop::from(e).about(&source.shown()))?;
    std::fs::create_dir_all(&args.target)
        .map_err(|error| Stop::local(format!("{}: {error}", args.target.display())))?;
    let mut get = FolderGet {
        context,
        source,
        root: open_root(&args.target)?,
        jobs: args.jobs.get().min(JOBS_MAX),
        progress: Progress::new("fetching"),
        tally: Tally::default(),
        running: JoinSet::new(),
        gone: None,
    };
    let listed = get.run(first).await;
    get.progress.finish();
    let FolderGet { tally, gone, .. } = get;
    let gone = gone.or(listed.err());
    let seconds = (context.clock.monotonic() - started).as_secs_f64();
    if context.out.json() {
        let mut value = serde_json::to_value(&tally).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.insert("source".into(), format!("/{}", source.as_str()).into());
            map.insert("target".into(), args.target.display().to_string().into());
            map.insert("seconds".into(), seconds.into());
            map.insert("complete".into(), gone.is_none().into());
        }
        context.out.value(&value)?;
    } else {
        context.out.line(format_args!(
            "{}, {} in {seconds:.1} s to {}, all verified{}",
            counted(tally.files, "file", "files"),
            show_bytes(tally.bytes),
            args.target.display(),
            tally.remarks()
        ))?;
    }
    match gone {
        None => Ok(tally.exit()),
        Some(stop) => {
            context.out.note(format_args!("hay: stopped, not all was fetched: {}", stop.message));
            Ok(stop.exit)
        }
    }
}

/// The path of an entry inside the directory that was listed.
pub fn relative_to<'e>(directory: &RemotePath, entry: &'e Entry) -> Option<&'e str> {
    let path = entry.path.strip_prefix('/').unwrap_or(&entry.path);
    path.strip_prefix(directory.as_str()).filter(|relative| !relative.is_empty())
}

impl FolderGet<'_> {
    async fn run(&mut self, first: crate::api::Listing) -> Result<(), Stop> {
        let mut page = first;
        loop {
            self.progress.expect(page.entries.iter().map(|entry| entry.size).sum());
            for entry in &page.entries {
                if self.gone.is_some() {
                    break;
                }
                self.take(entry);
                while self.running.len() >= self.jobs {
                    self.settle_one().await;
                }
            }
            let next = page.next.take().filter(|_| self.gone.is_none());
            let listed = match next {
                Some(after) => Some(self.context.client.list(self.source, true, Some(&after)).await),
                None => None,
            };
            match listed {
                Some(Ok(listed)) => page = listed,
                end => {
                    while !self.running.is_empty() {
                        self.settle_one().await;
                    }
                    return end.map_or(Ok(()), |failed| failed.map(drop).map_err(Stop::from));
                }
            }
        }
    }

    fn take(&mut self, entry: &Entry) {
        let Some(relative) = relative_to(self.source, entry) else {
            return self.fail(&entry.path, &outside(&LocalError::UnsafeName));
        };
        match entry.kind {
            EntryType::Directory => match self.root.make_directory(relative) {
                Ok(()) => self.tally.directories += 1,
                Err(error) => self.fail(&entry.path, &DownloadError::Local(error).into()),
            },
            EntryType::File => match self.source.join(relative) {
                Ok(path) => self.fetch(path, relative.to_owned()),
                Err(RemotePathError::NoName) => {}
                // A name that is no path can't be asked for either.
                Err(_) => self.fail(&entry.path, &outside(&LocalError::UnsafeName)),
            },
        }
    }

    fn fetch(&mut self, path: RemotePath, relative: String) {
        let (client, root, progress) = (self.context.client.clone(), self.root.clone(), self.progress.part());
        self.running.spawn(async move {
            let fetched = fetch_into(&client, &path, root, relative, &progress).await;
            (path.shown(), fetched.map_err(Stop::from))
        });
    }

    async fn settle_one(&mut self) {
        match self.running.join_next().await {
            Some(Ok((_, Ok(fetched)))) => self.tally.file(fetched.size),
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

fn outside(error: &LocalError) -> Stop {
    Stop { code: "unsafe_target".into(), ..Stop::local(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        serde_json::from_value(serde_json::json!({ "name": "x", "path": path, "type": "file" })).unwrap()
    }

    #[test]
    fn entries_are_named_inside_the_listed_directory() {
        let photos = RemotePath::parse("/photos/").unwrap();
        assert_eq!(relative_to(&photos, &entry("photos/a/b")), Some("a/b"));
        assert_eq!(relative_to(&photos, &entry("/photos/a/")), Some("a/"));
        assert_eq!(relative_to(&photos, &entry("other/a")), None);
        assert_eq!(relative_to(&photos, &entry("photos/")), None);
        let root = RemotePath::parse("/").unwrap();
        assert_eq!(relative_to(&root, &entry("a/b")), Some("a/b"));
    }

    #[test]
    fn a_single_file_goes_where_cp_would_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = RemotePath::parse("/docs/notes.txt").unwrap();
        let into = single_target(&source, dir.path()).unwrap();
        assert_eq!(into, (dir.path().to_owned(), "notes.txt".to_owned()));
        let named = single_target(&source, &dir.path().join("copy")).unwrap();
        assert_eq!(named, (dir.path().to_owned(), "copy".to_owned()));
        assert_eq!(single_target(&source, Path::new("copy")).unwrap().0, Path::new("."));
        assert!(single_target(&RemotePath::parse("/").unwrap(), dir.path()).is_err());
    }
}
