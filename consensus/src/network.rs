//! How members reach each other. A group of one member needs nobody: [`Alone`] says so to whoever tries.
//!
//! [`crate::group`] takes any factory, so that a network between processes takes this one's place.

use std::future::Future;
use std::time::Duration;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{BasicNode, OptionalSend};

use crate::types::{Types, Vote};

/// The network of a group that has one member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alone;

/// The way to a member that can't be reached.
pub(crate) struct NoWay(NoNetwork);

#[derive(Debug, Clone, thiserror::Error)]
#[error("member {member} at {address:?} can't be reached: this server keeps its group alone")]
struct NoNetwork {
    member: u64,
    address: String,
}

impl RaftNetworkFactory<Types> for Alone {
    type Network = NoWay;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> NoWay {
        NoWay(NoNetwork { member: target, address: node.addr.clone() })
    }
}

impl RaftNetwork<Types> for NoWay {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Err(Unreachable::new(&self.0).into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Err(Unreachable::new(&self.0).into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        Err(Unreachable::new(&self.0).into())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(200)))
    }
}
