//! A server's process: logs, open files, the runtime.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use hay_common::limits;
use hay_common::telemetry::{self, LogFormat};
use hay_proto::rpc::RequestContext;

use super::{LogFormatFlag, open_files};

/// Threads for blocking calls: RocksDB reads that miss the cache, disk reads that miss the page cache, hashing.
const BLOCKING_THREADS_MAX: usize = 64;

/// How long calls that block may go on after the end.
const BLOCKING_END_WAIT: Duration = Duration::from_secs(2);

/// Runs `serve` on `workers` threads.
pub fn run(
    log_format: LogFormatFlag,
    workers: usize,
    serve: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let format = match log_format {
        LogFormatFlag::Text => LogFormat::Text,
        LogFormatFlag::Json => LogFormat::Json,
    };
    telemetry::start(format, || RequestContext::current().map(|request| request.id().to_string()));
    let open_files = open_files::raise(limits::OPEN_FILES_WANTED);
    tracing::debug!(open_files, "the limit on open files");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("hay")
        .enable_all()
        .build()
        .context("the runtime did not start")?;
    let ended = runtime.block_on(serve);
    // What a start that was broken off still reads or checks is not waited for; all else has ended before.
    runtime.shutdown_timeout(BLOCKING_END_WAIT);
    ended
}
