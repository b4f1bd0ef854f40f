//! Several members of one Raft group as one service: a call goes to the member that answered last, and on to the others
//! where it is down or does not lead. Over the direct binding there is one member and none of this is needed.

mod filers;
mod masters;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use hay_common::clock::SharedClock;
use hay_common::error::ErrorCode;
use hay_common::limits::{GROUP_PATIENCE, GROUP_TRY};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::transport::{AddressError, Channels};
use hay_proto::rpc::{leader_of, to_failure};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

pub use filers::filers;
pub use masters::masters;

/// Between rounds in which no member could do it: an election is under way, or the only member starts again.
const ROUNDS: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(20),
    pause_max: Duration::from_millis(500),
};

/// A list of members that can't be called.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Nobody was named.
    #[error("no address was named")]
    Empty,
    /// One is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// The members of a group by their addresses: at least one.
#[derive(Debug, Clone)]
pub struct Members(Vec<(String, Channels)>);

impl Members {
    /// Those at `addresses` (`HOST:PORT`). Connections are opened by the first call; within a tokio runtime.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub fn at(addresses: &[String]) -> Result<Self, GroupError> {
        if addresses.is_empty() {
            return Err(GroupError::Empty);
        }
        let member = |address: &String| Ok((address.clone(), Channels::lazy(address)?));
        Ok(Self(addresses.iter().map(member).collect::<Result<_, AddressError>>()?))
    }

    /// Those at the other ends of connections that are made already, each with its address.
    ///
    /// # Errors
    /// `Empty`.
    pub fn over(members: Vec<(String, Channels)>) -> Result<Self, GroupError> {
        if members.is_empty() { Err(GroupError::Empty) } else { Ok(Self(members)) }
    }
}

/// A call of a member, made as often as it takes.
trait Call<S: ?Sized, Q, R>:
    for<'a> Fn(&'a S, Request<Q>) -> BoxFuture<'a, Result<Response<R>, Status>> + Send + Sync
{
}

impl<S: ?Sized, Q, R, F> Call<S, Q, R> for F where
    F: for<'a> Fn(&'a S, Request<Q>) -> BoxFuture<'a, Result<Response<R>, Status>> + Send + Sync
{
}

/// One member and where it is.
struct Member<S: ?Sized> {
    address: String,
    service: Arc<S>,
}

/// The members of one group.
struct Group<S: ?Sized> {
    members: Vec<Member<S>>,
    /// Which one answered last. A hint: any value is good.
    current: AtomicUsize,
    /// How long one member may say nothing.
    try_time: Duration,
    clock: SharedClock,
    random: SharedRandom,
}

impl<S: ?Sized + Send + Sync> Group<S> {
    fn new(members: Vec<Member<S>>, clock: SharedClock, random: SharedRandom) -> Self {
        Self { members, current: AtomicUsize::new(0), try_time: GROUP_TRY, clock, random }
    }

    /// The member to try, and its place.
    fn current(&self) -> Result<(usize, &S), Status> {
        let at = self.current.load(Ordering::Relaxed) % self.members.len().max(1);
        let member = self.members.get(at).ok_or_else(nobody)?;
        Ok((at, member.service.as_ref()))
    }

    /// The member at `at` was of no use. The turn goes to the one that it names as leader, but not to one that was `silent`
    /// just now; else to the next; unless somebody has moved on already.
    fn leave(&self, at: usize, status: &Status, silent: &[usize]) {
        let leader = leader_of(status);
        let named = leader.and_then(|leader| self.members.iter().position(|m| m.address == leader));
        let named = named.filter(|named| *named != at && !silent.contains(named));
        let next = named.unwrap_or((at + 1) % self.members.len().max(1));
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Calls one member after the other until one does it, round after round for [`GROUP_PATIENCE`]. Only for calls that
    /// may be made twice: a connection that breaks does not tell whether the call arrived.
    async fn ask<Q, R>(&self, request: Request<Q>, call: impl Call<S, Q, R>) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync,
    {
        let (metadata, _, message) = request.into_parts();
        let began = self.clock.monotonic();
        for round in 1.. {
            let status = match self.round(&metadata, &message, &call, self.try_time).await {
                Err(status) if is_elsewhere(&status) => status,
                reply => return reply,
            };
            let pause = ROUNDS.pause(round, self.random.as_ref()).unwrap_or(ROUNDS.pause_max);
            if self.clock.monotonic().saturating_sub(began) + pause > GROUP_PATIENCE {
                return Err(status);
            }
            tokio::time::sleep(pause).await;
        }
        Err(nobody())
    }

    /// Each member once, until one does it: for those who try again themselves, or want to know how it stands now.
    async fn ask_round<Q, R>(
        &self,
        request: Request<Q>,
        call: impl Call<S, Q, R>,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync,
    {
        self.ask_round_within(Duration::ZERO, request, call).await
    }

    /// The same for a call that takes up to `time`, whoever does it.
    async fn ask_round_within<Q, R>(
        &self,
        time: Duration,
        request: Request<Q>,
        call: impl Call<S, Q, R>,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync,
    {
        let (metadata, _, message) = request.into_parts();
        self.round(&metadata, &message, &call, self.try_time + time).await
    }

    async fn round<Q, R>(
        &self,
        metadata: &MetadataMap,
        message: &Q,
        call: &impl Call<S, Q, R>,
        try_time: Duration,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync,
    {
        let (mut last, mut silent) = (nobody(), Vec::new());
        for _ in 0..self.members.len() {
            let (at, member) = self.current()?;
            let again = Request::from_parts(metadata.clone(), Default::default(), message.clone());
            match self.within(try_time, call(member, again)).await {
                Err(status) if is_elsewhere(&status) => {
                    silent.extend((to_failure(&status).code == ErrorCode::Unavailable).then_some(at));
                    self.leave(at, &status, &silent);
                    last = status;
                }
                reply => return reply,
            }
        }
        Err(last)
    }

    /// A member that is there and says nothing is passed over. The only one is waited for: nobody else could do it.
    async fn within<R>(
        &self,
        try_time: Duration,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<Response<R>, Status> {
        if self.members.len() == 1 {
            return call.await;
        }
        match tokio::time::timeout(try_time, call).await {
            Ok(reply) => reply,
            Err(_) => Err(Status::unavailable("a member of the group does not answer")),
        }
    }

    /// One try, for calls that must not be repeated here; where it fails, the next call goes to the next member.
    async fn ask_once<'a, R>(
        &'a self,
        call: impl FnOnce(&'a S) -> BoxFuture<'a, Result<Response<R>, Status>> + Send,
    ) -> Result<Response<R>, Status> {
        let (at, member) = self.current()?;
        let reply = self.within(self.try_time, call(member)).await;
        if let Err(status) = &reply
            && is_elsewhere(status)
        {
            self.leave(at, status, &[]);
        }
        reply
    }
}

fn nobody() -> Status {
    Status::unavailable("no member of the group could do it")
}

/// Whether another member, or the same one a little later, may do what this one did not.
fn is_elsewhere(status: &Status) -> bool {
    matches!(to_failure(status).code, ErrorCode::NotLeader | ErrorCode::Unavailable)
}

#[cfg(test)]
mod tests;
