//! Gathers commands while a proposal is in flight, so that many share one log entry and one sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hay_common::limits::{PROPOSAL_BYTES_MAX, PROPOSAL_COMMANDS_MAX, PROPOSAL_LOST_GRACE, PROPOSAL_TIMEOUT};
use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Leader, ProposeError};
use crate::types::{Appended, Batch, Raft, Types};

type WriteError = RaftError<u64, ClientWriteError<u64, openraft::BasicNode>>;

/// A command and who waits for its reply. Once queued it is proposed, whether its caller still waits or not.
pub(crate) struct Waiting {
    pub(crate) command: Bytes,
    pub(crate) reply: oneshot::Sender<Result<Bytes, ProposeError>>,
}

/// Work since the start.
#[derive(Debug, Default)]
pub(crate) struct ProposalCounters {
    pub(crate) proposals: AtomicU64,
    pub(crate) commands: AtomicU64,
}

pub(crate) struct Proposer {
    pub(crate) group: String,
    pub(crate) raft: Raft,
    pub(crate) counters: Arc<ProposalCounters>,
}

impl Proposer {
    /// Proposes until the queue is closed and empty.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut left_over: Option<Waiting> = None;
        loop {
            let first = match left_over.take() {
                Some(waiting) => waiting,
                None => match queue.recv().await {
                    Some(waiting) => waiting,
                    None => return,
                },
            };
            // Whoever was just answered gets the chance to ask again before the proposal leaves.
            tokio::task::yield_now().await;
            let gathered = gather(first, &mut queue, &mut left_over);
            self.propose(gathered).await;
        }
    }

    async fn propose(&self, gathered: Vec<Waiting>) {
        let (commands, replies): (Vec<_>, Vec<_>) =
            gathered.into_iter().map(|w| (w.command, w.reply)).unzip();
        self.counters.proposals.fetch_add(1, Ordering::Relaxed);
        self.counters.commands.fetch_add(commands.len() as u64, Ordering::Relaxed);
        metrics::counter!("hay_raft_proposals_total", "group" => self.group.clone()).increment(1);
        metrics::counter!("hay_raft_commands_total", "group" => self.group.clone())
            .increment(commands.len() as u64);
        let appended = Appended::watched();
        match self.write(Batch(commands, appended.clone())).await {
            // A caller that is gone needs no answer.
            Ok(response) => {
                for (reply, answer) in replies.into_iter().zip(response.data.0) {
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) => {
                let error = self.explain(error.as_ref(), &appended);
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// `None` where no answer came in time.
    async fn write(&self, batch: Batch) -> Result<ClientWriteResponse<Types>, Option<WriteError>> {
        let written = self.raft.client_write(batch);
        tokio::pin!(written);
        let lost = async {
            let mut now = self.raft.server_metrics();
            // What a former leader has written may be answered by the next one, or never.
            if now.wait_for(|now| !now.state.is_leader()).await.is_ok() {
                tokio::time::sleep(PROPOSAL_LOST_GRACE).await;
            }
        };
        tokio::select! {
            written = &mut written => written.map_err(Some),
            () = lost => Err(None),
            () = tokio::time::sleep(PROPOSAL_TIMEOUT) => Err(None),
        }
    }

    fn explain(&self, error: Option<&WriteError>, appended: &Appended) -> ProposeError {
        let group = self.group.clone();
        match error {
            None => match &self.raft.metrics().borrow().running_state {
                Ok(()) => ProposeError::Unknown(group),
                Err(fatal) => ProposeError::Stopped { group, why: fatal.to_string() },
            },
            // Written here and replaced: a member that has it may still lead one day.
            Some(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) if appended.get() => {
                ProposeError::Unknown(group)
            }
            Some(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                let leader = Leader::of(forward.leader_id, forward.leader_node.as_ref());
                ProposeError::NotLeader { group, leader }
            }
            Some(other) => ProposeError::Stopped { group, why: other.to_string() },
        }
    }
}

/// Takes what waits, up to the bounds of one proposal.
fn gather(
    first: Waiting,
    queue: &mut mpsc::Receiver<Waiting>,
    left_over: &mut Option<Waiting>,
) -> Vec<Waiting> {
    let mut bytes = first.command.len();
    let mut gathered = vec![first];
    while gathered.len() < PROPOSAL_COMMANDS_MAX
        && let Ok(next) = queue.try_recv()
    {
        bytes += next.command.len();
        if bytes > PROPOSAL_BYTES_MAX {
            *left_over = Some(next);
            break;
        }
        gathered.push(next);
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(bytes: usize) -> Waiting {
        Waiting { command: Bytes::from(vec![0; bytes]), reply: oneshot::channel().0 }
    }

    #[tokio::test]
    async fn a_proposal_keeps_its_bounds_and_loses_nothing() {
        let (tx, mut queue) = mpsc::channel(10_000);
        for n in 0..3000usize {
            tx.try_send(waiting(if n % 700 == 0 { PROPOSAL_BYTES_MAX - 10 } else { 100 })).unwrap();
        }
        drop(tx);
        let (mut left_over, mut seen, mut proposals) = (None, 0, 0);
        while let Some(first) = left_over.take().or_else(|| queue.try_recv().ok()) {
            let gathered = gather(first, &mut queue, &mut left_over);
            let bytes: usize = gathered.iter().map(|w| w.command.len()).sum();
            assert!(gathered.len() <= PROPOSAL_COMMANDS_MAX && bytes <= PROPOSAL_BYTES_MAX);
            seen += gathered.len();
            proposals += 1;
        }
        assert_eq!(seen, 3000);
        assert!(proposals >= 5, "{proposals}");
    }
}
