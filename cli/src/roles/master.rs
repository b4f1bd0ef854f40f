//! `hay master`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hay_master::{Master, MasterConfig, MasterDeps};
use hay_proto::rpc::{serve_master, transport};

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
  hay master --dir ./master --cluster-key ./cluster.key")]
pub struct MasterArgs {
    /// The address of its gRPC port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001", env = "HAY_LISTEN")]
    pub listen: SocketAddr,
    /// On how many volume servers a new volume is kept: one, until replication is there
    #[arg(long, value_name = "N", env = "HAY_REPLICAS", value_parser = clap::value_parser!(u8).range(1..=1))]
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
    let master = Master::start(config, deps).await.context("the master did not start")?;
    directory.complete(env.disk.as_ref())?;
    let address = port.address.clone();
    let serving = port.serve(transport::server().add_service(serve_master(master.clone(), env.guard)));
    let ready = master.clone();
    operations::serve(&args.process, "master", env.metrics, Arc::new(move || ready.ready())).await?;
    tracing::info!(address, "the master serves");
    until_stopped(env.stop, async {
        master.shutdown().await;
        serving.stop().await;
    })
    .await
}
