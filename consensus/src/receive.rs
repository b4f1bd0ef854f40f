//! The receiving end: every message is checked for whom it is before anything of it is believed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits::{
    RAFT_APPENDS_WAITING_MAX, RAFT_CALLS_WAITING_MAX, RAFT_SNAPSHOT_ALIVE, RAFT_SNAPSHOT_STALL,
    RPC_STREAM_DEPTH,
};
use hay_common::work;
use openraft::storage::Snapshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::Refusal;
use crate::formation::{Description, Formation, Formed, Held};
use crate::members::Members;
use crate::snapshot::{SnapshotDir, Snapshots};
use crate::transfer::{self, Arrived};
use crate::transport::{Acks, ArrivingParts, CallKind, Envelope, SnapshotAck, SnapshotPart, TransportError};
use crate::types::Raft;
use crate::wire::{self, JoinRequest, SnapshotHead};

/// What takes the messages of one member in.
pub(crate) struct Receiver {
    pub(crate) cluster: ClusterId,
    pub(crate) group: String,
    pub(crate) member: MemberId,
    pub(crate) address: String,
    /// The static list, this member's own address too.
    pub(crate) peers: BTreeSet<String>,
    pub(crate) formed: Arc<Formed>,
    pub(crate) raft: Raft,
    pub(crate) members: Members,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) places: Places,
}

/// How many messages are worked on at once. A message holds its place until the consensus has answered, whoever still waits
/// for the answer: the library's own queue has no bound.
pub(crate) struct Places {
    /// One snapshot arrives at a time.
    snapshots: Arc<Semaphore>,
    appends: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let of = |count| Arc::new(Semaphore::new(count));
        Self { snapshots: of(1), appends: of(RAFT_APPENDS_WAITING_MAX), others: of(RAFT_CALLS_WAITING_MAX) }
    }
}

impl Places {
    fn take(of: &Arc<Semaphore>, refusal: Refusal) -> Result<OwnedSemaphorePermit, Refusal> {
        of.clone().try_acquire_owned().map_err(|_| refusal)
    }
}

/// Has the consensus work on a message, to the end: a caller that waits no longer takes neither its place nor the formation
/// from a message that still lies in the queue.
async fn to_the_end<T: Send + 'static>(
    held: (Held, OwnedSemaphorePermit),
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    let working = tokio::spawn(async move {
        let done = work.await;
        drop(held);
        done
    });
    working.await.map_err(|error| Refusal::Stopped(error.to_string()))
}

impl Receiver {
    fn check(&self, envelope: &Envelope) -> Result<(), Refusal> {
        if envelope.cluster != self.cluster {
            return Err(Refusal::OtherCluster { ours: self.cluster, theirs: envelope.cluster });
        }
        if envelope.group != self.group {
            return Err(Refusal::OtherGroup { ours: self.group.clone(), theirs: envelope.group.clone() });
        }
        if let Some(meant) = envelope.to.filter(|meant| *meant != self.member) {
            return Err(Refusal::OtherMember { meant, here: self.member });
        }
        if envelope.from == self.member {
            return Err(Refusal::SameMember(self.member));
        }
        Ok(())
    }

    pub(crate) async fn call(&self, kind: CallKind, envelope: Envelope) -> Result<Bytes, Refusal> {
        // Who is there, may be asked by one that has the same id by mistake: it must learn of it.
        if kind != CallKind::Describe || envelope.from != self.member {
            self.check(&envelope)?;
        }
        match kind {
            CallKind::Describe => Ok(wire::encode(&self.describe())?),
            CallKind::Promise => self.promise(&envelope).await,
            CallKind::Join => {
                let request: JoinRequest = wire::decode(&envelope.body)?;
                self.members.take_in(envelope.from, &request.address).await?;
                Ok(Bytes::new())
            }
            CallKind::Append => {
                let held = self.formed.hold(envelope.formation).await?;
                let request = wire::decode_append(envelope.body)?;
                let of = if request.entries.is_empty() { &self.places.others } else { &self.places.appends };
                let place = Places::take(of, Refusal::Behind)?;
                let raft = self.raft.clone();
                let work = async move { raft.append_entries(request).await };
                let answer = to_the_end((held, place), work).await?;
                Ok(wire::encode(&answer.map_err(|e| Refusal::Stopped(e.to_string()))?)?)
            }
            CallKind::Vote => {
                let held = self.formed.hold(envelope.formation).await?;
                let request = wire::decode(&envelope.body)?;
                let place = Places::take(&self.places.others, Refusal::Behind)?;
                let raft = self.raft.clone();
                let answer = to_the_end((held, place), async move { raft.vote(request).await }).await?;
                Ok(wire::encode(&answer.map_err(|e| Refusal::Stopped(e.to_string()))?)?)
            }
        }
    }

    fn describe(&self) -> Description {
        let metrics = self.raft.server_metrics();
        let now = metrics.borrow();
        let members = now.membership_config.nodes().map(|(id, node)| (*id, node.addr.clone()));
        let members: std::collections::BTreeMap<u64, String> = members.collect();
        let leader = now.current_leader.and_then(|id| members.get(&id).map(|address| (id, address.clone())));
        Description {
            member: self.member.0,
            address: self.address.clone(),
            initialised: !self.formed.pristine(),
            voted: self.formed.voted(),
            formation: self.formed.id(),
            leader,
            members,
        }
    }

    /// Only the member that forms a group asks for promises, and only from those that it forms it with.
    async fn promise(&self, envelope: &Envelope) -> Result<Bytes, Refusal> {
        let formation: Formation = wire::decode(&envelope.body)?;
        let has = |member: u64| formation.members.contains_key(&member);
        if !has(envelope.from.0) || !has(self.member.0) {
            return Err(Refusal::Malformed);
        }
        // Members that were given different lists could form two groups, each with a majority of its own.
        let theirs: BTreeSet<String> = formation.members.values().cloned().collect();
        if theirs != self.peers {
            let text = |list: &BTreeSet<String>| list.iter().cloned().collect::<Vec<_>>().join(",");
            return Err(Refusal::OtherList { ours: text(&self.peers), theirs: text(&theirs) });
        }
        // To the end, whoever still waits for it: what is half written must not meet the next promise.
        let formed = self.formed.clone();
        let entered = tokio::spawn(async move { formed.enter(formation).await }).await;
        entered.map_err(|error| Refusal::Stopped(error.to_string()))??;
        Ok(Bytes::new())
    }

    /// Takes a snapshot in. The acknowledgements go on until it is installed or refused; dropped, they end the transfer.
    pub(crate) async fn snapshot(self: Arc<Self>, mut parts: ArrivingParts) -> Result<Acks, Refusal> {
        let first = tokio::time::timeout(RAFT_SNAPSHOT_STALL, parts.next()).await;
        let Ok(Some(Ok(SnapshotPart::Begin(envelope)))) = first else { return Err(Refusal::Malformed) };
        self.check(&envelope)?;
        drop(self.formed.hold(envelope.formation).await?);
        let head: SnapshotHead = wire::decode(&envelope.body)?;
        let place = Places::take(&self.places.snapshots, Refusal::Busy)?;
        let (acks, queue) = mpsc::channel(RPC_STREAM_DEPTH);
        // Not answered to at once, the sender would not know that its parts are welcome.
        let _ = acks.try_send(Ok(SnapshotAck::Progress(0)));
        tokio::spawn(async move {
            let done = tokio::select! {
                done = self.take(&envelope, head, (parts, place), &acks) => done,
                () = acks.closed() => return,
            };
            // A sender that is gone needs no answer.
            let _ = acks.send(done).await;
        });
        let acks =
            futures::stream::unfold(
                queue,
                |mut queue| async move { queue.recv().await.map(|ack| (ack, queue)) },
            );
        Ok(acks.boxed())
    }

    async fn take(
        &self,
        envelope: &Envelope,
        head: SnapshotHead,
        (parts, place): (ArrivingParts, OwnedSemaphorePermit),
        acks: &mpsc::Sender<Result<SnapshotAck, TransportError>>,
    ) -> Result<SnapshotAck, TransportError> {
        let failed = |e: &dyn std::error::Error| TransportError::Unreachable(e.to_string());
        let snapshots = self.snapshots.clone();
        let on = snapshots.disk().clone();
        let made = work::blocking(on.as_ref(), move || snapshots.incoming()).await;
        let dir = made.map_err(|e| failed(&e))?;
        let dir = dir.map_err(|e| failed(&e))?;
        // The sender need not read every one of them.
        let tell = |bytes| drop(acks.try_send(Ok(SnapshotAck::Progress(bytes))));
        let arrived = transfer::receive(dir, parts, tell).await.map_err(|error| {
            tracing::warn!(group = self.group, from = %envelope.from, %error, "a snapshot was broken off");
            failed(&error)
        })?;
        self.install(envelope, head, (arrived, place), acks).await
    }

    async fn install(
        &self,
        envelope: &Envelope,
        head: SnapshotHead,
        (arrived, place): (Arrived, OwnedSemaphorePermit),
        acks: &mpsc::Sender<Result<SnapshotAck, TransportError>>,
    ) -> Result<SnapshotAck, TransportError> {
        let refused = |refusal: Refusal| TransportError::from(hay_common::error::Failure::from(refusal));
        let held = self.formed.hold(envelope.formation).await.map_err(refused)?;
        tracing::info!(group = self.group, from = %envelope.from, snapshot = %head.meta.snapshot_id, "installs a snapshot");
        let snapshot = Snapshot { meta: head.meta, snapshot: Box::new(SnapshotDir::Incoming(arrived.dir)) };
        let raft = self.raft.clone();
        let work = async move { raft.install_full_snapshot(head.vote, snapshot).await };
        let installing = to_the_end((held, place), work);
        tokio::pin!(installing);
        loop {
            match tokio::time::timeout(RAFT_SNAPSHOT_ALIVE, &mut installing).await {
                Err(_) => drop(acks.try_send(Ok(SnapshotAck::Progress(0)))),
                Ok(Err(refusal)) => return Err(refused(refusal)),
                Ok(Ok(Err(fatal))) => return Err(refused(Refusal::Stopped(fatal.to_string()))),
                Ok(Ok(Ok(answer))) => {
                    let answer = wire::encode(&answer).map_err(|e| refused(e.into()))?;
                    return Ok(SnapshotAck::Done(answer));
                }
            }
        }
    }
}
