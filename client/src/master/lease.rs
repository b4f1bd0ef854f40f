//! The write lease in use: which volumes new needles go to.
//!
//! Writers only read it. A task of its own has it renewed, so that no master call stands on the write path; without a
//! master the old lease goes on: its volumes refuse a stale epoch themselves.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::VolumeId;
use hay_common::limits::{ADDRESS_AVOIDED, LEASE_WAIT, VOLUME_AVOIDED, VOLUMES_AVOIDED_MAX};
use hay_common::model::{LeasedVolume, SizeClass};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynMaster;
use tokio::sync::{Notify, watch};

use super::locations::Locations;
use super::types::{Writable, WriteLease};
use crate::grpc::master as grpc;

/// Between tries for a lease while there is none that is good for everything. The last pause is kept up for ever.
const RETRY: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(50),
    pause_max: Duration::from_millis(500),
};

/// The lease in use, and what is avoided.
pub(crate) struct Leases {
    clock: SharedClock,
    current: ArcSwap<Current>,
    /// Moves large contents on to the next volume.
    turn: AtomicUsize,
    /// Volumes that could not be written to, and until when. They stay in the lease: while no master grants another, it is all
    /// that there is, and what was wrong with them may pass.
    avoided: ArcSwap<Vec<(VolumeId, Duration)>>,
    /// What comes last, and until when.
    last: ArcSwap<Vec<(AskedLast, Duration)>>,
    /// Asks the renewing task to come early.
    wanted: Notify,
    /// How many answers the masters have given, good or bad, and the last failure.
    answers: watch::Sender<(u64, Option<Failure>)>,
}

/// What others come before, as long as there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AskedLast {
    /// A server that could not be written to: all volumes with it.
    Server(String),
    /// A server that may have been silent while others answered: all volumes with it, but less far behind.
    Silent(String),
}

impl AskedLast {
    /// How far behind others it puts a volume; 0 where it does not concern it.
    fn rank(&self, volume: &LeasedVolume) -> u8 {
        match self {
            Self::Server(address) if volume.replicas.contains(address) => 2,
            Self::Silent(address) if volume.replicas.contains(address) => 1,
            Self::Server(_) | Self::Silent(_) => 0,
        }
    }
}

#[derive(Default)]
struct Current {
    small: Vec<Writable>,
    large: Vec<Writable>,
}

impl Current {
    fn of(&self, class: SizeClass) -> &[Writable] {
        match class {
            SizeClass::Small => &self.small,
            SizeClass::Large => &self.large,
        }
    }

    fn of_lease(lease: WriteLease) -> Self {
        let WriteLease { volumes, token, .. } = lease;
        let writable = |volume| Writable { volume: Arc::new(volume), token: token.clone() };
        let writables = volumes.into_iter().map(writable);
        let (small, large) = writables.partition(|w: &Writable| w.volume.class == SizeClass::Small);
        Self { small, large }
    }
}

/// See [`AskedLast::rank`].
fn rank(last: &[(AskedLast, Duration)], volume: &LeasedVolume, now: Duration) -> u8 {
    last.iter().filter(|(_, until)| now < *until).map(|(what, _)| what.rank(volume)).max().unwrap_or(0)
}

impl Leases {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            current: ArcSwap::default(),
            turn: AtomicUsize::default(),
            avoided: ArcSwap::default(),
            last: ArcSwap::default(),
            wanted: Notify::new(),
            answers: watch::Sender::new((0, None)),
        }
    }

    /// A volume for a content of `class`; waits only while there is none.
    pub(crate) async fn writable(&self, class: SizeClass) -> Result<Writable, Failure> {
        if let Some(writable) = self.pick(class) {
            return Ok(writable);
        }
        let mut answers = self.answers.subscribe();
        let waited = tokio::time::timeout(LEASE_WAIT, async {
            loop {
                // A class is empty only while the keeping task is at it anyway.
                if let Some(writable) = self.pick(class) {
                    return Ok(writable);
                }
                // That the disks are full is an answer: waiting does not make room.
                if let Some(failure) = &answers.borrow_and_update().1
                    && failure.code == ErrorCode::StorageFull
                {
                    return Err(failure.clone());
                }
                // The sender lives as long as self.
                let _ = answers.changed().await;
            }
        });
        match waited.await {
            Ok(answer) => answer,
            Err(_) => Err(self.answers.borrow().1.clone().unwrap_or_else(|| no_volume(class))),
        }
    }

    fn pick(&self, class: SizeClass) -> Option<Writable> {
        let current = self.current.load();
        let usable = self.usable(&current, class);
        let volumes = self.those_first(&usable);
        let place = match class {
            // Small appends share their syncs, which they can only in one volume: two at a time made batches half as
            // large and the disk sync twice. The masters begin each lease with another volume.
            SizeClass::Small => 0,
            SizeClass::Large => self.turn.fetch_add(1, Ordering::Relaxed) % volumes.len().max(1),
        };
        volumes.get(place).cloned()
    }

    /// The volumes of a class that are not avoided.
    fn usable<'a>(&self, current: &'a Current, class: SizeClass) -> Cow<'a, [Writable]> {
        let avoided = self.avoided.load();
        if avoided.is_empty() {
            return Cow::Borrowed(current.of(class));
        }
        let now = self.clock.monotonic();
        let is_avoided =
            |w: &&Writable| avoided.iter().any(|(id, until)| *id == w.volume.volume && now < *until);
        Cow::Owned(current.of(class).iter().filter(|w| !is_avoided(w)).cloned().collect())
    }

    /// Whether contents of both classes can be written.
    fn is_whole(&self) -> bool {
        let current = self.current.load();
        [SizeClass::Small, SizeClass::Large].iter().all(|class| !self.usable(&current, *class).is_empty())
    }

    /// The volumes that no others are to come before.
    fn those_first<'a>(&self, volumes: &'a [Writable]) -> Cow<'a, [Writable]> {
        let last = self.last.load();
        if last.is_empty() {
            return Cow::Borrowed(volumes);
        }
        let now = self.clock.monotonic();
        let best = volumes.iter().map(|w| rank(&last, &w.volume, now)).min();
        let first = volumes.iter().filter(|w| Some(rank(&last, &w.volume, now)) == best);
        Cow::Owned(first.cloned().collect())
    }

    /// Others come before it for a while, where there are any.
    pub(super) fn ask_last(&self, what: AskedLast) {
        let now = self.clock.monotonic();
        let until = now + ADDRESS_AVOIDED;
        self.last.rcu(|last| {
            let others = last.iter().filter(|(known, until)| *until > now && *known != what);
            let others = others.take(VOLUMES_AVOIDED_MAX - 1).cloned();
            others.chain([(what.clone(), until)]).collect::<Vec<_>>()
        });
    }

    /// Writes go around a server for a while, where they can.
    pub(crate) fn avoid_server(&self, address: &str) {
        self.ask_last(AskedLast::Server(address.to_owned()));
        self.wanted.notify_one();
    }

    /// See [`super::MasterClient::passed_over`].
    pub(crate) fn passed_over(&self, silent: &LeasedVolume, found: &LeasedVolume) {
        // A server that both have has just done its part.
        let suspects = silent.replicas.iter().filter(|address| !found.replicas.contains(address));
        suspects.for_each(|address| self.ask_last(AskedLast::Silent(address.clone())));
    }

    /// See [`super::MasterClient::writable_besides`].
    pub(crate) fn besides(&self, class: SizeClass, asked: &[Writable], draw: u32) -> Option<Writable> {
        // In each volume that is silent at least one server must be to blame. A volume with all of its servers would be
        // silent too; of the others, the one that meets the fewest suspects.
        let could_fare_better = |other: &&Writable| {
            asked.iter().all(|silent| {
                let has = |address| other.volume.replicas.contains(address);
                silent.volume.volume != other.volume.volume && !silent.volume.replicas.iter().all(has)
            })
        };
        let suspects = |other: &Writable| {
            let silent = asked.iter().flat_map(|silent| &silent.volume.replicas);
            silent.filter(|address| other.volume.replicas.contains(address)).count()
        };
        let (current, last, now) = (self.current.load(), self.last.load(), self.clock.monotonic());
        let volumes = self.usable(&current, class);
        // Those who draw differently spread over what looks the same: one of them finds the way.
        let from = draw as usize % volumes.len().max(1);
        let drawn = volumes.iter().cycle().skip(from).take(volumes.len());
        drawn.filter(could_fare_better).min_by_key(|w| (rank(&last, &w.volume, now), suspects(w))).cloned()
    }

    /// Whether the lease has a volume of `class` on servers that could be written to.
    pub(crate) fn has_others(&self, class: SizeClass) -> bool {
        let (current, last, now) = (self.current.load(), self.last.load(), self.clock.monotonic());
        self.usable(&current, class).iter().any(|w| rank(&last, &w.volume, now) < 2)
    }

    /// Gives `volume` out no more for a while.
    pub(crate) fn avoid(&self, volume: VolumeId) {
        let now = self.clock.monotonic();
        let until = now + VOLUME_AVOIDED;
        self.avoided.rcu(|avoided| {
            let others = avoided.iter().filter(|(known, until)| now < *until && *known != volume);
            let others: Vec<_> = others.copied().collect();
            // The latest of too many.
            let skipped = (others.len() + 1).saturating_sub(VOLUMES_AVOIDED_MAX);
            others.into_iter().skip(skipped).chain([(volume, until)]).collect::<Vec<_>>()
        });
        self.wanted.notify_one();
    }

    fn avoided(&self) -> Vec<VolumeId> {
        let now = self.clock.monotonic();
        let is_over = |avoided: &[(VolumeId, Duration)]| avoided.iter().any(|(_, until)| now >= *until);
        if is_over(&self.avoided.load()) {
            // Where none is avoided writers look at no clock.
            self.avoided
                .rcu(|avoided| avoided.iter().filter(|(_, until)| now < *until).copied().collect::<Vec<_>>());
        }
        self.avoided.load().iter().map(|(volume, _)| *volume).collect()
    }

    /// Why nothing can be written now.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.is_whole() {
            return Ok(());
        }
        let last = self.answers.borrow().1.as_ref().map(|failure| failure.message.clone());
        Err(last.unwrap_or_else(|| "no write lease for both classes of volumes yet".to_owned()))
    }

    /// Renews the lease for ever: at half its time, at once where it is wanted, again and again where it fails.
    pub(crate) async fn keep(&self, master: DynMaster, locations: Arc<Locations>, random: SharedRandom) {
        let mut attempt = 0;
        loop {
            let pause = match self.renew(&master, &locations).await {
                Some(half_life) => {
                    attempt = 0;
                    half_life
                }
                None => {
                    attempt += 1;
                    RETRY.pause(attempt, random.as_ref()).unwrap_or(RETRY.pause_max)
                }
            };
            if attempt > 0 {
                // Who waits for one hears of the next answer; asking faster helps nobody.
                tokio::time::sleep(pause).await;
            } else {
                let _ = tokio::time::timeout(pause, self.wanted.notified()).await;
            }
        }
    }

    /// Half of the new lease's life, or `None` where it must be tried again soon.
    async fn renew(&self, master: &DynMaster, locations: &Locations) -> Option<Duration> {
        let avoided = self.avoided();
        let answer = grpc::lease_write(master, avoided).await;
        let (failure, half_life) = match answer {
            Ok(lease) => {
                let half_life = Duration::from_millis(lease.ttl_ms / 2);
                lease.volumes.iter().for_each(|volume| locations.learn_leased(volume));
                self.current.store(Arc::new(Current::of_lease(lease)));
                // What was avoided while the call was under way is not usable by its answer.
                (None, self.is_whole().then_some(half_life))
            }
            Err(failure) => {
                tracing::warn!(code = failure.code.as_str(), message = failure.message, "no new write lease");
                (Some(failure), None)
            }
        };
        self.answers.send_modify(|(count, last)| {
            *count += 1;
            *last = failure;
        });
        half_life
    }
}

fn no_volume(class: SizeClass) -> Failure {
    Failure::new(
        ErrorCode::Unavailable,
        format!("there is no writable volume for {class:?} contents; try again later"),
    )
}
