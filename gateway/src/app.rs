//! What all requests of a gateway share.

use std::sync::Arc;

use hay_client::filer::TokenHash;
use hay_common::error::{ErrorCode, Failure};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticated;
use crate::config::{GatewayConfig, GatewayDeps};
use crate::memory::downloads::DownloadMemory;
use crate::memory::gauge::BufferGauge;
use crate::memory::uploads::UploadMemory;
use crate::meters::Meters;

/// The parts and the budgets of one gateway.
pub(crate) struct App {
    pub(crate) config: GatewayConfig,
    pub(crate) deps: GatewayDeps,
    pub(crate) uploads: UploadMemory,
    pub(crate) downloads: DownloadMemory,
    pub(crate) buffers: BufferGauge,
    pub(crate) meters: Meters,
    /// One permit for each request in work.
    pub(crate) requests: Arc<Semaphore>,
    /// Connections and uploads: a shutdown waits for them.
    pub(crate) tasks: TaskTracker,
}

impl App {
    pub(crate) fn new(config: GatewayConfig, deps: GatewayDeps) -> Arc<Self> {
        let buffers = BufferGauge::default();
        Arc::new(Self {
            uploads: UploadMemory::new(config.ledger(), deps.clock.clone(), buffers.clone()),
            downloads: DownloadMemory::new(config.download_budget_bytes, buffers.clone()),
            buffers,
            meters: Meters::new(),
            requests: Arc::new(Semaphore::new(config.requests_max)),
            tasks: TaskTracker::new(),
            config,
            deps,
        })
    }

    /// The caller's token, checked by nothing but whoami, for what asks the filer nothing else.
    pub(crate) async fn whoami(&self, caller: &Authenticated) -> Result<hay_client::filer::Whoami, Failure> {
        self.deps.filer.whoami(token(caller)).await
    }

    /// Lets only the administrator of the cluster through.
    pub(crate) async fn administrator(&self, caller: &Authenticated) -> Result<(), Failure> {
        if self.whoami(caller).await?.principal.administrator {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::Forbidden, "only the cluster's administrator may see this"))
    }
}

/// The caller as inner calls name it.
pub(crate) fn token(caller: &Authenticated) -> TokenHash {
    TokenHash(caller.token_hash())
}
