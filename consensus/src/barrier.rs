//! Shares one confirmation of leadership among all reads that wait for one.

use std::time::Duration;

use hay_common::ids::MemberId;
use hay_common::limits::{READS_WAITING_MAX, RPC_TIMEOUT};
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};

use crate::error::ReadError;
use crate::types::Raft;

pub(crate) type WaitingRead = oneshot::Sender<Result<(), ReadError>>;

/// A confirmation that takes longer has no majority.
const CONFIRM_MAX: Duration = RPC_TIMEOUT;

/// Confirms leadership for reads until the queue is closed. A read is only answered by a confirmation that began after
/// it came.
pub(crate) async fn confirm_reads(group: String, raft: Raft, mut queue: mpsc::Receiver<WaitingRead>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while waiting.len() < READS_WAITING_MAX
            && let Ok(next) = queue.try_recv()
        {
            waiting.push(next);
        }
        let confirmed = match tokio::time::timeout(CONFIRM_MAX, raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(explain(&group, &error)),
            Err(_) => Err(ReadError::NoMajority(group.clone())),
        };
        for read in waiting {
            // A reader that is gone needs no answer.
            let _ = read.send(confirmed.clone());
        }
    }
}

fn explain(group: &str, error: &RaftError<u64, CheckIsLeaderError<u64, openraft::BasicNode>>) -> ReadError {
    let group = group.to_owned();
    match error {
        RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)) => {
            ReadError::NotLeader { group, leader: forward.leader_id.map(MemberId) }
        }
        RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => ReadError::NoMajority(group),
        RaftError::Fatal(fatal) => ReadError::Stopped { group, why: fatal.to_string() },
    }
}
