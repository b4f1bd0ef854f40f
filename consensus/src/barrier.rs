//! Shares one confirmation of leadership among all reads that wait for one.

use std::time::Duration;

use hay_common::limits::{READ_CONFIRM_TIMEOUT, READS_WAITING_MAX};
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Leader, ReadError};
use crate::types::Raft;

pub(crate) type WaitingRead = oneshot::Sender<Result<(), ReadError>>;

/// Between two tries: a follower that was busy, or a connection that is being made.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Confirms leadership for reads until the queue is closed. A read is only answered by a confirmation that began after
/// it came: the index of a majority's leader is taken first, then a majority says that it still leads, then the local
/// state has to hold that index.
pub(crate) async fn confirm_reads(
    group: String,
    raft: Raft,
    ready: watch::Receiver<Option<u64>>,
    mut queue: mpsc::Receiver<WaitingRead>,
) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while waiting.len() < READS_WAITING_MAX
            && let Ok(next) = queue.try_recv()
        {
            waiting.push(next);
        }
        let confirmed = match tokio::time::timeout(READ_CONFIRM_TIMEOUT, confirm(&group, &raft, &ready)).await
        {
            Ok(confirmed) => confirmed,
            Err(_) => Err(ReadError::NoMajority(group.clone())),
        };
        for read in waiting {
            // A reader that is gone needs no answer.
            let _ = read.send(confirmed.clone());
        }
    }
}

async fn confirm(group: &str, raft: &Raft, ready: &watch::Receiver<Option<u64>>) -> Result<(), ReadError> {
    loop {
        // What the library takes for committed is only complete once an entry of this leadership is applied.
        let caught_up = ready.borrow().is_some();
        let confirmed = match raft.ensure_linearizable().await {
            Ok(_) if caught_up => return Ok(()),
            Ok(_) => None,
            Err(error) => Some(explain(group, &error)),
        };
        match confirmed {
            // A call is cut after one heartbeat, the follower's sync included: one that is busy is asked again.
            None | Some(ReadError::NoMajority(_)) => tokio::time::sleep(AGAIN_AFTER).await,
            Some(error) => return Err(error),
        }
    }
}

fn explain(group: &str, error: &RaftError<u64, CheckIsLeaderError<u64, openraft::BasicNode>>) -> ReadError {
    let group = group.to_owned();
    match error {
        RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)) => {
            let leader = Leader::of(forward.leader_id, forward.leader_node.as_ref());
            ReadError::NotLeader { group, leader }
        }
        RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => ReadError::NoMajority(group),
        RaftError::Fatal(fatal) => ReadError::Stopped { group, why: fatal.to_string() },
    }
}
