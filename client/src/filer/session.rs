//! Ingest sessions: granted in batches, used round about, replaced long before they expire.
//!
//! A session stands behind the copies that were appended under it: a commit that names an expired one is refused,
//! because a reconciler may by then have taken its needles for garbage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::SessionId;
use hay_common::limits::SESSIONS_PER_CLIENT;
use hay_common::random::SharedRandom;
use hay_proto::rpc::DynFiler;
use tokio::sync::Mutex;

use crate::grpc::filer::{Ticket, open_sessions};

/// One ingest session. Held for as long as an upload takes.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    used: AtomicU64,
}

impl Session {
    fn new(id: SessionId) -> Self {
        Self { id, used: AtomicU64::new(0) }
    }

    /// Its name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The next sequence number. Taken right before a command is first sent: one that waited for long may be older
    /// than the answers that the filer keeps.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { session: self.id, sequence: self.used.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// The sessions that new work is given.
pub(crate) struct SessionPool {
    filer: DynFiler,
    clock: SharedClock,
    random: SharedRandom,
    grant: ArcSwap<Grant>,
    turn: AtomicUsize,
    /// Held while a new grant is fetched: one call for all who wait.
    granting: Mutex<()>,
}

#[derive(Default)]
struct Grant {
    sessions: Vec<Arc<Session>>,
    /// By the monotonic clock: past this they are replaced, while those who hold one still finish under it.
    renew_at: Duration,
    /// Past this none may be given out.
    expires_at: Duration,
}

impl SessionPool {
    pub(crate) fn new(filer: DynFiler, clock: SharedClock, random: SharedRandom) -> Self {
        Self {
            filer,
            clock,
            random,
            grant: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            granting: Mutex::new(()),
        }
    }

    /// A session with at least half of its life before it; with less only while the filer grants no new one.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Failure> {
        if let Some(session) = self.pick(|grant| grant.renew_at) {
            return Ok(session);
        }
        let granted = self.granting.lock().await;
        if let Some(session) = self.pick(|grant| grant.renew_at) {
            return Ok(session);
        }
        let renewed = self.renew().await;
        drop(granted);
        match (self.pick(|grant| grant.expires_at), renewed) {
            (Some(session), _) => Ok(session),
            (None, Err(failure)) => Err(failure),
            (None, Ok(())) => {
                Err(Failure::new(ErrorCode::Unavailable, "the filer granted sessions without a life"))
            }
        }
    }

    /// The filer does not know `session`: so neither those that were granted with it. None of them is given out
    /// any more.
    pub(crate) fn retire(&self, session: SessionId) {
        self.grant.rcu(|grant| {
            let granted = grant.sessions.iter().any(|known| known.id == session);
            if granted { Arc::new(Grant::default()) } else { grant.clone() }
        });
    }

    fn pick(&self, until: impl Fn(&Grant) -> Duration) -> Option<Arc<Session>> {
        let grant = self.grant.load();
        if grant.sessions.is_empty() || self.clock.monotonic() >= until(&grant) {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        grant.sessions.get(turn % grant.sessions.len()).cloned()
    }

    async fn renew(&self) -> Result<(), Failure> {
        let ids: Vec<_> =
            (0..SESSIONS_PER_CLIENT).map(|_| SessionId::from_random(self.random.u128())).collect();
        // Taken before the call: the life that is counted from here ends before the real one.
        let now = self.clock.monotonic();
        let ttl = Duration::from_millis(open_sessions(&self.filer, &ids).await?);
        let sessions = ids.into_iter().map(|id| Arc::new(Session::new(id))).collect();
        self.grant.store(Arc::new(Grant { sessions, renew_at: now + ttl / 2, expires_at: now + ttl }));
        Ok(())
    }
}
