//! How openraft reaches the other members: its requests become envelopes that a [`Transport`](crate::transport) carries.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::clock::SharedClock;
use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits::{RAFT_BACKOFF_FIRST, RAFT_BACKOFF_MAX, RPC_TIMEOUT};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use openraft::BasicNode;
use openraft::OptionalSend;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::formation::Formed;
use crate::transfer;
use crate::transport::{CallKind, Envelope, SharedTransport, TransportError};
use crate::types::{LogId, Types, Vote};
use crate::wire::{self, Malformed, SnapshotHead};

type CallError = RPCError<u64, BasicNode, RaftError<u64>>;

/// What this member knows of reaching another.
#[derive(Debug, Clone)]
pub(crate) struct Contact {
    /// When it last answered, on the monotonic clock.
    pub(crate) heard: Option<Duration>,
    /// Why it last did not, if it has not since.
    pub(crate) problem: Option<String>,
}

/// What is known of reaching the others. Bounded by the members there ever were in one process's life.
pub(crate) type Contacts = Arc<Mutex<BTreeMap<u64, Contact>>>;

/// Reaches the members of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) cluster: ClusterId,
    pub(crate) group: String,
    pub(crate) member: MemberId,
    pub(crate) formed: Arc<Formed>,
    pub(crate) transport: SharedTransport,
    pub(crate) random: SharedRandom,
    pub(crate) clock: SharedClock,
    pub(crate) contacts: Contacts,
}

impl Network {
    pub(crate) fn envelope(&self, to: Option<MemberId>, body: Bytes) -> Envelope {
        Envelope {
            cluster: self.cluster,
            group: self.group.clone(),
            formation: self.formed.id(),
            from: self.member,
            to,
            body,
        }
    }

    /// Pauses that grow to a bound, each shortened at random: members that failed together don't come back together.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        let random = self.random.clone();
        let policy = RetryPolicy {
            attempts_max: u32::MAX,
            pause_first: RAFT_BACKOFF_FIRST,
            pause_max: RAFT_BACKOFF_MAX,
        };
        (1..u32::MAX).map(move |attempt| policy.pause(attempt, random.as_ref()).unwrap_or(RAFT_BACKOFF_MAX))
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Way {
        Way { network: self.clone(), target, address: node.addr.clone(), under_way: None }
    }
}

/// The way to one member. Connections are the transport's: making one of these costs nothing.
pub(crate) struct Way {
    network: Network,
    target: u64,
    address: String,
    under_way: Option<UnderWay>,
}

/// Entries that are being sent. openraft gives a call up after one heartbeat; a large one over a slow way, or to a slow
/// disk, would be cut and begun again for ever. It goes on instead, and the next try waits for its answer.
struct UnderWay {
    vote: Vote,
    previous: Option<LogId>,
    last: Option<LogId>,
    answer: JoinHandle<Result<AppendEntriesResponse<u64>, CallError>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl Way {
    fn again(&self) -> Self {
        Self {
            network: self.network.clone(),
            target: self.target,
            address: self.address.clone(),
            under_way: None,
        }
    }

    /// The answer to the entries under way, and the last of them.
    async fn answered(&mut self) -> Result<(AppendEntriesResponse<u64>, Option<LogId>), CallError> {
        let gone = || CallError::Unreachable(Unreachable::new(&Malformed));
        let under_way = self.under_way.as_mut().ok_or_else(gone)?;
        let answer = (&mut under_way.answer).await;
        let last = under_way.last;
        self.under_way = None;
        Ok((answer.map_err(|_| gone())??, last))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kind: CallKind,
        body: Result<Bytes, Malformed>,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let body = body.map_err(|e| CallError::Unreachable(Unreachable::new(&e)))?;
        let envelope = self.network.envelope(Some(MemberId(self.target)), body);
        let answer = self.network.transport.call(&self.address, kind, envelope, timeout).await;
        let answer = answer
            .and_then(|answer| wire::decode(&answer).map_err(|e| TransportError::Unreachable(e.to_string())));
        self.note(answer.as_ref().err());
        answer.map_err(|e| CallError::Unreachable(Unreachable::new(&e)))
    }

    /// A refusal is said once when it begins; a silent peer is what its server's own log is for.
    fn note(&self, error: Option<&TransportError>) {
        let mut contacts = self.network.contacts.lock();
        let contact = contacts.entry(self.target).or_insert(Contact { heard: None, problem: None });
        match error {
            None => *contact = Contact { heard: Some(self.network.clock.monotonic()), problem: None },
            Some(error) => {
                let problem = error.to_string();
                if matches!(error, TransportError::Refused(_)) && contact.problem.as_ref() != Some(&problem) {
                    let (group, member) = (&self.network.group, self.target);
                    tracing::warn!(group, member, address = self.address, problem, "a member refuses");
                }
                contact.problem = Some(problem);
            }
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot<Types>,
    ) -> Result<SnapshotResponse<u64>, TransportError> {
        let unreadable = |e: Malformed| TransportError::Unreachable(e.to_string());
        let head = wire::encode(&SnapshotHead { vote, meta: snapshot.meta.clone() }).map_err(unreadable)?;
        let begin = self.network.envelope(Some(MemberId(self.target)), head);
        let parts = transfer::read_parts(begin, *snapshot.snapshot);
        let acks = self.network.transport.snapshot(&self.address, parts).await?;
        let answer = transfer::await_done(acks, |_| self.note(None)).await?;
        wire::decode(&answer).map_err(unreadable)
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        if rpc.entries.is_empty() {
            return self.ask(CallKind::Append, wire::encode_append(&rpc), option.hard_ttl()).await;
        }
        let (vote, previous) = (rpc.vote, rpc.prev_log_id);
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let same = |way: &UnderWay| way.vote == vote && way.previous == previous;
        if self.under_way.as_ref().is_none_or(|under_way| !same(under_way)) {
            let way = self.again();
            let body = wire::encode_append(&rpc);
            let answer = tokio::spawn(async move { way.ask(CallKind::Append, body, RPC_TIMEOUT).await });
            self.under_way = Some(UnderWay { vote, previous, last, answer });
        }
        match self.answered().await? {
            // There may be more entries by now than were sent then.
            (AppendEntriesResponse::Success, sent) if sent < last => {
                Ok(AppendEntriesResponse::PartialSuccess(sent))
            }
            (answer, _) => Ok(answer),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError> {
        self.ask(CallKind::Vote, wire::encode_vote(&rpc), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let (group, member) = (self.network.group.clone(), self.target);
        tracing::info!(group, member, snapshot = %snapshot.meta.snapshot_id, "sending a snapshot");
        let sent = tokio::select! {
            closed = cancel => return Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => sent,
        };
        self.note(sent.as_ref().err());
        sent.map_err(|error| {
            tracing::warn!(group, member, %error, "a snapshot was not taken; it will be sent again");
            StreamingError::Unreachable(Unreachable::new(&error))
        })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.network.pauses())
    }
}
