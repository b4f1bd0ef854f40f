//! A content onto whichever volume takes it. What goes wrong with one volume is repeated on another, and a volume that is
//! silent is not waited for alone: after a while the content is stored on a second one too, and the first answer counts.
//! The other needle, should it come to be, is nobody's, as after any answer that was lost.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use hay_common::error::{ErrorCode, Failure, Remedy};
use hay_common::ids::{Cookie, Epoch, NeedleKey, VolumeId};
use hay_common::limits::{
    HEDGE_AFTER, HEDGE_AGAIN, HEDGE_BYTES_PER_S, HEDGES_PER_APPEND_MAX, SMALL_CONTENT_BYTES_MAX,
};
use hay_common::model::{Codec, SizeClass};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;

use crate::hedges::HedgeBudget;
use crate::master::{MasterClient, Writable};
use crate::volume::{VolumeClient, is_of_server};

/// How often a content is tried on other volumes.
pub const REPEATS: RetryPolicy = RetryPolicy {
    attempts_max: 8,
    pause_first: Duration::from_millis(10),
    pause_max: Duration::from_secs(1),
};

/// Where a content is now, on every replica and synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch in which it was appended.
    pub epoch: Epoch,
    /// The needle's cookie.
    pub cookie: Cookie,
    /// Volumes that it was begun on besides, because others were silent. Each may come to hold a needle of it that nobody
    /// refers to.
    pub hedges: u32,
}

/// Stores contents. Cheap to clone.
#[derive(Clone)]
pub struct Writer(Arc<Inner>);

struct Inner {
    master: MasterClient,
    volumes: VolumeClient,
    random: SharedRandom,
    hedges: HedgeBudget,
}

/// What is to be stored.
struct Content {
    key: NeedleKey,
    codec: Codec,
    class: SizeClass,
    data: Bytes,
}

impl Writer {
    /// Onto the volumes that `master` leases, by `volumes`.
    pub fn new(master: MasterClient, volumes: VolumeClient, random: SharedRandom) -> Self {
        Self(Arc::new(Inner { master, volumes, random, hedges: HedgeBudget::default() }))
    }

    /// Stores `data` under `key`, with a cookie of its own.
    ///
    /// # Errors
    /// What the last try said.
    pub async fn store(&self, key: NeedleKey, codec: Codec, data: Bytes) -> Result<Stored, Failure> {
        let class = if data.len() <= SMALL_CONTENT_BYTES_MAX { SizeClass::Small } else { SizeClass::Large };
        let content = Content { key, codec, class, data };
        self.0.hedges.earn(content.data.len());
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.try_hedged(&content).await {
                Ok(stored) => return Ok(stored),
                Err(failure) => failure,
            };
            // Other volumes may be on other disks; beyond them, full is full and the client should hear it soon.
            let full = failure.code == ErrorCode::StorageFull;
            let hopeless = full && attempt >= 2 && !self.0.master.has_others(class);
            if hopeless || !elsewhere(failure.code) {
                return Err(failure);
            }
            let Some(pause) = REPEATS.pause(attempt, self.0.random.as_ref()) else { return Err(failure) };
            tracing::debug!(code = %failure.code, attempt, "a content is repeated on another volume");
            if attempt > 1 {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// One try: on one volume, and on others too while there is no answer.
    async fn try_hedged(&self, content: &Content) -> Result<Stored, Failure> {
        let first = self.0.master.writable(content.class).await?;
        let mut trying = pin!(self.try_at(first.clone(), content));
        let patience = patience(content.data.len());
        match tokio::time::timeout(patience, trying.as_mut()).await {
            Ok(outcome) => outcome,
            Err(_) => self.hedge(first, trying.boxed(), content, patience).await,
        }
    }

    /// The first good answer of a try that is silent and of others that are begun now; where there is none, what the weightiest
    /// failure said.
    async fn hedge<'a>(
        &'a self,
        silent: Writable,
        trying: BoxFuture<'a, Result<Stored, Failure>>,
        content: &'a Content,
        patience: Duration,
    ) -> Result<Stored, Failure> {
        let at = silent.volume.volume;
        let mut silent = vec![silent];
        let mut tries = FuturesUnordered::from_iter([trying.map(move |tried| (at, tried)).boxed()]);
        let mut begun = 0;
        let mut failure: Option<Failure> = None;
        loop {
            let may = begun < HEDGES_PER_APPEND_MAX && failure.as_ref().is_none_or(|f| elsewhere(f.code));
            // One that can't be paid for yet may be soon.
            let mut pause = HEDGE_AGAIN;
            if let Some(other) = may.then(|| self.another(&silent, content)).flatten() {
                pause = patience;
                let at = other.volume.volume;
                tracing::debug!(volume = %at, "a silent volume: another one is tried too");
                begun += 1;
                silent.push(other.clone());
                tries.push(self.try_at(other, content).map(move |tried| (at, tried)).boxed());
            }
            let outcome =
                if may { tokio::time::timeout(pause, tries.next()).await } else { Ok(tries.next().await) };
            match outcome {
                // Still silent, all of them.
                Err(_) => {}
                Ok(Some((at, Ok(stored)))) => {
                    self.found(&silent, at, content);
                    return Ok(Stored { hedges: begun as u32, ..stored });
                }
                Ok(Some((at, Err(next)))) => {
                    // It has spoken. What can't be helped elsewhere counts more than what can.
                    silent.retain(|target| target.volume.volume != at);
                    failure = failure.filter(|before| !elsewhere(before.code)).or(Some(next));
                }
                Ok(None) => {
                    let nobody = || Failure::new(ErrorCode::Internal, "no try is under way");
                    return Err(failure.unwrap_or_else(nobody));
                }
            }
        }
    }

    /// One answered while others that were asked before it are silent: their servers are asked last for a while.
    fn found(&self, silent: &[Writable], at: VolumeId, content: &Content) {
        let Some(place) = silent.iter().position(|target| target.volume.volume == at) else { return };
        let (before, rest) = silent.split_at(place);
        if let (false, Some(found)) = (before.is_empty(), rest.first()) {
            before.iter().for_each(|target| self.0.master.passed_over(&target.volume, &found.volume));
            self.0.hedges.refund(content.data.len());
        }
    }

    /// Another volume than the `silent` ones, if one is worth it.
    fn another(&self, silent: &[Writable], content: &Content) -> Option<Writable> {
        let other = self.0.master.writable_besides(content.class, silent, self.0.random.u32())?;
        self.0.hedges.spend(content.data.len()).then_some(other)
    }

    async fn try_at(&self, target: Writable, content: &Content) -> Result<Stored, Failure> {
        let cookie = Cookie(self.0.random.u32());
        let (volume, data) = (&target.volume, content.data.clone());
        let appended =
            self.0.volumes.append(volume, &target.token, content.key, cookie, content.codec, data).await;
        match appended {
            Ok(()) => Ok(Stored { volume: volume.volume, epoch: volume.epoch, cookie, hedges: 0 }),
            Err(failure) => {
                self.note(&target, failure.code);
                Err(failure)
            }
        }
    }

    /// What a failure says of a volume and of its first server.
    fn note(&self, target: &Writable, code: ErrorCode) {
        // A full disk or a full queue passes, and is no fault of the volume's: avoided, it would stay out of use for long
        // after. That a needle is there, after an answer that was lost, is none either: the next try has another cookie.
        let passing =
            matches!(code, ErrorCode::StorageFull | ErrorCode::Overloaded | ErrorCode::NeedleExists);
        if elsewhere(code) && !passing {
            self.0.master.avoid(target.volume.volume);
        }
        // The other volumes of a server that does not answer would be no better.
        let is_server = code == ErrorCode::StorageFull || is_of_server(code);
        if let Some(primary) = target.volume.replicas.first().filter(|_| is_server) {
            self.0.master.avoid_server(primary);
        }
    }
}

/// How long a volume may be silent about so many bytes before another one is tried too.
fn patience(bytes: usize) -> Duration {
    HEDGE_AFTER + Duration::from_micros(bytes as u64 * 1_000_000 / HEDGE_BYTES_PER_S)
}

/// Whether another volume, or the same one later, may take what this one did not.
fn elsewhere(code: ErrorCode) -> bool {
    matches!(code.remedy(), Remedy::Refresh | Remedy::RetryLater)
}

#[cfg(test)]
mod tests;
