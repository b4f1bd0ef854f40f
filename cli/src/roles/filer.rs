//! `hay filer`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hay_filer::{Filer, FilerConfig, FilerDeps, TokenHash};
use hay_proto::rpc::{serve_filer, transport};

use super::flags::{ProcessFlags, ServiceFlags, StorageFlags};
use super::listen::Port;
use super::operations;
use super::start::{Environment, run as run_role, until_stopped};
use crate::server::FIRST_TENANT;
use crate::server::directory::{Credentials, DataDirectory};

/// Flags of `hay filer`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  hay filer --dir ./filer --cluster-key ./cluster.key --gateway http://127.0.0.1:8080

The first start makes the tenant `default` and writes DIR/credentials.toml with its administrator's token.")]
pub struct FilerArgs {
    /// The address of its gRPC port; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7003", env = "HAY_LISTEN")]
    pub listen: SocketAddr,
    /// The HTTP address of a gateway, for the credentials file
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "HAY_GATEWAY")]
    pub gateway: String,
    /// Memory for the path index's block cache, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, env = "HAY_CACHE_SIZE_MB")]
    pub cache_size_mb: usize,
    /// Write a new administrator's token where DIR/credentials.toml was lost. Older tokens stay good
    #[arg(long)]
    pub new_token: bool,
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

/// Runs a filer until it is told to stop.
///
/// # Errors
/// Names what could not be started.
pub fn run(args: FilerArgs) -> anyhow::Result<()> {
    let flags = args.process.clone();
    run_role(&flags, |env| serve(args, env))
}

async fn serve(args: FilerArgs, env: Environment) -> anyhow::Result<()> {
    let port = Port::take(args.listen, args.service.advertise.as_deref(), &args.process).await?;
    let mut directory = DataDirectory::open(env.disk.as_ref(), &args.service.dir)?;
    let credentials = Credentials::of_directory(
        env.disk.as_ref(),
        &directory,
        &args.gateway,
        args.new_token,
        env.random.as_ref(),
    )?;
    let config = FilerConfig {
        address: port.address.clone(),
        durability: args.service.durability.into(),
        cache_size_mb: args.cache_size_mb,
        free_space_reserve_bytes: args.storage.free_space_reserve,
        ..FilerConfig::new(directory.role(env.disk.as_ref(), "filer")?, env.key.cluster())
    };
    let deps = FilerDeps { disk: env.disk.clone(), clock: env.clock.clone(), random: env.random.clone() };
    let filer = Filer::start(config, deps).await.context("the filer did not start")?;
    let token = TokenHash(credentials.token_hash());
    filer.bootstrap(FIRST_TENANT, token).await.context("the first tenant can't be made")?;
    directory.complete(env.disk.as_ref())?;
    let ready = filer.clone();
    operations::serve(&args.process, "filer", env.metrics, Arc::new(move || ready.ready())).await?;
    let address = port.address.clone();
    let serving = port.serve(transport::server().add_service(serve_filer(filer.clone(), env.guard)));
    tracing::info!(address, "the filer serves");
    let port_gone = serving.gone();
    let gone = async {
        tokio::select! {
            what = port_gone => what,
            () = filer.gone() => "the filer's log has stopped",
        }
    };
    until_stopped(env.stop, gone, async {
        serving.stop().await;
        if let Err(error) = filer.shutdown().await {
            tracing::error!(%error, "the filer did not end in order; the next start recovers");
        }
    })
    .await
}
