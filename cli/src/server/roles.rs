//! The four roles of one process, wired to each other by the direct binding. Nothing but the HTTP port is opened.

use std::sync::Arc;

use anyhow::Context;
use hay_client::{FilerClient, MasterClient, Peers, VolumeClient};
use hay_common::clock::SharedClock;
use hay_common::disk::SharedDisk;
use hay_common::ids::NodeId;
use hay_common::random::SharedRandom;
use hay_filer::{Filer, FilerConfig, FilerDeps, TokenHash};
use hay_gateway::{Gateway, GatewayConfig, GatewayDeps, ReadyCheck};
use hay_master::{Master, MasterConfig, MasterCore, MasterDeps};
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::{Guard, Peer, Role, direct_filer, direct_master, direct_volume};
use hay_volume_server::store::StoreConfig;
use hay_volume_server::{Deps as VolumeDeps, VolumeServer, VolumeServerConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::directory::DataDirectory;
use super::{Args, FIRST_TENANT};

/// The name under which the parts of this process find its volume server. No address: nothing listens there.
const IN_PROCESS: &str = "in-process";

/// What all roles are given from outside.
pub struct Environment {
    /// The disk.
    pub disk: SharedDisk,
    /// The clock.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Names the cluster, signs leases and credentials.
    pub key: Arc<ClusterKey>,
    /// Renders the metrics of all roles.
    pub metrics: PrometheusHandle,
}

/// The running roles.
pub struct Roles {
    gateway: Gateway,
    leases: MasterClient,
    filer: Arc<Filer>,
    volumes: Arc<VolumeServer>,
    master: Arc<MasterCore>,
}

impl Roles {
    /// Starts master, volume server, filer and gateway, in the order in which they need each other.
    ///
    /// # Errors
    /// Names the role that did not start, and why.
    pub async fn start(
        args: &Args,
        directory: &DataDirectory,
        env: Environment,
        listener: TcpListener,
        token: TokenHash,
    ) -> anyhow::Result<Self> {
        let cluster = env.key.cluster();
        let disk = env.disk.as_ref();
        let me = NodeId::from_random(env.random.u128());
        let guard = Arc::new(Guard::new(&env.key, env.clock.clone()));

        let config = MasterConfig {
            durability: args.durability.into(),
            replicas: Some(1),
            ..MasterConfig::sole(directory.role(disk, "master")?)
        };
        let deps = MasterDeps { disk: env.disk.clone(), clock: env.clock.clone(), key: env.key.clone() };
        let master = Master::start(config, deps).await.context("the master did not start")?;

        let volumes = start_volumes(args, directory, &env, &guard, &master).await?;
        let peers = Peers::new(None);
        let as_gateway = Peer { role: Role::Gateway, node: me };
        peers.register(IN_PROCESS, direct_volume(volumes.clone(), guard.clone(), as_gateway));

        let filer_config = FilerConfig {
            durability: args.durability.into(),
            cache_size_mb: args.cache_size_mb,
            free_space_reserve_bytes: args.free_space_reserve,
            ..FilerConfig::new(directory.role(disk, "filer")?, cluster)
        };
        let deps = FilerDeps { disk: env.disk.clone(), clock: env.clock.clone(), random: env.random.clone() };
        let filer = Filer::start(filer_config, deps).await.context("the filer did not start")?;
        filer.bootstrap(FIRST_TENANT, token).await.context("the first tenant can't be made")?;

        let leases = MasterClient::start(
            direct_master(master.clone(), guard.clone(), as_gateway),
            env.clock.clone(),
            env.random.clone(),
        );
        let paths = FilerClient::new(
            direct_filer(filer.clone(), guard, as_gateway),
            env.clock.clone(),
            env.random.clone(),
        );
        let deps = GatewayDeps {
            filer: paths,
            master: leases.clone(),
            volumes: VolumeClient::new(peers),
            disk: env.disk,
            clock: env.clock,
            random: env.random,
            metrics: env.metrics,
            ready: ready_checks(&master, &volumes, &filer),
        };
        // `--http` is what tells it: the default is loopback.
        let config = GatewayConfig {
            allow_plain_beyond_loopback: true,
            // Nothing in it outlives the process, so it is no role whose loss would matter.
            aside_dir: Some(directory.join("gateway").join("aside")),
            free_space_reserve_bytes: args.free_space_reserve,
            ..GatewayConfig::default()
        };
        let gateway = Gateway::start(config, deps, listener, CancellationToken::new())
            .await
            .context("the gateway did not start")?;
        Ok(Self { gateway, leases, filer, volumes, master })
    }

    /// Comes back when one of them can do nothing any more, and says which.
    pub async fn gone(&self) -> &'static str {
        tokio::select! {
            () = self.master.group().gone() => "the master's log has stopped",
            () = self.filer.gone() => "the filer's log has stopped",
            () = self.volumes.gone() => "a task of the volume server has ended",
        }
    }

    /// From the outside in: nothing new comes, what is in flight finds all parts still there.
    pub async fn shutdown(self) {
        self.gateway.shutdown().await;
        self.leases.shutdown().await;
        if let Err(error) = self.filer.shutdown().await {
            tracing::error!(%error, "the filer did not end in order; the next start recovers");
        }
        self.volumes.shutdown().await;
        self.master.shutdown().await;
    }
}

async fn start_volumes(
    args: &Args,
    directory: &DataDirectory,
    env: &Environment,
    guard: &Arc<Guard>,
    master: &Arc<MasterCore>,
) -> anyhow::Result<Arc<VolumeServer>> {
    let store = StoreConfig {
        durability: args.durability.into(),
        reserve_bytes: args.free_space_reserve,
        ..StoreConfig::new(directory.role(env.disk.as_ref(), "volume")?, env.key.cluster())
    };
    let config = VolumeServerConfig {
        store,
        address: IN_PROCESS.to_owned(),
        rack: String::new(),
        zone: String::new(),
        tier: "hot".to_owned(),
    };
    let (master, guard) = (master.clone(), guard.clone());
    let deps = VolumeDeps {
        disk: env.disk.clone(),
        clock: env.clock.clone(),
        random: env.random.clone(),
        lease_key: env.key.public(),
        master: Box::new(move |node| direct_master(master, guard, Peer { role: Role::VolumeServer, node })),
        // One server has one replica of everything.
        peers: Box::new(|_| Peers::new(None)),
    };
    VolumeServer::start(config, deps).await.context("the volume server did not start")
}

fn ready_checks(
    master: &Arc<MasterCore>,
    volumes: &Arc<VolumeServer>,
    filer: &Arc<Filer>,
) -> Vec<(String, ReadyCheck)> {
    fn check(
        role: &str,
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> (String, ReadyCheck) {
        let check: ReadyCheck = Arc::new(move || Box::pin(std::future::ready(ready())));
        (role.to_owned(), check)
    }
    let (master, volumes, filer) = (master.clone(), volumes.clone(), filer.clone());
    vec![
        check("master", move || master.ready()),
        check("volume server", move || volumes.ready()),
        check("filer", move || filer.ready()),
    ]
}
