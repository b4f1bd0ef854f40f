//! Knows when this member leads and has caught up: only then may it serve.

use tokio::sync::watch;

use crate::types::{Batch, Raft};

/// Watches the group. `ready` holds the term in which this member leads, once an entry of that term is applied here:
/// then everything that was ever acknowledged is applied too.
pub(crate) async fn watch_leadership(group: String, raft: Raft, ready: watch::Sender<Option<u64>>) {
    let mut metrics = raft.metrics();
    loop {
        let (state, term, stopped) = {
            let now = metrics.borrow_and_update();
            (now.state, now.current_term, now.running_state.is_err())
        };
        if stopped {
            ready.send_replace(None);
            return;
        }
        if state.is_leader() {
            if *ready.borrow() != Some(term) {
                ready.send_replace(None);
                // An empty entry of this leader: openraft writes none where it takes up an old leadership again.
                match raft.client_write(Batch::default()).await {
                    Ok(written) if written.log_id.leader_id.term == term => {
                        tracing::info!(group, term, index = written.log_id.index, "leads and has caught up");
                        ready.send_replace(Some(term));
                    }
                    Ok(_) => continue,
                    Err(error) => tracing::debug!(group, %error, "lost the leadership before catching up"),
                }
            }
        } else {
            ready.send_if_modified(|now| now.take().is_some());
        }
        if metrics.changed().await.is_err() {
            ready.send_replace(None);
            return;
        }
    }
}
