//! Ingest sessions: one to begin with, more where many uploads hold it, replaced long before they expire.
//!
//! The filer keeps a session until it expires, also after its client has ended, and has room for so many: a client
//! opens no more than it uses.
//!
//! A session stands behind the copies that were appended under it: a commit that names an expired one is refused,
//! because a reconciler may by then have taken its needles for garbage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::SessionId;
use hay_common::limits::{SESSION_WINDOW, SESSIONS_PER_CLIENT};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynFiler;
use tokio::sync::Mutex;

use crate::grpc::filer::{Ticket, open_sessions};

/// With more holders than this a session is shared no further while another can be had: the filer remembers the
/// answers to [`SESSION_WINDOW`] commands of a session, and a command in flight must stay among them.
const HOLDERS_MAX: usize = SESSION_WINDOW as usize / 8;

/// One ingest session. Held for as long as an upload takes, which must end within half of a session's life: one that
/// takes longer is refused at its end with `session_expired`.
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
    /// How an opening is tried again.
    retry: RetryPolicy,
    /// Held while a new grant is fetched: one call for all who wait. In it the last failure and when it came, by the
    /// monotonic clock: those who waited meanwhile share it.
    granting: Mutex<Option<(Duration, Failure)>>,
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
    pub(crate) fn new(filer: DynFiler, clock: SharedClock, random: SharedRandom, retry: RetryPolicy) -> Self {
        Self { filer, clock, random, retry, grant: ArcSwap::default(), granting: Mutex::new(None) }
    }

    /// A session with at least half of its life before it; with less only while the filer grants no new one.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Failure> {
        if let Some(session) = self.pick(|grant| grant.renew_at) {
            // The one in the grant is no holder; the others are uploads, this one among them.
            if Arc::strong_count(&session) > HOLDERS_MAX + 1 {
                self.grow().await;
            }
            return Ok(session);
        }
        let asked = self.clock.monotonic();
        let mut granting = self.granting.lock().await;
        if let Some(session) = self.pick(|grant| grant.renew_at) {
            return Ok(session);
        }
        let renewed = match granting.as_ref() {
            Some((when, failure)) if *when > asked => Err(failure.clone()),
            _ => self.renew().await,
        };
        *granting = renewed.as_ref().err().map(|failure| (self.clock.monotonic(), failure.clone()));
        drop(granting);
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

    /// The one with the fewest holders.
    fn pick(&self, until: impl Fn(&Grant) -> Duration) -> Option<Arc<Session>> {
        let grant = self.grant.load();
        if self.clock.monotonic() >= until(&grant) {
            return None;
        }
        grant.sessions.iter().min_by_key(|session| Arc::strong_count(session)).cloned()
    }

    async fn renew(&self) -> Result<(), Failure> {
        let opened = self.open().await?;
        self.grant.store(Arc::new(opened));
        Ok(())
    }

    /// One session more for those who come next, unless there are enough, or one is being opened already.
    async fn grow(&self) {
        let Ok(granting) = self.granting.try_lock() else { return };
        let before = self.grant.load_full();
        if before.sessions.is_empty() || before.sessions.len() >= SESSIONS_PER_CLIENT {
            return;
        }
        match self.open().await {
            Ok(opened) => {
                let sessions = before.sessions.iter().chain(&opened.sessions).cloned().collect();
                // They are replaced together, so with the oldest.
                let grown = Grant {
                    sessions,
                    renew_at: before.renew_at.min(opened.renew_at),
                    expires_at: before.expires_at.min(opened.expires_at),
                };
                // Not if they were retired meanwhile: the next who comes opens anew.
                self.grant.compare_and_swap(&before, Arc::new(grown));
            }
            Err(failure) => tracing::debug!(code = %failure.code, "no further ingest session"),
        }
        drop(granting);
    }

    /// Asked for again under the same id it is the same session.
    async fn granted(&self, id: SessionId) -> Result<u64, Failure> {
        let mut attempt = 0;
        loop {
            let failure = match open_sessions(&self.filer, &[id]).await {
                Err(failure) if super::unanswered(&failure) => failure,
                answered => return answered,
            };
            attempt += 1;
            let Some(pause) = self.retry.pause(attempt, self.random.as_ref()) else { return Err(failure) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn open(&self) -> Result<Grant, Failure> {
        let id = SessionId::from_random(self.random.u128());
        // Taken before the call: the life that is counted from here ends before the real one.
        let now = self.clock.monotonic();
        let ttl = Duration::from_millis(self.granted(id).await?);
        let sessions = vec![Arc::new(Session::new(id))];
        Ok(Grant { sessions, renew_at: now + ttl / 2, expires_at: now + ttl })
    }
}
