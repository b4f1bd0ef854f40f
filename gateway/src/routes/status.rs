//! The cluster at a glance. A part that does not answer is named, and the rest is told all the same.

use std::sync::Arc;

use hay_client::filer::FilerStatus;
use hay_client::master::{ClusterStatus, NodeStatus};
use hay_common::error::Failure;
use http::StatusCode;
use serde_json::{Value, json};

use super::admin::{master_json, usage_json};
use super::operations::reasons;
use crate::app::App;
use crate::auth::Authenticated;
use crate::reply::{self, Refusal, Reply};

pub(crate) async fn cluster_status(app: &Arc<App>, caller: &Authenticated) -> Result<Reply, Refusal> {
    app.administrator(caller).await?;
    let (cluster, filer) = tokio::join!(app.deps.master.cluster_status(), app.deps.filer.status());
    let mut not_ready = reasons(app).await;
    note(&mut not_ready, "master", cluster.as_ref().err());
    note(&mut not_ready, "filer", filer.as_ref().err());
    let not_ready: Vec<Value> =
        not_ready.into_iter().map(|(role, reason)| json!({ "role": role, "reason": reason })).collect();
    let (cluster, filer) = match (cluster, filer) {
        (Err(failure), Err(_)) => return Err(failure.into()),
        (cluster, filer) => (cluster.ok(), filer.ok()),
    };
    let of_masters = |status: &ClusterStatus| {
        json!({
            "raft_term": status.raft_term,
            "raft_applied": status.raft_applied,
            "durability": status.durability,
            "problem": status.masters_problem,
        })
    };
    let value = json!({
        "cluster": cluster.as_ref().map(|status| status.cluster).or(filer.as_ref().map(|status| status.cluster)),
        "ready": not_ready.is_empty(),
        "not_ready": not_ready,
        "warnings": cluster.as_ref().map(|status| &status.warnings),
        "durability": filer.as_ref().map(|status| &status.durability),
        "replicas": cluster.as_ref().map(|status| status.replicas),
        "masters": cluster.as_ref().map(|status| status.masters.iter().map(master_json).collect::<Vec<_>>()),
        "nodes": cluster.as_ref().map(nodes_json),
        "volumes": cluster.as_ref().map(volumes_json),
        "master": cluster.as_ref().map(of_masters),
        "filer": filer.as_ref().map(filer_json),
        "gateway": {
            "version": env!("CARGO_PKG_VERSION"),
            "buffer_bytes": app.buffers.held(),
            "buffer_peak_bytes": app.buffers.peak(),
        },
    });
    Ok(reply::json(StatusCode::OK, &value))
}

/// One that has failed here, and had not or not yet when it was asked whether it is ready.
fn note(not_ready: &mut Vec<(String, String)>, role: &str, failure: Option<&Failure>) {
    if let Some(failure) = failure
        && not_ready.iter().all(|(named, _)| named != role)
    {
        not_ready.push((role.to_owned(), failure.message.clone()));
    }
}

fn volumes_json(cluster: &ClusterStatus) -> Value {
    let lacking = (!cluster.servers_unknown).then_some(cluster.volumes_lacking);
    json!({
        "writable": cluster.volumes_writable,
        "sealed": cluster.volumes_sealed,
        "creating": cluster.volumes_creating,
        "lacking_copies": lacking,
        "lacking_copies_first": cluster.lacking,
    })
}

fn nodes_json(cluster: &ClusterStatus) -> Vec<Value> {
    let node = |n: &NodeStatus| {
        let known = !cluster.servers_unknown;
        json!({
            "node": n.node,
            "address": n.address,
            "rack": n.rack,
            "zone": n.zone,
            "tier": n.tier,
            "alive": known.then_some(n.alive),
            // The largest number stands for never.
            "last_heard_ms_ago": Some(n.last_heard_ms_ago).filter(|ms| known && *ms != u64::MAX),
            "free_bytes": known.then_some(n.free_bytes),
            "free_space_reserve_bytes": known.then_some(n.reserve_bytes),
            "total_bytes": known.then_some(n.total_bytes),
            "volumes": known.then_some(n.volumes),
            "no_new_volumes": n.no_new_volumes,
        })
    };
    cluster.nodes.iter().map(node).collect()
}

fn filer_json(filer: &FilerStatus) -> Value {
    json!({
        "raft_term": filer.raft_term,
        "raft_applied": filer.raft_applied,
        "log_time_ms": filer.log_time_ms,
        "durability": filer.durability,
        "path_index_mode": filer.path_index_mode,
        "tenants": filer.tenants.iter().map(usage_json).collect::<Vec<_>>(),
        "contents_owned": filer.contents_owned,
        "references": filer.references,
        "copies": filer.copies,
        "copy_bytes": filer.copy_bytes,
        "delete_queue": filer.delete_queue,
        "manifests_unpublished": filer.manifests_unpublished,
        "manifests_draining": filer.manifests_draining,
        "sessions": filer.sessions,
    })
}
