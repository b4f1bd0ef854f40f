//! A network within the process, for tests and simulations: ways can be cut, in one direction too, and messages delayed,
//! lost, repeated or let pass each other, from a seed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use hay_common::random::SharedRandom;
use parking_lot::Mutex;

use crate::group::Group;
use crate::transport::{Acks, CallKind, Envelope, Parts, Transport, TransportError};

/// What may happen to messages that are on no cut way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Each message and each answer takes up to so long: later ones may pass it.
    pub delay_max: Duration,
    /// Of a thousand messages or answers, so many are lost.
    pub lost_per_mille: u32,
    /// Of a thousand messages, so many arrive twice.
    pub twice_per_mille: u32,
    /// A snapshot is cut after so many of its parts.
    pub snapshot_parts_max: Option<usize>,
}

/// The network. Members are reached by their addresses.
#[derive(Clone)]
pub struct Switchboard {
    inner: Arc<Mutex<Inner>>,
    random: SharedRandom,
}

#[derive(Default)]
struct Inner {
    groups: HashMap<String, Group>,
    cut: HashSet<(String, String)>,
    weather: Weather,
    snapshots_sent: u64,
}

impl Switchboard {
    /// A network in fine weather without any member.
    pub fn new(random: SharedRandom) -> Self {
        Self { inner: Arc::default(), random }
    }

    /// Has the member at `address` reached.
    pub fn plug(&self, address: &str, group: Group) {
        self.inner.lock().groups.insert(address.to_owned(), group);
    }

    /// Nobody is at `address` any more.
    pub fn unplug(&self, address: &str) {
        self.inner.lock().groups.remove(address);
    }

    /// Nothing passes from `from` to `to` until it is mended: neither messages nor answers.
    pub fn cut(&self, from: &str, to: &str) {
        self.inner.lock().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// Cuts every way between the two sides.
    pub fn part(&self, one: &[&str], other: &[&str]) {
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Mends all ways.
    pub fn mend(&self) {
        self.inner.lock().cut.clear();
    }

    /// Changes what may happen to messages.
    pub fn weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// Snapshots whose sending began.
    pub fn snapshots_sent(&self) -> u64 {
        self.inner.lock().snapshots_sent
    }

    /// The way out of the member at `address`.
    pub fn from(&self, address: &str) -> Arc<dyn Transport> {
        Arc::new(Line { board: self.clone(), address: address.to_owned() })
    }

    fn at(&self, address: &str) -> Result<Group, TransportError> {
        let group = self.inner.lock().groups.get(address).cloned();
        group.ok_or_else(|| TransportError::Unreachable(format!("nobody is at {address}")))
    }

    /// One message or answer on its way; does not come back where it is lost.
    async fn travel(&self, from: &str, to: &str) {
        let weather = self.inner.lock().weather;
        if weather.delay_max > Duration::ZERO {
            let share = f64::from(self.random.u32()) / f64::from(u32::MAX);
            tokio::time::sleep(weather.delay_max.mul_f64(share)).await;
        }
        let cut = self.inner.lock().cut.contains(&(from.to_owned(), to.to_owned()));
        if cut || self.happens(weather.lost_per_mille) {
            std::future::pending::<()>().await;
        }
    }

    fn happens(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.random.u32() % 1000 < per_mille
    }
}

struct Line {
    board: Switchboard,
    address: String,
}

impl Transport for Line {
    fn call(
        &self,
        address: &str,
        kind: CallKind,
        envelope: Envelope,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (board, from, to) = (self.board.clone(), self.address.clone(), address.to_owned());
        let arrive = async move {
            board.travel(&from, &to).await;
            let group = board.at(&to)?;
            // What has arrived is worked on even if nobody waits for the answer any more.
            if board.happens(board.inner.lock().weather.twice_per_mille) {
                let (group, envelope, board) = (group.clone(), envelope.clone(), board.clone());
                let (from, to) = (from.clone(), to.clone());
                tokio::spawn(async move {
                    board.travel(&from, &to).await;
                    let _ = group.receive(kind, envelope).await;
                });
            }
            let answer = tokio::spawn(async move { group.receive(kind, envelope).await }).await;
            board.travel(&to, &from).await;
            let answer = answer.map_err(|e| TransportError::Unreachable(e.to_string()))?;
            answer.map_err(|refusal| TransportError::from(hay_common::error::Failure::from(refusal)))
        };
        async move { tokio::time::timeout(timeout, arrive).await.unwrap_or(Err(TransportError::TimedOut)) }
            .boxed()
    }

    fn snapshot(&self, address: &str, parts: Parts) -> BoxFuture<'static, Result<Acks, TransportError>> {
        let (board, from, to) = (self.board.clone(), self.address.clone(), address.to_owned());
        async move {
            let most = {
                let mut inner = board.inner.lock();
                inner.snapshots_sent += 1;
                inner.weather.snapshot_parts_max.unwrap_or(usize::MAX)
            };
            board.travel(&from, &to).await;
            let group = board.at(&to)?;
            // A stream that is cut looks as if it had ended.
            let parts = parts.take(most).filter_map(|part| async move { part.ok().map(Ok) });
            let acks = group.receive_snapshot(parts.boxed()).await;
            acks.map_err(|refusal| TransportError::from(hay_common::error::Failure::from(refusal)))
        }
        .boxed()
    }
}
