//! `hay ls`.

use std::io::{self, Write};

use hay_common::error::ErrorCode;

use crate::api::{Entry, EntryType};
use crate::flags::LsArgs;
use crate::output::shown;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// Lists a directory, page by page: no listing is held whole.
pub async fn list(args: LsArgs, context: Context) -> Result<Exit, Stop> {
    let path = RemotePath::parse(&args.path)?;
    let directory = path.as_directory();
    let mut page = match context.client.list(&directory, args.recursive, None).await {
        Err(error) if error.code() == Some(ErrorCode::NotDirectory) && !path.is_directory() => {
            return list_file(&args, &path, &context).await;
        }
        other => other.map_err(|error| Stop::from(error).about(&path.shown()))?,
    };
    let mut writer =
        Writer { json: context.out.json(), long: args.long, recursive: args.recursive, first: true };
    writer.begin()?;
    loop {
        for entry in &page.entries {
            writer.entry(&directory, entry)?;
        }
        match page.next.take() {
            Some(after) => page = context.client.list(&directory, args.recursive, Some(&after)).await?,
            None => break,
        }
    }
    writer.end()?;
    Ok(Exit::Ok)
}

async fn list_file(args: &LsArgs, path: &RemotePath, context: &Context) -> Result<Exit, Stop> {
    let stat = context.client.stat(path).await?;
    let entry = Entry {
        name: path.name()?.to_owned(),
        path: path.as_str().to_owned(),
        kind: stat.kind,
        size: stat.size.unwrap_or(0),
        etag: stat.etag,
        modified: stat.modified.map(serde_json::Value::String),
        content_type: stat.content_type,
    };
    let mut writer = Writer { json: context.out.json(), long: args.long, recursive: false, first: true };
    writer.begin()?;
    writer.entry(path, &entry)?;
    writer.end()?;
    Ok(Exit::Ok)
}

/// Writes entries as they come.
struct Writer {
    json: bool,
    long: bool,
    recursive: bool,
    first: bool,
}

impl Writer {
    fn begin(&self) -> io::Result<()> {
        if self.json { write!(io::stdout().lock(), "{{\"entries\":[") } else { Ok(()) }
    }

    fn entry(&mut self, directory: &RemotePath, entry: &Entry) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            if !std::mem::take(&mut self.first) {
                out.write_all(b",")?;
            }
            return Ok(serde_json::to_writer(&mut out, entry)?);
        }
        writeln!(out, "{}", self.line(directory, entry))
    }

    fn line(&self, directory: &RemotePath, entry: &Entry) -> String {
        let name = if self.recursive {
            super::get::relative_to(directory, entry).unwrap_or(&entry.path)
        } else {
            entry.name.as_str()
        };
        let slash = if entry.kind == EntryType::Directory && !name.ends_with('/') { "/" } else { "" };
        let name = format!("{}{slash}", shown(name));
        if !self.long {
            return name;
        }
        let size = if entry.kind == EntryType::Directory { "-".to_owned() } else { entry.size.to_string() };
        let etag: String = entry.etag.as_deref().unwrap_or("-").chars().take(12).collect();
        format!("{size:>14}  {:<24}  {etag:<12}  {name}", modified(entry.modified.as_ref()))
    }

    fn end(&self) -> io::Result<()> {
        if self.json { io::stdout().lock().write_all(b"]}\n") } else { Ok(()) }
    }
}

/// The time of writing for people: what the server says, milliseconds since 1970 turned into a date.
pub fn modified(value: Option<&serde_json::Value>) -> String {
    match value {
        Some(serde_json::Value::String(text)) => shown(text),
        Some(number) => number
            .as_i64()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_entries_and_steer_no_terminal() {
        let dir = RemotePath::parse("/a/").unwrap();
        let entry: Entry = serde_json::from_value(serde_json::json!({
            "name": "b\u{1b}c", "path": "a/d/b\u{1b}c", "type": "file", "size": 12, "modified": 0,
            "etag": "\"0123456789abcdef\"", "content_type": null, "later": "unknown"
        }))
        .unwrap();
        let writer = |long, recursive| Writer { json: false, long, recursive, first: true };
        assert_eq!(writer(false, false).line(&dir, &entry), "b\\u{1b}c");
        assert_eq!(writer(false, true).line(&dir, &entry), "d/b\\u{1b}c");
        assert_eq!(
            writer(true, false).line(&dir, &entry),
            "            12  1970-01-01T00:00:00Z      0123456789ab  b\\u{1b}c"
        );
        let sub: Entry =
            serde_json::from_value(serde_json::json!({ "name": "d", "path": "a/d/", "type": "directory" }))
                .unwrap();
        assert_eq!(writer(false, false).line(&dir, &sub), "d/");
    }
}
