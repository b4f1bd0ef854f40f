//! What a filer does by itself: log time, draining, expiry, a look at the disk. Each task ends when the filer does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{FREE_SPACE_CHECK, LOG_TIME_JUMP_MAX, LOG_TIME_TICK};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::core::Core;
use crate::namespace::apply::Refusal;
use crate::namespace::command::{Op, Reply};
use crate::namespace::query::sums;
use crate::store::Effort;

/// After a command the drainer waits so long for more of them.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);
/// After a failure a task waits so long.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Starts the tasks.
pub(super) fn start(core: &Arc<Core>, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(until_stop(stop.clone(), tick(core.clone()))),
        tokio::spawn(until_stop(stop.clone(), drain(core.clone()))),
        tokio::spawn(until_stop(stop.clone(), look_at_space(core.clone()))),
    ]
}

async fn until_stop(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Whether it is somebody else's turn: then nothing is wrong.
fn not_leading(failure: &Failure) -> bool {
    failure.code == ErrorCode::NotLeader
}

async fn tick(core: Arc<Core>) {
    let mut behind_before = false;
    loop {
        let pause = match tick_once(&core, &mut behind_before).await {
            Ok(()) => LOG_TIME_TICK,
            Err(failure) => {
                if !not_leading(&failure) {
                    tracing::warn!(%failure, "the log time did not move on");
                }
                RETRY_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn tick_once(core: &Core, behind_before: &mut bool) -> Result<(), Failure> {
    let Reply::Ticked { behind_ms, log_ms } = core.propose(Op::Tick).await? else {
        return Err(super::core::unexpected());
    };
    core.ticked.store(true, Ordering::Release);
    metrics::gauge!("hay_filer_log_time_behind_ms").set(behind_ms as f64);
    if behind_ms > 0 {
        metrics::counter!("hay_filer_log_time_jumps_cut_total").increment(1);
        if !*behind_before {
            tracing::warn!(
                behind_ms,
                log_ms,
                step_ms = LOG_TIME_JUMP_MAX.as_millis() as u64,
                "the clock is far ahead of the log time (a long standstill, or a wrong clock): it is followed step by step"
            );
        }
    }
    *behind_before = behind_ms > 0;
    while let Reply::Swept { more: true, .. } = core.propose(Op::Expire).await? {
        tokio::task::yield_now().await;
    }
    report(core).await
}

async fn report(core: &Core) -> Result<(), Failure> {
    let sums = core.reader.query(Effort::Small, |rows| sums(rows).map_err(Refusal::from)).await?;
    let counters = sums.counters;
    metrics::gauge!("hay_filer_contents_owned").set(counters.contents_owned as f64);
    metrics::gauge!("hay_filer_references").set(counters.references as f64);
    metrics::gauge!("hay_filer_copies").set(counters.copies as f64);
    metrics::gauge!("hay_filer_delete_queue").set(counters.delete_queue as f64);
    metrics::gauge!("hay_filer_manifests_unpublished").set(counters.manifests_unpublished as f64);
    metrics::gauge!("hay_filer_manifests_draining").set(counters.manifests_draining as f64);
    metrics::gauge!("hay_filer_sessions").set(counters.sessions as f64);
    Ok(())
}

async fn drain(core: Arc<Core>) {
    loop {
        if let Err(failure) = drain_all(&core).await {
            if !not_leading(&failure) {
                tracing::warn!(%failure, "references of removed files were not dropped; they will be later");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        }
        core.to_drain.notified().await;
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
}

pub(super) async fn drain_all(core: &Core) -> Result<(), Failure> {
    loop {
        // A look is cheap; a command is a sync.
        let sums = core.reader.query(Effort::Small, |rows| sums(rows).map_err(Refusal::from)).await?;
        if sums.counters.manifests_draining == 0 {
            return Ok(());
        }
        let Reply::Swept { done, more } = core.propose(Op::Drain).await? else {
            return Err(super::core::unexpected());
        };
        if done == 0 && !more {
            // Going on would be a command after the other for nothing; the reconciler puts the counter right.
            tracing::error!(
                counted = sums.counters.manifests_draining,
                "manifests are counted as draining, but none waits to be drained"
            );
            return Ok(());
        }
        metrics::counter!("hay_filer_references_drained_total").increment(done);
    }
}

async fn look_at_space(core: Arc<Core>) {
    loop {
        tokio::time::sleep(FREE_SPACE_CHECK).await;
        let core = core.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || core.reserve.look()).await {
            tracing::error!(%error, "looking at the free space failed");
        }
    }
}
