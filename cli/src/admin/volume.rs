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
    } else if is("completing") == Some(true) {
        " (being completed)"
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
            "member {number}    {}  node {}{}",
            member(entry),
            text(entry, "node"),
            problem(entry)
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
    for cancelled in list(&plan, &["cancelled"]) {
        context.out.line(format_args!("{}", cancelled_line(id, dry_run, cancelled)))?;
    }
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
                      that is away may have it, so none is given up for another one.";

fn is(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool) == Some(true)
}

/// What is wrong with a copy, behind what else is said of it.
fn problem(value: &Value) -> String {
    match value.get("problem").and_then(Value::as_str) {
        None | Some("") => String::new(),
        Some(problem) => format!("; {problem}"),
    }
}

fn cancelled_line(id: u32, dry_run: bool, cancelled: &Value) -> String {
    let does = if dry_run { "would be" } else { "is" };
    let server = format!("server {} at {}", text(cancelled, "target"), text(cancelled, "address"));
    let reason = text(cancelled, "reason");
    match is(cancelled, "stays") {
        true => format!(
            "the completion of volume {id} at {server}, which keeps what it has, {does} given up: {reason}"
        ),
        false => format!("the copy of volume {id} to {server} {does} given up: {reason}"),
    }
}

fn step_line(id: u32, dry_run: bool, step: &Value) -> String {
    let does = match (is(step, "running"), dry_run, is(step, "in_place")) {
        (true, _, false) => "is being copied to",
        (true, _, true) => "is being completed at",
        (false, true, false) => "would be copied to",
        (false, true, true) => "would be completed at",
        (false, false, false) => "is copied from now on to",
        (false, false, true) => "is completed from now on at",
    };
    let place = match step.get("replaces").and_then(Value::as_str) {
        Some(node) => format!(", in the place of server {node}"),
        None => String::new(),
    };
    let (server, address) = (text(step, "target"), text(step, "address"));
    format!("volume {id} {does} server {server} at {address}{place}{}", problem(step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_begun_goes_on_or_is_given_up_is_said() {
        let step = json!({ "target": "b", "address": "b:1", "replaces": "a", "running": true, "problem": "no room" });
        assert_eq!(
            step_line(3, false, &step),
            "volume 3 is being copied to server b at b:1, in the place of server a; no room"
        );
        let step =
            json!({ "target": "b", "address": "b:1", "replaces": null, "in_place": true, "problem": "" });
        assert_eq!(step_line(3, true, &step), "volume 3 would be completed at server b at b:1");
        let cancelled = json!({ "target": "b", "address": "b:1", "reason": "it died", "stays": false });
        assert_eq!(
            cancelled_line(3, false, &cancelled),
            "the copy of volume 3 to server b at b:1 is given up: it died"
        );
        let cancelled = json!({ "target": "b", "address": "b:1", "reason": "it died", "stays": true });
        assert!(
            cancelled_line(3, true, &cancelled).contains("keeps what it has, would be given up: it died")
        );
    }

    #[test]
    fn pages_end_even_if_the_server_repeats_itself() {
        assert_eq!(next(&json!({ "volumes": [] }), 0), None);
        assert_eq!(next(&json!({ "next": null }), 0), None);
        assert_eq!(next(&json!({ "next": 7 }), 3), Some(7));
        assert_eq!(next(&json!({ "next": "7" }), 3), Some(7));
        assert_eq!(next(&json!({ "next": 7 }), 7), None);
    }
}
