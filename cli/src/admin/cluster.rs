//! `hay cluster status`.

use serde_json::Value;

use super::fields::{at, list, size, table, text};
use crate::api::ApiError;
use crate::output::{Output, shown};
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// Masters, volume servers and metadata at a glance.
pub async fn cluster_status(context: Context) -> Result<Exit, Stop> {
    let status = match context.client.cluster().await {
        Ok(status) => status,
        Err(error @ ApiError::Refused { status: 503 | 504, .. }) => {
            return Err(unknown(error, &context).await);
        }
        Err(error) => return Err(error.into()),
    };
    if context.out.json() {
        context.out.value(&status)?;
    } else {
        print(context.out, &status)?;
    }
    Ok(Exit::Ok)
}

/// Who may ask is known to the filer. Without it there is what a gateway tells everybody: who can't do its work, and why.
async fn unknown(error: ApiError, context: &Context) -> Stop {
    let readiness = context.client.ready().await.err();
    let stop = Stop::from(error);
    match readiness {
        Some(readiness) => Stop { message: format!("{}; {readiness}", stop.message), ..stop },
        None => stop,
    }
}

fn print(out: Output, status: &Value) -> std::io::Result<()> {
    for line in summary(status) {
        out.line(format_args!("{line}"))?;
    }
    let mut masters = table(&["MASTER", "ADDRESS", "LEADER", "VOTER"]);
    for member in list(status, &["masters"]) {
        let row = [text(member, "id"), text(member, "address"), yes(member, "leader"), yes(member, "voter")];
        masters.add_row(row);
    }
    let mut nodes = table(&["VOLUME SERVER", "ADDRESS", "ALIVE", "TIER", "VOLUMES", "FREE", "OF"]);
    for node in list(status, &["nodes"]) {
        nodes.add_row([
            text(node, "node"),
            text(node, "address"),
            yes(node, "alive"),
            text(node, "tier"),
            text(node, "volumes"),
            size(node, "free_bytes"),
            size(node, "total_bytes"),
        ]);
    }
    let mut tenants = table(&["TENANT", "FILES", "DIRECTORIES", "LOGICAL SIZE"]);
    for tenant in list(status, &["filer", "tenants"]) {
        tenants.add_row([
            text(tenant, "name"),
            text(tenant, "files"),
            text(tenant, "directories"),
            size(tenant, "logical_bytes"),
        ]);
    }
    out.line(format_args!("\n{}", masters.trim_fmt()))?;
    out.line(format_args!("\n{}", nodes.trim_fmt()))?;
    for line in without_new_volumes(status) {
        out.line(format_args!("{line}"))?;
    }
    let Some(filer) = at(status, &["filer"]).filter(|filer| filer.is_object()) else { return Ok(()) };
    out.line(format_args!("\n{}", tenants.trim_fmt()))?;
    out.line(format_args!(
        "\nmetadata    {} contents owned, {} references, {} copies ({}), {} to be collected; {} index",
        text(filer, "contents_owned"),
        text(filer, "references"),
        text(filer, "copies"),
        size(filer, "copy_bytes"),
        text(filer, "delete_queue"),
        text(filer, "path_index_mode")
    ))
}

fn summary(status: &Value) -> Vec<String> {
    let volumes = at(status, &["volumes"]).unwrap_or(&Value::Null);
    let mut lines = vec![
        format!("cluster     {}", text(status, "cluster")),
        format!("state       {}", readiness(status)),
        format!("durability  {}", text(status, "durability")),
        format!("replicas    {}", text(status, "replicas")),
        format!(
            "volumes     {} writable, {} sealed, {} being created",
            text(volumes, "writable"),
            text(volumes, "sealed"),
            text(volumes, "creating")
        ),
    ];
    if let Some(lacking) =
        volumes.get("lacking_copies").and_then(Value::as_u64).filter(|lacking| *lacking > 0)
    {
        let first: Vec<String> =
            list(volumes, &["lacking_copies_first"]).iter().map(ToString::to_string).collect();
        let more = if lacking > first.len() as u64 { ", …" } else { "" };
        lines.push(format!(
            "            {lacking} lack copies: `hay volume repair` {}{more}",
            first.join(", ")
        ));
    }
    let warnings = list(status, &["warnings"]).iter().filter_map(Value::as_str);
    lines.extend(warnings.map(|warning| format!("warning     {}", shown(warning))));
    lines
}

/// Of the servers that live.
fn without_new_volumes(status: &Value) -> Vec<String> {
    let lives = |node: &&Value| node.get("alive").and_then(Value::as_bool) == Some(true);
    let nodes = list(status, &["nodes"]).iter().filter(lives);
    let line = |node: &Value| {
        let reason = node.get("no_new_volumes").and_then(Value::as_str)?;
        Some(format!("{} gets no new volumes: {}", text(node, "address"), shown(reason)))
    };
    nodes.filter_map(line).collect()
}

fn readiness(status: &Value) -> String {
    if status.get("ready").and_then(Value::as_bool) == Some(true) {
        return "ready".to_owned();
    }
    let reasons: Vec<String> = list(status, &["not_ready"])
        .iter()
        .map(|part| format!("{}: {}", text(part, "role"), text(part, "reason")))
        .collect();
    format!("not ready ({})", reasons.join("; "))
}

fn yes(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_bool).map_or("-", |yes| if yes { "yes" } else { "no" }).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::scripted::{Act, answer, play};
    use hay_common::clock::SystemClock;
    use serde_json::json;

    #[test]
    fn what_an_operator_should_look_at_is_said() {
        let status = json!({
            "cluster": "c", "ready": true, "durability": "sync", "replicas": 2,
            "volumes": { "writable": 4, "sealed": 9, "creating": 0, "lacking_copies": 3, "lacking_copies_first": [4, 9] },
            "warnings": ["--replicas is not the same"],
            "nodes": [
                { "address": "a:1", "alive": true, "no_new_volumes": "its disk is full" },
                { "address": "b:1", "alive": true, "no_new_volumes": null },
                { "address": "c:1", "alive": false, "no_new_volumes": "it is not heard" },
            ],
        });
        let lines = summary(&status);
        assert_eq!(lines[3], "replicas    2");
        assert_eq!(lines[5], "            3 lack copies: `hay volume repair` 4, 9, …");
        assert_eq!(lines[6], "warning     --replicas is not the same");
        assert_eq!(without_new_volumes(&status), ["a:1 gets no new volumes: its disk is full"]);
    }

    #[tokio::test]
    async fn without_the_filer_it_is_said_who_does_not_answer() {
        let ready = br#"{"ready":false,"not_ready":[["filer","it does not answer"]]}"#;
        let (client, _) = play(vec![Act::Answer(answer("503 Service Unavailable", "", ready))]).await;
        let context = Context { client, out: Output::new(true), clock: SystemClock::shared() };
        let refused = br#"{"error":{"code":"unavailable","message":"the filer does not answer"}}"#;
        let stop = unknown(ApiError::from_body(503, refused), &context).await;
        let message = stop.message;
        assert!(message.contains("the filer does not answer") && message.contains("not ready"), "{message}");
    }
}
