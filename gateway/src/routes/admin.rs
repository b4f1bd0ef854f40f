//! What parts of the cluster look like, and what is done to them; for administrators, but for what a caller may know of
//! itself.

use std::sync::Arc;

use hay_client::filer::Usage;
use hay_client::master::{MasterMember, MastersChange, RepairCancelled, RepairStep, VolumeInfo};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::VolumeId;
use hay_common::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Authenticated;
use crate::reply::{self, Refusal, Reply};
use crate::request::query::Query;

pub(super) async fn whoami(app: &Arc<App>, caller: &Authenticated) -> Result<Reply, Refusal> {
    let who = app.whoami(caller).await?;
    let value = json!({
        "principal": who.principal.id,
        "tenant": who.principal.tenant,
        "tenant_name": who.tenant_name,
        "administrator": who.principal.administrator,
    });
    Ok(reply::json(StatusCode::OK, &value))
}

/// What the caller's own tenant stores.
pub(super) async fn usage(app: &Arc<App>, caller: &Authenticated) -> Result<Reply, Refusal> {
    let who = app.whoami(caller).await?;
    let status = app.deps.filer.status().await?;
    let own = status.tenants.iter().find(|u| u.tenant == who.principal.tenant);
    let own =
        own.ok_or_else(|| Failure::new(ErrorCode::Internal, "the filer counts nothing for this tenant"))?;
    Ok(reply::json(StatusCode::OK, &usage_json(own)))
}

/// Volumes in the order of their ids, paged by `after` and `limit`.
pub(super) async fn volumes(
    app: &Arc<App>,
    caller: &Authenticated,
    query: Option<&str>,
) -> Result<Reply, Refusal> {
    app.administrator(caller).await?;
    let query = Query::parse(query)?;
    let limit = query.count("limit", LIST_PAGE_DEFAULT, LIST_PAGE_MAX)?;
    let after = match query.text("after") {
        None | Some("") => VolumeId(0),
        Some(text) => volume_id(text)?,
    };
    let page = app.deps.master.volumes(after, u32::try_from(limit).unwrap_or(u32::MAX)).await?;
    let next = page.volumes.last().filter(|_| page.more).map(|v| v.id);
    let volumes: Vec<Value> = page.volumes.iter().map(volume_json).collect();
    Ok(reply::json(StatusCode::OK, &json!({ "volumes": volumes, "next": next, "version": page.version })))
}

pub(super) async fn volume(app: &Arc<App>, caller: &Authenticated, id: &str) -> Result<Reply, Refusal> {
    app.administrator(caller).await?;
    let id = volume_id(id)?;
    let found = app.deps.master.volume(id).await.map_err(|failure| match failure.code {
        // To a client it is not a stale location but a name of nothing.
        ErrorCode::VolumeNotFound => Failure::new(ErrorCode::NotFound, format!("there is no volume {id}")),
        _ => failure,
    })?;
    Ok(reply::json(StatusCode::OK, &volume_json(&found)))
}

/// Begins to bring a sealed volume back to its number of copies; with `dry_run=true` only says what would be done.
pub(super) async fn volume_repair(
    app: &Arc<App>,
    caller: &Authenticated,
    id: &str,
    query: Option<&str>,
) -> Result<Reply, Refusal> {
    app.administrator(caller).await?;
    let id = volume_id(id)?;
    let dry_run = Query::parse(query)?.flag("dry_run")?;
    let plan = app.deps.master.repair_volume(id, dry_run).await?;
    let step = |s: &RepairStep| {
        json!({
            "target": s.target,
            "address": s.address,
            "replaces": s.replaces,
            "in_place": s.in_place,
            "running": s.running,
            "problem": s.problem,
        })
    };
    let cancelled = |c: &RepairCancelled| json!({ "target": c.target, "address": c.address, "reason": c.reason, "stays": c.stays });
    let value = json!({
        "volume": id,
        "dry_run": dry_run,
        "whole": plan.whole,
        "wanted": plan.wanted,
        "unsure": plan.unsure,
        "cancelled": plan.cancelled.iter().map(cancelled).collect::<Vec<_>>(),
        "steps": plan.steps.iter().map(step).collect::<Vec<_>>(),
    });
    Ok(reply::json(StatusCode::OK, &value))
}

/// Gives the master that `master=` names a vote, or takes it out of the group; with `dry_run=true` only says what that would do.
pub(super) async fn change_masters(
    app: &Arc<App>,
    caller: &Authenticated,
    change: MastersChange,
    query: Option<&str>,
) -> Result<Reply, Refusal> {
    app.administrator(caller).await?;
    let query = Query::parse(query)?;
    let name = query.text("master").filter(|name| !name.is_empty()).ok_or_else(|| {
        Failure::new(
            ErrorCode::InvalidArgument,
            "name the master by its id or address, as in master=10.0.0.1:7001",
        )
    })?;
    let dry_run = query.flag("dry_run")?;
    let changed = app.deps.master.change_masters(name, change, dry_run).await?;
    let value = json!({
        "dry_run": dry_run,
        "master": master_json(&changed.master),
        "voters_before": changed.voters_before,
        "voters_after": changed.voters_after,
    });
    Ok(reply::json(StatusCode::OK, &value))
}

fn volume_id(text: &str) -> Result<VolumeId, Failure> {
    let bad = |_| Failure::new(ErrorCode::InvalidArgument, "a volume's id is a number");
    text.parse().map(VolumeId).map_err(bad)
}

pub(super) fn usage_json(usage: &Usage) -> Value {
    json!({
        "tenant": usage.tenant,
        "name": usage.name,
        "logical_bytes": usage.logical_bytes,
        "files": usage.files,
        "directories": usage.directories,
    })
}

pub(super) fn master_json(member: &MasterMember) -> Value {
    json!({
        // As text: many readers of JSON keep 53 bits of a number.
        "id": member.id.to_string(),
        "address": member.address,
        "leader": member.leader,
        "voter": member.voter,
        "lag": member.lag,
        "last_heard_ms_ago": member.heard_ms_ago,
        "problem": member.problem,
    })
}

fn volume_json(volume: &VolumeInfo) -> Value {
    let member = |m: &hay_client::master::VolumeMember| {
        json!({
            "node": m.node,
            "address": m.address,
            "filling": m.filling,
            "completing": m.completing,
            "alive": m.alive,
            "incomplete": m.incomplete,
            "problem": m.problem,
        })
    };
    json!({
        "id": volume.id,
        "epoch": volume.epoch,
        "class": volume.class,
        "state": volume.state,
        "members": volume.members.iter().map(member).collect::<Vec<_>>(),
        "size_bytes": volume.size_bytes,
        "needles": volume.needles,
        "garbage_bytes": volume.garbage_bytes,
        "collection": volume.collection,
        "tier": volume.tier,
        "read_only_reason": volume.read_only_reason,
    })
}
