//! Structured logs on stderr. Secrets never enter: tokens and keys have no `Debug` that shows them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process. `HAY_LOG` holds the filter (as in `hay_filer=debug,info`); default `info`, openraft only warnings.
/// Does nothing where a subscriber is already there.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("HAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false))
            .try_init(),
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
    };
    if let Err(already) = started {
        tracing::debug!(%already, "logging was started before");
    }
}
