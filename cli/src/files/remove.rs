//! `hay rm`.

use std::io::{self, Write};

use serde::Serialize;

use super::stat::stat_either;
use crate::api::EntryType;
use crate::ask::is_confirmed;
use crate::flags::RmArgs;
use crate::output::shown;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};
use crate::units::counted;

#[derive(Debug, Serialize)]
struct Removed {
    path: String,
    entries: Option<u64>,
}

/// Removes files and directories.
pub async fn remove(args: RmArgs, context: Context) -> Result<Exit, Stop> {
    let mut targets = Vec::new();
    for typed in &args.paths {
        let path = RemotePath::parse(typed)?;
        let stat = stat_either(&context, &path).await.map_err(|stop| stop.about(&path.shown()))?;
        let directory = stat.kind == EntryType::Directory;
        if directory && !args.recursive {
            return Err(Stop::usage(format!("{} is a directory: use -r", path.shown())));
        }
        if directory && path.is_root() {
            return Err(Stop::usage("the root stays; name the directories in it"));
        }
        targets.push((if directory { path.as_directory() } else { path }, directory));
    }
    if args.dry_run {
        return dry_run(&targets, &context).await;
    }
    if targets.iter().any(|(_, directory)| *directory) && !args.yes && !confirmed(&targets)? {
        return Err(Stop { code: "declined".into(), ..Stop::local("nothing was removed") });
    }
    let mut removed = Vec::new();
    for (path, directory) in &targets {
        let gone = context.client.remove(path, *directory).await;
        let entries = match gone.map_err(|error| Stop::from(error).about(&path.shown())) {
            Ok(entries) => entries,
            Err(stop) if removed.is_empty() => return Err(stop),
            Err(stop) => return in_part(&removed, &stop, &context),
        };
        if !context.out.json() {
            let count =
                entries.filter(|_| *directory).map(|n| format!(" ({})", counted(n, "entry", "entries")));
            context.out.line(format_args!("removed {}{}", path.shown(), count.unwrap_or_default()))?;
        }
        removed.push(Removed { path: format!("/{}", path.as_str()), entries });
    }
    if context.out.json() {
        context.out.value(&serde_json::json!({ "removed": removed }))?;
    }
    Ok(Exit::Ok)
}

/// The end after some went and one did not: programs must hear of those that went.
fn in_part(removed: &[Removed], stop: &Stop, context: &Context) -> Result<Exit, Stop> {
    context.out.note(format_args!("hay: {}", stop.message));
    if context.out.json() {
        context.out.value(&serde_json::json!({ "removed": removed, "error": error(stop) }))?;
    }
    Ok(Exit::Partial)
}

fn error(stop: &Stop) -> serde_json::Value {
    serde_json::json!({ "code": stop.code, "message": stop.message })
}

fn confirmed(targets: &[(RemotePath, bool)]) -> Result<bool, Stop> {
    let names: Vec<String> = targets.iter().map(|(path, _)| path.shown()).collect();
    let unasked = "rm -r removes all that is in a directory, and there is no terminal to ask on: add --yes";
    is_confirmed(&format!("Remove {} with all that is in it?", names.join(", ")), unasked)
}

async fn dry_run(targets: &[(RemotePath, bool)], context: &Context) -> Result<Exit, Stop> {
    let mut plan = Plan { out: io::stdout(), json: context.out.json(), said: 0 };
    plan.begin()?;
    let listed = plan.targets(targets, context).await;
    plan.end(listed.as_ref().err())?;
    match listed {
        Ok(()) if !plan.json => {
            let would_go = counted(plan.said, "entry", "entries");
            context.out.note(format_args!("{would_go} would go; nothing was removed"));
        }
        Ok(()) => {}
        // The document on stdout holds the error already.
        Err(stop) if plan.json => {
            context.out.note(format_args!("hay: {}", stop.message));
            return Ok(stop.exit);
        }
        Err(stop) => return Err(stop),
    }
    Ok(Exit::Ok)
}

/// What would go, said as it is found: a directory may hold more than fits memory.
struct Plan<W> {
    out: W,
    json: bool,
    said: u64,
}

impl<W: Write> Plan<W> {
    fn begin(&mut self) -> io::Result<()> {
        if self.json {
            self.out.write_all(b"{\"dry_run\":true,\"would_remove\":[")?;
        }
        Ok(())
    }

    /// Ends the document, which is whole also where the list is not.
    fn end(&mut self, stopped: Option<&Stop>) -> io::Result<()> {
        if self.json {
            self.out.write_all(b"]")?;
            if let Some(stop) = stopped {
                self.out.write_all(b",\"error\":")?;
                serde_json::to_writer(&mut self.out, &error(stop))?;
            }
            self.out.write_all(b"}\n")?;
        }
        Ok(())
    }

    async fn targets(&mut self, targets: &[(RemotePath, bool)], context: &Context) -> Result<(), Stop> {
        for (path, directory) in targets {
            self.say(path.as_str())?;
            if *directory {
                self.inside(path, context).await.map_err(|stop| stop.about(&path.shown()))?;
            }
        }
        Ok(())
    }

    /// What is in a directory, page by page.
    async fn inside(&mut self, directory: &RemotePath, context: &Context) -> Result<(), Stop> {
        let mut after: Option<String> = None;
        loop {
            let page = context.client.list(directory, true, after.as_deref()).await?;
            for entry in &page.entries {
                self.say(entry.path.strip_prefix('/').unwrap_or(&entry.path))?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn say(&mut self, path: &str) -> io::Result<()> {
        let path = format!("/{path}");
        let comma = if self.json && self.said > 0 { "," } else { "" };
        self.said += 1;
        if self.json {
            self.out.write_all(comma.as_bytes())?;
            return Ok(serde_json::to_writer(&mut self.out, &path)?);
        }
        writeln!(self.out, "{}", shown(&path))
    }
}

#[cfg(test)]
mod tests {
    use hay_common::clock::SystemClock;

    use super::*;
    use crate::api::scripted::{Act, answer, play};
    use crate::output::Output;

    async fn context(script: Vec<Vec<u8>>) -> Context {
        let (client, _) = play(script.into_iter().map(Act::Answer).collect()).await;
        Context { client, out: Output::new(true), clock: SystemClock::shared() }
    }

    fn forbidden() -> Vec<u8> {
        answer("403 Forbidden", "", br#"{"error":{"code":"forbidden","message":"no"}}"#)
    }

    #[tokio::test]
    async fn a_plan_that_breaks_off_is_whole_json_and_says_so() {
        let page = br#"{"entries":[{"name":"b","path":"a/b","type":"file","size":3,"etag":null,
            "modified":"2026-01-31T08:15:30.123Z","content_type":null}],"next":"b"}"#;
        let context = context(vec![answer("200 OK", "", page), forbidden()]).await;
        let mut plan = Plan { out: Vec::new(), json: true, said: 0 };
        plan.begin().unwrap();
        let targets = [(RemotePath::parse("/a/").unwrap(), true)];
        let stop = plan.targets(&targets, &context).await.unwrap_err();
        plan.end(Some(&stop)).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&plan.out).unwrap();
        assert_eq!(document["would_remove"], serde_json::json!(["/a/", "/a/b"]));
        assert_eq!(document["error"]["code"], "forbidden");
    }

    #[tokio::test]
    async fn what_went_before_a_failure_is_told() {
        let stat = || answer("200 OK", "x-haystore-type: file\r\n", b"");
        let gone = answer("200 OK", "", br#"{"removed":1}"#);
        let args = |paths: &[&str]| RmArgs {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            recursive: false,
            yes: true,
            dry_run: false,
        };
        let context_of = context(vec![stat(), stat(), gone, forbidden()]).await;
        assert_eq!(remove(args(&["/a", "/b"]), context_of).await, Ok(Exit::Partial));
        let context_of = context(vec![stat(), forbidden()]).await;
        assert_eq!(remove(args(&["/b"]), context_of).await.unwrap_err().exit, Exit::Denied);
    }
}
