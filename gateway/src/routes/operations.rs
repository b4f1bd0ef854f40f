//! What operators ask: whether it lives, whether it can work, how much it does.

use std::sync::Arc;
use std::time::Duration;

use hay_common::error::ErrorCode;
use http::StatusCode;
use metrics::{counter, gauge};
use serde::Serialize;

use crate::app::App;

use crate::reply::{self, Refusal, Reply};

/// A role that does not answer within this time is not ready.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer on readiness is given again.
const READY_KEPT: Duration = Duration::from_millis(250);

/// It answers: it lives.
pub(super) fn health() -> Reply {
    reply::text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".into())
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// (role, why it can't do its work).
    not_ready: Vec<(String, String)>,
}

/// 200 when every role can do its work, else 503 that names those that can't. Reasons name no tenant and no file, so
/// they are told without a token.
pub(super) async fn ready(app: &Arc<App>) -> Reply {
    let not_ready = recent_reasons(app).await;
    let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &Readiness { ready: not_ready.is_empty(), not_ready })
}

/// The same for all who ask within [`READY_KEPT`]: the question needs no token, so it must cost the roles little.
async fn recent_reasons(app: &App) -> Vec<(String, String)> {
    let mut kept = app.readiness.lock().await;
    let now = app.deps.clock.monotonic();
    if let Some((at, reasons)) = kept.as_ref()
        && now.saturating_sub(*at) < READY_KEPT
    {
        return reasons.clone();
    }
    let reasons = reasons(app).await;
    *kept = Some((app.deps.clock.monotonic(), reasons.clone()));
    reasons
}

/// Why which role can't do its work.
pub(crate) async fn reasons(app: &App) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let filer = async {
        match app.deps.filer.status().await {
            Ok(status) => status.not_ready.map_or(Ok(()), Err),
            Err(failure) => Err(failure.message),
        }
    };
    let master = async {
        app.deps.master.ready()?;
        match app.deps.master.cluster_status().await {
            Ok(status) => status.not_ready.map_or(Ok(()), Err),
            Err(failure) => Err(failure.message),
        }
    };
    let mut note = |role: &str, answer: Result<Result<(), String>, _>| match answer {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => found.push((role.to_owned(), reason)),
        Err(tokio::time::error::Elapsed { .. }) => {
            found.push((role.to_owned(), "it does not answer".to_owned()))
        }
    };
    note("filer", tokio::time::timeout(READY_PATIENCE, filer).await);
    note("master", tokio::time::timeout(READY_PATIENCE, master).await);
    for (role, check) in &app.deps.ready {
        note(role, tokio::time::timeout(READY_PATIENCE, check()).await);
    }
    found
}

/// Prometheus' text format.
pub(super) async fn metrics(app: &Arc<App>) -> Result<Reply, Refusal> {
    gauge!("hay_gateway_buffer_bytes").set((app.buffers.held() + app.heads.held()) as f64);
    gauge!("hay_gateway_buffer_peak_bytes").set((app.buffers.peak() + app.heads.peak()) as f64);
    gauge!("hay_gateway_set_aside_bytes").set(app.uploads.aside_bytes() as f64);
    counter!("hay_gateway_set_aside_total").absolute(app.uploads.times_aside());
    let working = app.config.requests_max.saturating_sub(app.requests.available_permits());
    let receiving = app.config.bodies_max.saturating_sub(app.bodies.available_permits());
    app.meters.requests.set((working + receiving) as f64);
    let handle = app.deps.metrics.clone();
    let text = tokio::task::spawn_blocking(move || {
        hay_common::process::observe();
        handle.render()
    })
    .await
    .map_err(|_| Refusal::new(ErrorCode::Internal, "the metrics could not be rendered"))?;
    Ok(reply::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
}
