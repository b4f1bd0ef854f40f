//! Several members of one Raft group as one service: a call goes to the member that answered last, and on to the others
//! where it is down or does not lead. Over the direct binding there is one member and none of this is needed.
//!
//! A leader that a member names and that stands in no list of this process is called, too, and remembered: the group may
//! have other members by now than when the process was started.

mod filers;
mod masters;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hay_common::clock::SharedClock;
use hay_common::error::ErrorCode;
use hay_common::limits::{GROUP_LEARNED_MAX, GROUP_PATIENCE, GROUP_TRY};
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
pub struct Members {
    listed: Vec<(String, Channels)>,
    /// Whether others may be dialled.
    dials: bool,
}

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
        let listed = addresses.iter().map(member).collect::<Result<_, AddressError>>()?;
        Ok(Self { listed, dials: true })
    }

    /// Those at the other ends of connections that are made already, each with its address, and no others.
    ///
    /// # Errors
    /// `Empty`.
    pub fn over(members: Vec<(String, Channels)>) -> Result<Self, GroupError> {
        if members.is_empty() { Err(GroupError::Empty) } else { Ok(Self { listed: members, dials: false }) }
    }

    /// As a group whose members `serve` at the other ends of their connections.
    fn into_group<S: ?Sized + Send + Sync>(
        self,
        serve: impl Fn(Channels) -> Arc<S> + Send + Sync + 'static,
        clock: SharedClock,
        random: SharedRandom,
    ) -> Group<S> {
        let Self { listed, dials } = self;
        let member = |(address, channels)| Member { address, service: serve(channels) };
        let members = listed.into_iter().map(member).collect();
        let dial = move |address: &str| Channels::lazy(address).ok().map(&serve);
        Group { dial: dials.then(|| Box::new(dial) as Dial<S>), ..Group::new(members, clock, random) }
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

/// Makes a member of an address. `None` for what is no address.
type Dial<S> = Box<dyn Fn(&str) -> Option<Arc<S>> + Send + Sync>;

/// The members of one group.
struct Group<S: ?Sized> {
    /// Those of the list, and after them leaders that were learned of.
    members: ArcSwap<Vec<Arc<Member<S>>>>,
    listed: usize,
    dial: Option<Dial<S>>,
    /// Which one answered last. A hint: any value is good.
    current: AtomicUsize,
    /// How long one member may say nothing.
    try_time: Duration,
    clock: SharedClock,
    random: SharedRandom,
}

impl<S: ?Sized + Send + Sync> Group<S> {
    fn new(members: Vec<Member<S>>, clock: SharedClock, random: SharedRandom) -> Self {
        let listed = members.len();
        let members = ArcSwap::from_pointee(members.into_iter().map(Arc::new).collect());
        Self { members, listed, dial: None, current: AtomicUsize::new(0), try_time: GROUP_TRY, clock, random }
    }

    fn count(&self) -> usize {
        self.members.load().len()
    }

    /// The member to try, and its place.
    fn current(&self) -> Result<(usize, Arc<Member<S>>), Status> {
        let members = self.members.load();
        let at = self.current.load(Ordering::Relaxed) % members.len().max(1);
        let member = members.get(at).ok_or_else(nobody)?;
        Ok((at, member.clone()))
    }

    /// The member at `at` was of no use. The turn goes to the one that it names as leader, but not to one that was `silent`
    /// just now; else to the next; unless somebody has moved on already.
    fn leave(&self, at: usize, status: &Status, silent: &[usize]) {
        let named = leader_of(status).and_then(|leader| self.place_of(&leader));
        let named = named.filter(|named| *named != at && !silent.contains(named));
        let next = named.unwrap_or((at + 1) % self.count().max(1));
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The place of the member at `address`. One that stands in no list has joined since that was written, and is remembered
    /// for as long as no [`GROUP_LEARNED_MAX`] others came after it.
    fn place_of(&self, address: &str) -> Option<usize> {
        let place = |members: &[Arc<Member<S>>]| members.iter().position(|m| m.address == address);
        if let Some(known) = place(&self.members.load()) {
            return Some(known);
        }
        let dial = self.dial.as_ref()?;
        let learned = Arc::new(Member { address: address.to_owned(), service: dial(address)? });
        tracing::info!(address, "a member that is in no list leads; is it to be put there?");
        self.members.rcu(|members| {
            let mut members = Vec::clone(members);
            if place(&members).is_none() {
                if members.len() >= self.listed + GROUP_LEARNED_MAX {
                    members.remove(self.listed);
                }
                members.push(learned.clone());
            }
            members
        });
        place(&self.members.load())
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
        let mut tries = 0;
        // One that is learned of meanwhile has its turn, too.
        while tries < self.count() {
            tries += 1;
            let (at, member) = self.current()?;
            let again = Request::from_parts(metadata.clone(), Default::default(), message.clone());
            match self.within(try_time, call(member.service.as_ref(), again)).await {
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
        if self.count() == 1 {
            return call.await;
        }
        match tokio::time::timeout(try_time, call).await {
            Ok(reply) => reply,
            Err(_) => Err(Status::unavailable("a member of the group does not answer")),
        }
    }

    /// All members at once; the first good answer, or what the last one said. For what each of them can do.
    async fn ask_any<Q, R>(
        &self,
        request: Request<Q>,
        call: impl Call<S, Q, R>,
    ) -> Result<Response<R>, Status>
    where
        Q: Clone + Send + Sync,
    {
        let (metadata, _, message) = request.into_parts();
        let members = self.members.load_full();
        let again = || Request::from_parts(metadata.clone(), Default::default(), message.clone());
        let mut asked: FuturesUnordered<_> =
            members.iter().map(|member| call(member.service.as_ref(), again())).collect();
        let mut last = nobody();
        let first_good = async {
            while let Some(reply) = asked.next().await {
                match reply {
                    Ok(reply) => return Ok(reply),
                    Err(status) => last = status,
                }
            }
            Err(last)
        };
        tokio::time::timeout(self.try_time, first_good).await.unwrap_or_else(|_| Err(nobody()))
    }

    /// One try, for calls that must not be repeated here; where it fails, the next call goes to the next member.
    async fn ask_once<R>(
        &self,
        call: impl for<'m> FnOnce(&'m S) -> BoxFuture<'m, Result<Response<R>, Status>> + Send,
    ) -> Result<Response<R>, Status> {
        let (at, member) = self.current()?;
        let reply = self.within(self.try_time, call(member.service.as_ref())).await;
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

/// Whether another member, or the same one a little later, may do what this one did not. The clock of one may be wrong, so
/// that it takes nobody's credential.
fn is_elsewhere(status: &Status) -> bool {
    use ErrorCode::{CredentialRefused, NotLeader, Unavailable};
    matches!(to_failure(status).code, NotLeader | Unavailable | CredentialRefused)
}

#[cfg(test)]
mod tests;
