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
    let master = at(status, &["master"]).unwrap_or(status);
    out.line(format_args!("cluster     {}", text(master, "cluster")))?;
    out.line(format_args!("durability  {}", text(master, "durability")))?;
    out.line(format_args!("masters     {}", readiness(master)))?;
    let mut masters = table(&["  ID", "ADDRESS", "LEADER", "VOTER"]);
    for member in list(master, &["masters"]) {
        masters.add_row(vec![
            format!("  {}", text(member, "id")),
            text(member, "address"),
            yes(member, "leader"),
            yes(member, "voter"),
        ]);
    }
    out.line(masters)?;
    out.line(format_args!(
        "volumes     {} writable, {} sealed, {} being created",
        text(master, "volumes_writable"),
        text(master, "volumes_sealed"),
        text(master, "volumes_creating")
    ))?;
    let mut nodes = table(&["  NODE", "ADDRESS", "ALIVE", "TIER", "VOLUMES", "FREE", "OF"]);
    for node in list(master, &["nodes"]) {
        nodes.add_row(vec![
            format!("  {}", text(node, "node")),
            text(node, "address"),
            yes(node, "alive"),
            text(node, "tier"),
            text(node, "volumes"),
            size(node, "free_bytes"),
            size(node, "total_bytes"),
        ]);
    }
    out.line(nodes)?;
    if let Some(filer) = at(status, &["filer"]) {
        print_filer(out, filer)?;
    }
    Ok(())
}

fn print_filer(out: Output, filer: &Value) -> std::io::Result<()> {
    out.line(format_args!("metadata    {}", readiness(filer)))?;
    for (name, field) in [
        ("contents owned", "contents_owned"),
        ("references", "references"),
        ("copies", "copies"),
        ("delete queue", "delete_queue"),
        ("sessions", "sessions"),
        ("path index", "path_index_mode"),
    ] {
        out.line(format_args!("  {name:<16}{}", text(filer, field)))?;
    }
    let mut tenants = table(&["  TENANT", "FILES", "DIRECTORIES", "LOGICAL SIZE"]);
    for tenant in list(filer, &["tenants"]) {
        tenants.add_row(vec![
            format!("  {}", text(tenant, "name")),
            text(tenant, "files"),
            text(tenant, "directories"),
            size(tenant, "logical_bytes"),
        ]);
    }
    out.line(tenants)
}

fn readiness(part: &Value) -> String {
    match part.get("ready").and_then(Value::as_bool) {
        Some(true) => "ready".to_owned(),
        Some(false) => format!("not ready: {}", text(part, "not_ready_reason")),
        None => "-".to_owned(),
    }
}

fn yes(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_bool).map_or("-", |yes| if yes { "yes" } else { "no" }).to_owned()
}
