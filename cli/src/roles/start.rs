//! What every role's process does before and after its own work.

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use hay_common::clock::{SharedClock, SystemClock};
use hay_common::disk::{RealDisk, SharedDisk};
use hay_common::ids::NodeId;
use hay_common::random::{SharedRandom, SystemRandom};
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::{Credentials, Guard, Peer, Role};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::flags::ProcessFlags;
use crate::server::process;
use crate::server::signals::Stop;

/// What a role works with.
pub struct Environment {
    pub disk: SharedDisk,
    pub clock: SharedClock,
    pub random: SharedRandom,
    /// Names the cluster, signs credentials and leases.
    pub key: Arc<ClusterKey>,
    /// Stands before this process's services.
    pub guard: Arc<Guard>,
    pub metrics: PrometheusHandle,
    pub stop: Stop,
}

impl Environment {
    /// Credentials of this process, in `role`, as `node`.
    pub fn credentials(&self, role: Role, node: NodeId) -> Credentials {
        Credentials::new(self.key.clone(), Peer { role, node }, self.clock.clone())
    }

    /// A name for a process that keeps none.
    pub fn new_node(&self) -> NodeId {
        NodeId::from_random(self.random.u128())
    }
}

/// Runs `role` on a runtime of its own until it ends.
pub fn run<F>(flags: &ProcessFlags, role: impl FnOnce(Environment) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Several roles share a machine more often than not, and one thread serves a role faster than two that wake each
    // other.
    let workers = if flags.workers == 0 { (cores / 2).max(1) } else { flags.workers };
    process::run(flags.log_format, workers, async {
        let clock = SystemClock::shared();
        let stop = Stop::listen(clock.clone()).context("signals can't be received")?;
        let disk: SharedDisk = RealDisk::shared();
        let random = SystemRandom::shared().context("the kernel gives no randomness")?;
        let key = Arc::new(load_key(&disk, &flags.cluster_key).await?);
        let guard = Arc::new(Guard::new(&key, clock.clone()));
        let metrics = PrometheusBuilder::new().install_recorder().context("metrics can't be recorded")?;
        let early = stop.early()?;
        early.or(role(Environment { disk, clock, random, key, guard, metrics, stop })).await
    })
}

async fn load_key(disk: &SharedDisk, path: &Path) -> anyhow::Result<ClusterKey> {
    let (disk, path) = (disk.clone(), path.to_owned());
    tokio::task::spawn_blocking(move || {
        if let Ok(metadata) = std::fs::metadata(&path) {
            let mode = metadata.mode() & 0o777;
            anyhow::ensure!(
                mode & 0o077 == 0,
                "the cluster key {0} can be read by others (mode {mode:04o}), and whoever has it can act as any part of the \
                 cluster: run `chmod 600 {0}`",
                path.display()
            );
        }
        ClusterKey::load(disk.as_ref(), &path)?.with_context(|| {
            format!(
                "there is no cluster key {}: `hay cluster new-key {0}` makes one, for all processes of a new cluster",
                path.display()
            )
        })
    })
    .await?
}

/// Fails where several of a role are named that has no group yet: they would not know of each other.
pub fn only_one(flag: &str, addresses: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(
        addresses.len() == 1,
        "{flag} names {}, and there can be only one so far",
        addresses.len()
    );
    Ok(())
}

/// Waits until it is told to stop, then for `end`; a second signal ends it at once. When something that it can't be without
/// is `gone`, which says what, it fails.
pub async fn until_stopped(
    mut stop: Stop,
    gone: impl Future<Output = &'static str>,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let signal = tokio::select! {
        signal = stop.wait() => signal,
        what = gone => anyhow::bail!("{what}: see the log; the next start recovers"),
    };
    tracing::info!(signal, "stopping: finishing what is in flight");
    tokio::select! {
        () = end => Ok(()),
        signal = stop.wait() => anyhow::bail!("{signal} came again: stopped at once; the next start recovers"),
    }
}
