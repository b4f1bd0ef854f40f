//! `hay volume list|show`.

use std::io::Write;

use serde_json::Value;

use super::fields::{list, size, table, text};
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// All volumes, page by page.
pub async fn volume_list(context: Context) -> Result<Exit, Stop> {
    let mut rows = table(&["ID", "CLASS", "STATE", "EPOCH", "NEEDLES", "SIZE", "GARBAGE", "MEMBERS"]);
    let json = context.out.json();
    let mut after = 0;
    let mut first = true;
    if json {
        write!(std::io::stdout().lock(), "{{\"volumes\":[")?;
    }
    loop {
        let page = context.client.volumes(after).await?;
        for volume in list(&page, &["volumes"]) {
            if json {
                let comma = if std::mem::take(&mut first) { "" } else { "," };
                write!(std::io::stdout().lock(), "{comma}{volume}")?;
            } else {
                rows.add_row(row(volume));
            }
        }
        match next(&page, after) {
            Some(next) => after = next,
            None => break,
        }
    }
    if json {
        std::io::stdout().lock().write_all(b"]}\n")?;
    } else {
        context.out.line(rows.trim_fmt())?;
    }
    Ok(Exit::Ok)
}

/// Where the next page begins. A server that repeats itself must not hold us for ever.
fn next(page: &Value, after: u64) -> Option<u64> {
    let next = page.get("next")?;
    let next = next.as_u64().or_else(|| next.as_str()?.parse().ok())?;
    (next > after).then_some(next)
}

fn row(volume: &Value) -> Vec<String> {
    let members: Vec<String> = list(volume, &["members"]).iter().map(member).collect();
    vec![
        text(volume, "id"),
        text(volume, "class"),
        text(volume, "state"),
        text(volume, "epoch"),
        text(volume, "needles"),
        size(volume, "size_bytes"),
        size(volume, "garbage_bytes"),
        members.join(", "),
    ]
}

fn member(member: &Value) -> String {
    let is = |field: &str| member.get(field).and_then(Value::as_bool);
    let state = if is("alive") == Some(false) {
        " (dead)"
    } else if is("filling") == Some(true) {
        " (filling)"
    } else if is("incomplete") == Some(true) {
        " (may lack needles)"
    } else {
        ""
    };
    format!("{}{state}", text(member, "address"))
}

/// One volume.
pub async fn volume_show(id: u32, context: Context) -> Result<Exit, Stop> {
    let volume =
        context.client.volume(id).await.map_err(|error| Stop::from(error).about(&format!("volume {id}")))?;
    if context.out.json() {
        context.out.value(&volume)?;
        return Ok(Exit::Ok);
    }
    for (name, field) in [
        ("volume", "id"),
        ("class", "class"),
        ("state", "state"),
        ("epoch", "epoch"),
        ("tier", "tier"),
        ("collection", "collection"),
        ("needles", "needles"),
        ("read-only", "read_only_reason"),
    ] {
        context.out.line(format_args!("{name:<12}{}", text(&volume, field)))?;
    }
    context.out.line(format_args!("size        {}", size(&volume, "size_bytes")))?;
    context.out.line(format_args!("garbage     {}", size(&volume, "garbage_bytes")))?;
    for (number, entry) in list(&volume, &["members"]).iter().enumerate() {
        context.out.line(format_args!(
            "member {number}    {}  node {}",
            member(entry),
            text(entry, "node")
        ))?;
    }
    Ok(Exit::Ok)
}

/// Brings a sealed volume back to its number of copies.
pub async fn volume_repair(id: u32, dry_run: bool, context: Context) -> Result<Exit, Stop> {
    let plan = context.client.volume_repair(id, dry_run).await?;
    if context.out.json() {
        context.out.value(&plan)?;
        return Ok(Exit::Ok);
    }
    let (whole, wanted) = (text(&plan, "whole"), text(&plan, "wanted"));
    let steps = list(&plan, &["steps"]);
    let unsure = plan.get("unsure").and_then(Value::as_bool) == Some(true);
    if steps.is_empty() {
        let found = if unsure { "; nothing can be done" } else { "; nothing to do" };
        context.out.line(format_args!("volume {id} has {whole} of {wanted} whole copies{found}"))?;
    }
    for step in steps {
        context.out.line(format_args!("{}", step_line(id, dry_run, step)))?;
    }
    if unsure {
        context.out.line(UNSURE)?;
    }
    Ok(Exit::Ok)
}

/// What copies that complete each other can't make good.
const UNSURE: &str = "No copy that is there is sure to hold every needle. They are completed from each other, one at a time: ask \
                      again when this one is done. What all of them have lost can't be told, so they stay marked; a server \
                      that is away may have it.";

fn step_line(id: u32, dry_run: bool, step: &Value) -> String {
    let does = match (step.get("running").and_then(Value::as_bool), dry_run) {
        (Some(true), _) => "is being copied",
        (_, true) => "would be copied",
        (_, false) => "is copied from now on",
    };
    let place = match step.get("replaces").and_then(Value::as_str) {
        Some(node) => format!(", in the place of server {node}"),
        None => String::new(),
    };
    format!("volume {id} {does} to server {} at {}{place}", text(step, "target"), text(step, "address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pages_end_even_if_the_server_repeats_itself() {
        assert_eq!(next(&json!({ "volumes": [] }), 0), None);
        assert_eq!(next(&json!({ "next": null }), 0), None);
        assert_eq!(next(&json!({ "next": 7 }), 3), Some(7));
        assert_eq!(next(&json!({ "next": "7" }), 3), Some(7));
        assert_eq!(next(&json!({ "next": 7 }), 7), None);
    }
}
