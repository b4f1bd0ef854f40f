//! Knows when this member leads, has caught up, and is still heard by a majority: only then may it serve.

use std::time::Duration;

use openraft::RaftMetrics;
use tokio::sync::watch;

use crate::members::Members;
use crate::types::{Batch, Raft};

/// What the watch over a group's leadership needs.
pub(crate) struct Leadership {
    pub(crate) group: String,
    pub(crate) raft: Raft,
    pub(crate) members: Members,
    /// Where this member says that it is reached; empty where nobody else need reach it.
    pub(crate) address: String,
    /// A leader that no majority has answered for so long no longer counts as one.
    pub(crate) silence_max: Duration,
    /// The term in which this member leads, once an entry of that term is applied here: then everything that was ever
    /// acknowledged is applied too.
    pub(crate) ready: watch::Sender<Option<u64>>,
}

/// However the watch ends: nobody may go on as if this member led.
impl Drop for Leadership {
    fn drop(&mut self) {
        self.show(None);
    }
}

impl Leadership {
    /// Watches the group until it stops.
    pub(crate) async fn watch(self) {
        let mut metrics = self.raft.metrics();
        let mut caught_up = None;
        loop {
            let (term, alone, heard, stopped) = {
                let now = metrics.borrow_and_update();
                let leads = now.state.is_leader().then_some(now.current_term);
                let alone = now.membership_config.voter_ids().all(|id| id == now.id);
                (leads, alone, alone || self.is_heard(&now), now.running_state.is_err())
            };
            if stopped {
                break;
            }
            if term.is_some() && term != caught_up {
                self.show(None);
                caught_up = self.catch_up(&mut metrics, term).await;
                if caught_up.is_some() {
                    self.set_right();
                    continue;
                }
            }
            self.show(caught_up.filter(|_| term == caught_up && heard));
            let changed = match tokio::time::timeout(self.silence_max, metrics.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    // The library works on nothing while it waits for the disk: it sends no heartbeat, and what it said
                    // last says nothing any more. Others may elect a leader meanwhile, if there are others.
                    if !alone {
                        self.show(None);
                    }
                    metrics.changed().await
                }
            };
            if changed.is_err() {
                break;
            }
        }
    }

    fn show(&self, term: Option<u64>) {
        let changed = self.ready.send_if_modified(|now| std::mem::replace(now, term) != term);
        if changed && let Some(term) = term {
            tracing::info!(group = self.group, term, "leads and has caught up");
        }
    }

    /// The library leaves a leader that nobody hears in its place. It can't commit anything, nor confirm a read; its
    /// owner must not go on as if it could.
    fn is_heard(&self, now: &RaftMetrics<u64, openraft::BasicNode>) -> bool {
        let silent = now.millis_since_quorum_ack.map(Duration::from_millis);
        silent.is_some_and(|silent| silent <= self.silence_max)
    }

    /// Writes an empty entry of this leader: the library writes none where it takes up an old leadership again. Gives the
    /// term in which it was applied; none where the leadership was lost meanwhile.
    async fn catch_up(
        &self,
        metrics: &mut watch::Receiver<RaftMetrics<u64, openraft::BasicNode>>,
        term: Option<u64>,
    ) -> Option<u64> {
        let written = self.raft.client_write(Batch::default());
        tokio::pin!(written);
        loop {
            tokio::select! {
                written = &mut written => return match written {
                    Ok(written) if Some(written.log_id.leader_id.term) == term => term,
                    Ok(_) => None,
                    Err(error) => {
                        tracing::debug!(group = self.group, %error, "lost the leadership before catching up");
                        None
                    }
                },
                changed = metrics.changed() => {
                    let now = metrics.borrow();
                    let leads = now.state.is_leader().then_some(now.current_term);
                    // Nobody may ever answer what a leadership that is over has written.
                    if changed.is_err() || leads != term || now.running_state.is_err() {
                        return None;
                    }
                }
            }
        }
    }

    /// A new leader finishes what the one before left half done, and has itself reached where it is.
    fn set_right(&self) {
        let (members, address) = (self.members.clone(), self.address.clone());
        tokio::spawn(async move {
            if let Err(error) = members.set_right(&address).await {
                tracing::debug!(%error, "the members could not be set right");
            }
        });
    }
}
