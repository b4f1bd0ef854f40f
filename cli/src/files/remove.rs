//! `hay rm`.

use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;

use super::stat::stat_either;
use crate::api::EntryType;
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
        let entries = gone.map_err(|error| Stop::from(error).about(&path.shown()))?;
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

fn confirmed(targets: &[(RemotePath, bool)]) -> Result<bool, Stop> {
    if !io::stdin().is_terminal() {
        return Err(Stop::usage(
            "rm -r removes all that is in a directory, and there is no terminal to ask on: add --yes",
        ));
    }
    let names: Vec<String> = targets.iter().map(|(path, _)| path.shown()).collect();
    // The question goes to stderr: stdout may be a file.
    let mut stderr = io::stderr().lock();
    write!(stderr, "Remove {} with all that is in it? [y/N] ", names.join(", "))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

async fn dry_run(targets: &[(RemotePath, bool)], context: &Context) -> Result<Exit, Stop> {
    let json = context.out.json();
    let mut would_go = 0u64;
    if json {
        write!(io::stdout().lock(), "{{\"dry_run\":true,\"would_remove\":[")?;
    }
    for (path, directory) in targets {
        say(json, &mut would_go, path.as_str())?;
        if *directory {
            say_all(json, &mut would_go, path, context).await?;
        }
    }
    if json {
        io::stdout().lock().write_all(b"]}\n")?;
    } else {
        context
            .out
            .note(format_args!("{} would go; nothing was removed", counted(would_go, "entry", "entries")));
    }
    Ok(Exit::Ok)
}

/// What is in a directory, page by page.
async fn say_all(json: bool, count: &mut u64, directory: &RemotePath, context: &Context) -> Result<(), Stop> {
    let mut after: Option<String> = None;
    loop {
        let page = context.client.list(directory, true, after.as_deref()).await?;
        for entry in &page.entries {
            say(json, count, entry.path.strip_prefix('/').unwrap_or(&entry.path))?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn say(json: bool, count: &mut u64, path: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let path = format!("/{path}");
    let comma = if json && *count > 0 { "," } else { "" };
    *count += 1;
    if json {
        out.write_all(comma.as_bytes())?;
        return Ok(serde_json::to_writer(&mut out, &path)?);
    }
    writeln!(out, "{}", shown(&path))
}
