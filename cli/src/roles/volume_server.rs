//! `hay volume-server`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hay_client::Peers;
use hay_client::group::{Members, masters};
use hay_proto::rpc::{Credentials, Peer, Role, serve_volume, transport};
use hay_volume_server::store::StoreConfig;
use hay_volume_server::{Deps, VolumeServer, VolumeServerConfig};

use super::flags::{ProcessFlags, ServiceFlags, StorageFlags};
use super::listen::Port;
use super::operations;
use super::start::{Environment, run as run_role, until_stopped};
use crate::server::directory::DataDirectory;

/// Flags of `hay volume-server`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  hay volume-server --dir ./volumes --cluster-key ./cluster.key --masters 127.0.0.1:7001 --rack a")]
pub struct VolumeServerArgs {
    /// The address of its gRPC port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7002", env = "HAY_LISTEN")]
    pub listen: SocketAddr,
    /// The masters, all of them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true, env = "HAY_MASTERS")]
    pub masters: Vec<String>,
    /// The rack that it stands in: replicas go to different ones
    #[arg(long, value_name = "NAME", default_value = "", env = "HAY_RACK")]
    pub rack: String,
    /// The zone that the rack is in: replicas go to different ones
    #[arg(long, value_name = "NAME", default_value = "", env = "HAY_ZONE")]
    pub zone: String,
    /// What its disk is: hot, warm or cold
    #[arg(long, value_name = "TIER", default_value = "hot", value_parser = ["hot", "warm", "cold"], env = "HAY_TIER")]
    pub tier: String,
    /// Flags of the roles that are called.
    #[command(flatten)]
    pub service: ServiceFlags,
    /// Flags of the roles that store.
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Flags of every role.
    #[command(flatten)]
    pub process: ProcessFlags,
}

/// Runs a volume server until it is told to stop.
///
/// # Errors
/// Names what could not be started.
pub fn run(args: VolumeServerArgs) -> anyhow::Result<()> {
    let flags = args.process.clone();
    run_role(&flags, |env| serve(args, env))
}

async fn serve(args: VolumeServerArgs, env: Environment) -> anyhow::Result<()> {
    let members = Members::at(&args.masters).context("--masters")?;
    let port = Port::take(args.listen, args.service.advertise.as_deref(), &args.process).await?;
    let mut directory = DataDirectory::open(env.disk.as_ref(), &args.service.dir)?;
    let store = StoreConfig {
        durability: args.service.durability.into(),
        reserve_bytes: args.storage.free_space_reserve,
        ..StoreConfig::new(directory.role(env.disk.as_ref(), "volume")?, env.key.cluster())
    };
    let config = VolumeServerConfig {
        store,
        address: port.address.clone(),
        rack: args.rack,
        zone: args.zone,
        tier: args.tier,
    };
    let (key, clock, random) = (env.key.clone(), env.clock.clone(), env.random.clone());
    // The id that it signs with is known only once its directory is open.
    let sign = move |node| Credentials::new(key, Peer { role: Role::VolumeServer, node }, clock);
    let (as_client, as_peer) = (sign.clone(), sign);
    let clock = env.clock.clone();
    let deps = Deps {
        disk: env.disk.clone(),
        clock: env.clock.clone(),
        random: env.random.clone(),
        lease_key: env.key.public(),
        master: Box::new(move |node| masters(members, &as_client(node), clock, random)),
        peers: Box::new(move |node| Peers::new(Some(as_peer(node)))),
    };
    let volumes = VolumeServer::start(config, deps).await.context("the volume server did not start")?;
    directory.complete(env.disk.as_ref())?;
    let ready = volumes.clone();
    operations::serve(&args.process, "volume server", env.metrics, Arc::new(move || ready.ready())).await?;
    let address = port.address.clone();
    let serving = port.serve(transport::server().add_service(serve_volume(volumes.clone(), env.guard)));
    tracing::info!(address, node = %volumes.node(), "the volume server serves");
    let (port, tasks) = (serving.gone(), volumes.gone());
    let gone = async {
        tokio::select! {
            what = port => what,
            () = tasks => "a task of the volume server has ended",
        }
    };
    until_stopped(env.stop, gone, async {
        serving.stop().await;
        volumes.shutdown().await;
    })
    .await
}
