//! How a gateway is set up. Defaults are the limits of `hay_common::limits`; tests make them smaller.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hay_client::{FilerClient, MasterClient, VolumeClient};
use hay_common::clock::SharedClock;
use hay_common::disk::SharedDisk;
use hay_common::limits;
use hay_common::random::SharedRandom;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::memory::ledger::{AsideLimits, LedgerLimits};
use crate::memory::rate::RateLimits;

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Whether `/metrics` is answered without a token.
    pub metrics_open: bool,
    /// Whether it may listen beyond loopback although it speaks no TLS.
    pub allow_plain_beyond_loopback: bool,
    /// Requests in work at once; further ones are answered 503.
    pub requests_max: usize,
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Memory for chunks of uploads, in bytes.
    pub chunk_budget_bytes: usize,
    /// Where half-received chunks are set aside while others need the memory; made where it is missing, with the files
    /// `aside-N` of a killed process removed. It must be no symbolic link and belong to the user as whom this runs. Not on
    /// a tmpfs: what is set aside there is in memory again, up to `aside_bytes_max`. `None`: nothing is set aside, and
    /// slow bodies lose their buffers instead.
    pub aside_dir: Option<PathBuf>,
    /// Bytes that are set aside at most.
    pub aside_bytes_max: usize,
    /// Free space that setting aside leaves to those who store, in bytes.
    pub free_space_reserve_bytes: u64,
    /// Memory that downloads read ahead into, in bytes.
    pub download_budget_bytes: usize,
    /// A body loses its buffer below this many bytes a second …
    pub body_bytes_per_s_min: u64,
    /// … over this window of waiting for it.
    pub body_rate_window: Duration,
    /// Uploads whose bodies are being received, at once; further ones are answered 503.
    pub bodies_max: usize,
    /// A head must be there within this time, on a new connection too.
    pub header_timeout: Duration,
    /// A connection without requests is closed after this long.
    pub idle_timeout: Duration,
    /// How long a shutdown waits for what is in flight.
    pub shutdown_grace: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            metrics_open: false,
            allow_plain_beyond_loopback: false,
            requests_max: limits::HTTP_REQUESTS_MAX,
            connections_max: limits::HTTP_CONNECTIONS_MAX,
            chunk_budget_bytes: limits::CHUNK_BUDGET_BYTES,
            aside_dir: None,
            aside_bytes_max: limits::ASIDE_BYTES_MAX,
            free_space_reserve_bytes: limits::FREE_SPACE_RESERVE_BYTES,
            download_budget_bytes: limits::DOWNLOAD_BUDGET_BYTES,
            body_bytes_per_s_min: limits::BODY_BYTES_PER_S_MIN,
            body_rate_window: limits::BODY_RATE_WINDOW,
            bodies_max: limits::HTTP_BODIES_MAX,
            header_timeout: limits::HTTP_HEADER_TIMEOUT,
            idle_timeout: limits::HTTP_IDLE_TIMEOUT,
            shutdown_grace: limits::SHUTDOWN_GRACE,
        }
    }
}

impl GatewayConfig {
    pub(crate) fn rate(&self) -> RateLimits {
        RateLimits { bytes_per_s_min: self.body_bytes_per_s_min, window: self.body_rate_window }
    }

    pub(crate) fn pressure(&self) -> RateLimits {
        RateLimits {
            bytes_per_s_min: limits::BODY_PRESSURE_BYTES_PER_S,
            window: limits::BODY_PRESSURE_WINDOW.min(self.body_rate_window),
        }
    }

    pub(crate) fn ledger(&self) -> LedgerLimits {
        let share = |percent: usize| self.chunk_budget_bytes / 100 * percent;
        let small_bytes = share(limits::CHUNK_BUDGET_SMALL_PERCENT);
        let open_bytes = share(limits::CHUNK_BUDGET_OPEN_PERCENT);
        let slots =
            self.chunk_budget_bytes.saturating_sub(small_bytes + open_bytes) / limits::CHUNK_BYTES_MAX;
        LedgerLimits {
            small_bytes,
            small_each: limits::SMALL_BODY_BYTES_MAX,
            open_bytes,
            // Without a slot, half-received chunks could wait for each other.
            slots: slots.max(1),
            park_idle: limits::BODY_PARK_IDLE,
            pressure_idle: limits::BODY_PRESSURE_IDLE.min(self.body_rate_window),
            wait_max: limits::BODY_ROOM_WAIT,
            aside: AsideLimits {
                bytes: self.aside_bytes_max,
                at_once: limits::ASIDE_WRITES_MAX,
                worth: limits::ASIDE_WORTH_BYTES,
                each: limits::CHUNK_BYTES_MAX,
                pause: limits::ASIDE_PAUSE,
            },
        }
    }
}

/// Asks one role whether it can do its work; the text says why not.
pub type ReadyCheck = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// What a gateway stands on.
#[derive(Clone)]
pub struct GatewayDeps {
    /// Names, permissions, references.
    pub filer: FilerClient,
    /// Leases and locations.
    pub master: MasterClient,
    /// Needles.
    pub volumes: VolumeClient,
    /// What bodies are set aside on.
    pub disk: SharedDisk,
    /// Time.
    pub clock: SharedClock,
    /// Cookies, ids, request ids.
    pub random: SharedRandom,
    /// Renders `/metrics`; its recorder must be installed before the start.
    pub metrics: PrometheusHandle,
    /// What `/readyz` asks besides the filer and the master: (role, check).
    pub ready: Vec<(String, ReadyCheck)>,
}
