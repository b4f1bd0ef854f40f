//! `hay master`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hay_consensus::{GrpcTransport, RaftEndpoint};
use hay_master::{Master, MasterConfig, MasterDeps, MasterNetwork};
use hay_proto::rpc::{Role, serve_master, serve_raft, transport};

use super::flags::{ProcessFlags, ServiceFlags};
use super::listen::Port;
use super::operations;
use super::start::{Environment, run as run_role, until_stopped};
use crate::server::directory::DataDirectory;

/// Flags of `hay master`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  hay cluster new-key ./cluster.key
  hay master --dir ./master --cluster-key ./cluster.key --replicas 2

Three masters, of which one may fail, on three machines:
  hay master --dir /srv/master --cluster-key /etc/haystore/cluster.key --insecure-no-tls --listen 10.0.0.1:7001 \\
      --replicas 2 --peers 10.0.0.1:7001,10.0.0.2:7001,10.0.0.3:7001

A group is formed once, when all of the list are there and none has been part of one. Give all masters the same --replicas:
whoever leads sets it, and without it what is stored stands on one server only.")]
pub struct MasterArgs {
    /// The address of its gRPC port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001", env = "HAY_LISTEN")]
    pub listen: SocketAddr,
    /// All masters of the cluster, this one too, by the addresses that they advertise; the same list for each of them.
    /// None: this is the only one
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', env = "HAY_PEERS")]
    pub peers: Vec<String>,
    /// On how many volume servers a new volume is kept. What is set stays where this is not given; 1 at first
    #[arg(long, value_name = "N", env = "HAY_REPLICAS", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub replicas: Option<u8>,
    /// Flags of the roles that are called.
    #[command(flatten)]
    pub service: ServiceFlags,
    /// Flags of every role.
    #[command(flatten)]
    pub process: ProcessFlags,
}

/// Runs a master until it is told to stop.
///
/// # Errors
/// Names what could not be started.
pub fn run(args: MasterArgs) -> anyhow::Result<()> {
    let flags = args.process.clone();
    run_role(&flags, |env| serve(args, env))
}

async fn serve(args: MasterArgs, env: Environment) -> anyhow::Result<()> {
    let port = Port::take(args.listen, args.service.advertise.as_deref(), &args.process).await?;
    let mut directory = DataDirectory::open(env.disk.as_ref(), &args.service.dir)?;
    let config = MasterConfig {
        address: port.address.clone(),
        durability: args.service.durability.into(),
        replicas: args.replicas,
        ..MasterConfig::sole(directory.role(env.disk.as_ref(), "master")?)
    };
    let deps = MasterDeps { disk: env.disk.clone(), clock: env.clock.clone(), key: env.key.clone() };
    let endpoint = RaftEndpoint::new();
    let master = if args.peers.is_empty() {
        Master::start(config, deps).await
    } else {
        anyhow::ensure!(
            args.peers.contains(&port.address),
            "--peers must name this master too, as {}: the address that it advertises",
            port.address
        );
        let credentials = env.credentials(Role::Master, env.new_node());
        let transport = GrpcTransport::shared(credentials);
        Master::join(config, deps, MasterNetwork { peers: args.peers, random: env.random.clone(), transport })
            .await
    };
    let master = master.context("the master did not start")?;
    endpoint.add(Role::Master, master.group().clone());
    directory.complete(env.disk.as_ref())?;
    let ready = master.clone();
    operations::serve(&args.process, "master", env.metrics, Arc::new(move || ready.serves())).await?;
    let address = port.address.clone();
    let services = transport::server()
        .add_service(serve_master(master.clone(), env.guard.clone()))
        .add_service(serve_raft(endpoint, env.guard));
    let serving = port.serve(services);
    tracing::info!(address, "the master serves");
    let group = master.group().clone();
    let port_gone = serving.gone();
    let gone = async {
        tokio::select! {
            what = port_gone => what,
            () = group.gone() => "the masters' group has stopped",
        }
    };
    until_stopped(env.stop, gone, async {
        master.shutdown().await;
        serving.stop().await;
    })
    .await
}
