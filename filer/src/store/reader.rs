//! Queries from async code: from memory at once where that is enough, else on a bounded pool of threads.

use std::sync::Arc;

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::METADATA_READS_MAX;
use tokio::sync::Semaphore;

use super::Shared;
use super::rocks::{SnapshotRows, Tier};
use crate::namespace::apply::Refusal;
use crate::namespace::rows::{Rows, RowsError};

/// Reads the metadata, each query in one snapshot. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
    threads: Arc<Semaphore>,
}

/// Whether a query is worth a try on the async thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Some rows.
    Small,
    /// So many that the thread would be held up even if all were in memory.
    Large,
}

impl Reader {
    pub(super) fn over(shared: Arc<Shared>) -> Self {
        Self { shared, threads: Arc::new(Semaphore::new(METADATA_READS_MAX)) }
    }

    /// Runs `query` over one snapshot of the rows. It may run twice: first with what is in memory, then, over a new
    /// snapshot, with the disk.
    ///
    /// # Errors
    /// Those of the query; rows that can't be read are `corrupt` or `internal`, and logged.
    pub async fn query<T, Q>(&self, effort: Effort, query: Q) -> Result<T, Failure>
    where
        T: Send + 'static,
        Q: Fn(&dyn Rows) -> Result<T, Refusal> + Send + 'static,
    {
        if effort == Effort::Small {
            let view = self.shared.view();
            match query(&SnapshotRows::of(&view, Tier::Memory)) {
                Err(Refusal::Rows(RowsError::NotCached)) => {}
                other => return other.map_err(to_failure),
            }
        }
        let permit = self
            .threads
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Failure::new(ErrorCode::Unavailable, "the filer is shutting down"))?;
        let shared = self.shared.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let view = shared.view();
            query(&SnapshotRows::of(&view, Tier::Disk))
        });
        match work.await {
            Ok(result) => result.map_err(to_failure),
            Err(error) => {
                tracing::error!(%error, "a metadata query ended early");
                Err(Failure::new(ErrorCode::Internal, "a metadata query ended early: see the filer's log"))
            }
        }
    }
}

/// What a caller is told.
pub fn to_failure(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Failure(failure) => failure,
        Refusal::Rows(error) => {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "metadata can't be read");
            let code = match error {
                RowsError::Decode(_) | RowsError::Contradiction(_) => ErrorCode::Corrupt,
                RowsError::NotCached | RowsError::Engine(_) => ErrorCode::Internal,
            };
            Failure::new(code, format!("the metadata can't be read: {error}"))
        }
    }
}
