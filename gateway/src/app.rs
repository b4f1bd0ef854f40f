//! What all requests of a gateway share.

use std::sync::Arc;
use std::time::Duration;

use hay_client::Writer;
use hay_client::filer::TokenHash;
use hay_common::error::{ErrorCode, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticated;
use crate::config::{GatewayConfig, GatewayDeps};
use crate::ingest::body::{BodyRules, EndMark, STOPPING_PATIENCE};
use crate::memory::aside::AsideRoom;
use crate::memory::downloads::DownloadMemory;
use crate::memory::gauge::BufferGauge;
use crate::memory::uploads::UploadMemory;
use crate::meters::Meters;

/// When roles were asked whether they can work, and those that can't: (role, why).
pub(crate) type Readiness = (Duration, Vec<(String, String)>);

/// The parts and the budgets of one gateway.
pub(crate) struct App {
    pub(crate) config: GatewayConfig,
    pub(crate) deps: GatewayDeps,
    /// Stores chunks, over what `deps` has.
    pub(crate) writer: Writer,
    pub(crate) uploads: UploadMemory,
    pub(crate) downloads: DownloadMemory,
    pub(crate) buffers: BufferGauge,
    pub(crate) meters: Meters,
    /// Bytes of heads that are not complete.
    pub(crate) heads: BufferGauge,
    /// One permit for each request in work.
    pub(crate) requests: Arc<Semaphore>,
    /// One permit for each upload that is being received: clients that send slowly take no place from others.
    pub(crate) bodies: Arc<Semaphore>,
    /// What was said of readiness last.
    pub(crate) readiness: tokio::sync::Mutex<Option<Readiness>>,
    /// Cancelled when the server is being stopped.
    pub(crate) stopping: CancellationToken,
    /// Connections and uploads: a shutdown waits for them.
    pub(crate) tasks: TaskTracker,
}

impl App {
    pub(crate) fn new(
        config: GatewayConfig,
        deps: GatewayDeps,
        aside: Option<AsideRoom>,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        let buffers = BufferGauge::default();
        Arc::new(Self {
            uploads: UploadMemory::new(config.ledger(), deps.clock.clone(), buffers.clone(), aside),
            downloads: DownloadMemory::new(config.download_budget_bytes, buffers.clone()),
            writer: Writer::new(deps.master.clone(), deps.volumes.clone(), deps.random.clone()),
            buffers,
            meters: Meters::new(),
            heads: BufferGauge::default(),
            requests: Arc::new(Semaphore::new(config.requests_max)),
            bodies: Arc::new(Semaphore::new(config.bodies_max)),
            readiness: tokio::sync::Mutex::new(None),
            stopping,
            tasks: TaskTracker::new(),
            config,
            deps,
        })
    }

    /// A place among the requests in work.
    ///
    /// # Errors
    /// `overloaded` when all are taken.
    pub(crate) fn enter(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(places)
            .try_acquire_owned()
            .map_err(|_| Failure::new(ErrorCode::Overloaded, "too many requests are in work: try again"))
    }

    /// Whether the server is being stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// What a body that comes in this version of HTTP must keep to.
    pub(crate) fn body_rules(&self, version: http::Version) -> BodyRules {
        let end = if version == http::Version::HTTP_2 { EndMark::Flag } else { EndMark::Given };
        let (rate, pressure) = (self.config.rate(), self.config.pressure());
        let stopping = self.stopping.clone();
        BodyRules { rate, pressure, end, stopping, stopping_patience: STOPPING_PATIENCE }
    }

    /// The caller's token, checked by nothing but whoami, for what asks the filer nothing else.
    pub(crate) async fn whoami(&self, caller: &Authenticated) -> Result<hay_client::filer::Whoami, Failure> {
        self.deps.filer.whoami(token(caller)).await
    }

    /// Lets only the administrator of the cluster through.
    pub(crate) async fn administrator(&self, caller: &Authenticated) -> Result<(), Failure> {
        let who = self.whoami(caller).await.map_err(|failure| match failure.code {
            ErrorCode::Unavailable | ErrorCode::NotLeader | ErrorCode::DeadlineExceeded => {
                let text =
                    format!("the filer, which knows who may ask, does not answer: {}", failure.message);
                Failure::new(failure.code, text)
            }
            _ => failure,
        })?;
        if who.principal.administrator {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::Forbidden, "only the cluster's administrator may see this"))
    }
}

/// The caller as inner calls name it.
pub(crate) fn token(caller: &Authenticated) -> TokenHash {
    TokenHash(caller.token_hash())
}
