//! Asks for a snapshot once enough bytes of log have come since the last one, however few entries they are.

use std::sync::atomic::Ordering;

use crate::log::LogHandle;
use crate::types::Raft;

/// Every member has one: the log of a follower grows as fast as that of its leader.
pub(crate) struct Due {
    pub(crate) group: String,
    pub(crate) raft: Raft,
    pub(crate) log: LogHandle,
    /// Bytes of log between two snapshots.
    pub(crate) every_bytes: u64,
}

impl Due {
    /// Watches the log until the group stops.
    pub(crate) async fn watch(self) {
        let mut metrics = self.raft.metrics();
        let (mut newest, mut counted) = (metrics.borrow().snapshot, self.log_bytes());
        loop {
            // Something else asks for them too: a number of entries, or an operator.
            let snapshot = metrics.borrow_and_update().snapshot;
            let bytes = self.log_bytes();
            if snapshot != newest {
                (newest, counted) = (snapshot, bytes);
            } else if bytes - counted >= self.every_bytes {
                counted = bytes;
                if let Err(error) = self.raft.trigger().snapshot().await {
                    tracing::warn!(group = self.group, %error, "no snapshot could be asked for");
                }
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    fn log_bytes(&self) -> u64 {
        self.log.shared.counters.bytes.load(Ordering::Relaxed)
    }
}
