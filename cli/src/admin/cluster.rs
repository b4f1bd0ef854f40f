//! `hay cluster status`.

use serde_json::Value;

use super::fields::{at, list, size, table, text};
use crate::output::Output;
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// Masters, volume servers and metadata at a glance.
pub async fn cluster_status(context: Context) -> Result<Exit, Stop> {
    let status = context.client.cluster().await?;
    if context.out.json() {
        context.out.value(&status)?;
    } else {
        print(context.out, &status)?;
    }
    Ok(Exit::Ok)
}

fn print(out: Output, status: &Value) -> std::io::Result<()> {
    out.line(format_args!("cluster     {}", text(status, "cluster")))?;
    out.line(format_args!("state       {}", readiness(status)))?;
    out.line(format_args!("durability  {}", text(status, "durability")))?;
    let volumes = at(status, &["volumes"]).unwrap_or(&Value::Null);
    out.line(format_args!(
        "volumes     {} writable, {} sealed, {} being created",
        text(volumes, "writable"),
        text(volumes, "sealed"),
        text(volumes, "creating")
    ))?;
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
    for table in [masters, nodes, tenants] {
        out.line(format_args!("\n{}", table.trim_fmt()))?;
    }
    let filer = at(status, &["filer"]).unwrap_or(&Value::Null);
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
