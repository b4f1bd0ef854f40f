//! A volume brought to this server, or completed here, by set difference: names of immutable contents are compared, and what
//! is lacking is copied. May break off anywhere and begin again: what is there already is not copied twice.
//!
//! A needle that no source can give does not keep the others from being copied: the copy is finished then, is marked as one
//! that may lack needles, and what it lacks is named.

use std::sync::Arc;
use std::time::Duration;

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{
    APPEND_UNARY_BYTES_MAX, FILL_BYTES_PER_S, FILL_FAILURES_MAX, LIST_NEEDLES_PAGE_MAX, RPC_BATCH_ITEMS_MAX,
    RPC_MESSAGE_BYTES_MAX,
};
use hay_common::model::SizeClass;
use hay_proto::rpc::DynVolume;
use tokio::sync::watch;

use super::outcome::{FillError, Work};
use super::{Member, Replication};
use crate::grpc::copy::{self, Copied, Name};
use crate::grpc::failure;
use crate::server::stopping;
use crate::store::{AppendError, Begun, NewNeedle, StoreError};

/// A source that has not heard yet of the epoch of the repair is asked so often …
const LIST_TRIES: u32 = 5;
/// … after such pauses.
const LIST_PAUSE: Duration = Duration::from_millis(400);

/// What a master wants filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fill {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub class: SizeClass,
    pub sources: Vec<Member>,
    pub members: Vec<Member>,
}

/// What a source's list was worth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Whole,
    Incomplete,
}

impl Replication {
    /// Whether a fill should be begun now: it may have failed a moment ago, and masters ask again and again.
    pub fn is_fill_due(&self, fill: &Fill) -> bool {
        let Some(entry) = self.known(fill.volume) else { return true };
        entry.lock().filled.is_due(fill.epoch, self.clock.monotonic())
    }

    /// Fills a volume, unless this server is busy with another: the masters ask again.
    pub fn fill(self: &Arc<Self>, fill: Fill, mut stopped: watch::Receiver<bool>) {
        let Ok(place) = self.fills.clone().try_acquire_owned() else { return };
        let own = self.clone();
        let tries = {
            let entry = self.entry(fill.volume);
            let filled = &mut entry.lock().filled;
            filled.begin(fill.epoch);
            filled.unread
        };
        self.learn(&fill.members);
        self.learn(&fill.sources);
        tokio::spawn(async move {
            let _place = place;
            let filled = tokio::select! {
                () = stopping(&mut stopped) => return,
                filled = own.fill_now(&fill, tries) => filled,
            };
            if let Err(error) = &filled {
                tracing::warn!(volume = %fill.volume, %error, "the volume could not be filled yet");
            }
            own.entry(fill.volume).lock().filled.ended(filled, own.clock.monotonic());
            own.news.notify_one();
        });
    }

    /// Gives what could not be got, in words. `tries`: how often needles could not be read before.
    async fn fill_now(self: &Arc<Self>, fill: &Fill, tries: u32) -> Result<Option<String>, FillError> {
        let nodes: Vec<NodeId> = fill.members.iter().map(|member| member.node).collect();
        let Fill { volume, epoch, class, .. } = *fill;
        let begun = self.blocking(move |own| own.store.begin_fill(volume, epoch, class, &nodes)).await?;
        let mut work = Work::new(volume, epoch);
        let (mut best, mut silent) = (None, Vec::new());
        match begun {
            Begun::Done => {
                let known = self.entry(volume).lock().filled.problem.take();
                return Ok(known);
            }
            Begun::Anew => best = self.fill_from_own(&mut work).await?,
            Begun::Filling => {}
        }
        for source in fill.sources.iter().filter(|source| source.node != self.node) {
            match self.fill_from(source, &mut work).await? {
                Ok(Listed::Whole) => best = Some(Listed::Whole),
                Ok(Listed::Incomplete) => best = best.or(Some(Listed::Incomplete)),
                Err(failure) => silent.push(format!("{}: {}", source.address, failure.message)),
            }
        }
        let best = best.ok_or_else(|| FillError::NoSource(silent.join("; ")))?;
        work.unread.retain(|(key, cookie, _), _| !self.store.has(volume, *key, *cookie));
        let lacks = !work.unread.is_empty() || work.and_more;
        if (best == Listed::Incomplete || lacks) && !silent.is_empty() {
            // The one that did not answer may have what the others have lost.
            return Err(FillError::NoSource(silent.join("; ")));
        }
        if let Some(why) = work.unread.values().flatten().next().filter(|_| tries < FILL_FAILURES_MAX) {
            return Err(FillError::Unread(work.unread.len(), why.clone()));
        }
        let incomplete = best == Listed::Incomplete || lacks;
        self.blocking(move |own| own.store.finish_fill(volume, epoch, incomplete)).await?;
        for (key, cookie, _) in work.unread.keys() {
            tracing::error!(%volume, %key, cookie = cookie.0, "no copy could give this needle");
        }
        tracing::info!(%volume, copied = work.copied, incomplete, "the volume is filled");
        Ok(lacks.then(|| work.lacking()))
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FillError> {
        let own = self.clone();
        let done = self.store.blocking(move || work(&own)).await;
        Ok(done.map_err(|_| FillError::Thread)??)
    }

    /// What can be read of the file that is written anew. `None` where it can't be opened.
    async fn fill_from_own(self: &Arc<Self>, work: &mut Work) -> Result<Option<Listed>, FillError> {
        let volume = work.volume;
        let was_filling = self.store.state(volume).is_none_or(|state| state.filling);
        let mut after: Option<Name> = None;
        loop {
            let (own, behind) = (self.clone(), after.map(|(key, cookie, _)| (key, cookie)));
            let page = self.store.blocking(move || own.store.names(volume, behind, LIST_NEEDLES_PAGE_MAX));
            let Ok(page) = page.await.map_err(|_| FillError::Thread)? else { return Ok(None) };
            for batch in batches(self.lacking(volume, &page.names)) {
                let began = self.clock.monotonic();
                let mut needles = Vec::with_capacity(batch.len());
                for name in batch {
                    match self.store.read(volume, name.0, name.1).await {
                        Ok(read) => {
                            let codec = u32::from(read.codec);
                            let parts = vec![read.data];
                            needles.push(NewNeedle::new(work.epoch, name.0, name.1, codec, parts, None)?);
                        }
                        Err(error) => work.could_not_read(name, &failure::read(error)),
                    }
                }
                self.put(work, needles, began).await?;
            }
            after = page.names.last().copied();
            if !page.more || after.is_none() {
                let is_whole = !page.incomplete && !was_filling;
                return Ok(Some(if is_whole { Listed::Whole } else { Listed::Incomplete }));
            }
        }
    }

    fn lacking(&self, volume: VolumeId, names: &[Name]) -> Vec<Name> {
        let lacking = names.iter().filter(|(key, cookie, _)| !self.store.has(volume, *key, *cookie));
        lacking.copied().collect()
    }

    /// All that this source lists and that is not here. The inner error is the source's: another may do.
    async fn fill_from(
        &self,
        source: &Member,
        work: &mut Work,
    ) -> Result<Result<Listed, Failure>, FillError> {
        let server = match self.peers.volume(&source.address) {
            Ok(server) => server,
            Err(failure) => return Ok(Err(failure)),
        };
        let volume = work.volume;
        let (mut after, mut tries) = (None, 1);
        loop {
            let page = match copy::list(&server, volume, after).await {
                Ok(page) => page,
                Err(failure) if failure.code == ErrorCode::Unavailable && tries < LIST_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LIST_PAUSE).await;
                    continue;
                }
                Err(failure) => return Ok(Err(failure)),
            };
            for batch in batches(self.lacking(volume, &page.names)) {
                if let Err(failure) = self.copy_batch(&server, batch, work).await? {
                    return Ok(Err(failure));
                }
            }
            after = page.names.last().copied();
            if !page.more || after.is_none() {
                return Ok(Ok(if page.incomplete { Listed::Incomplete } else { Listed::Whole }));
            }
        }
    }

    /// Copies needles that fit into one message, or a large one. The inner error is the source's.
    async fn copy_batch(
        &self,
        server: &DynVolume,
        batch: Vec<Name>,
        work: &mut Work,
    ) -> Result<Result<(), Failure>, FillError> {
        let began = self.clock.monotonic();
        let Work { volume, epoch, .. } = *work;
        let read = match batch.as_slice() {
            [large] if large.2 as usize > APPEND_UNARY_BYTES_MAX => {
                vec![copy::read_large(server, volume, *large).await]
            }
            small => match copy::read_small(server, volume, small).await {
                Ok(read) => read,
                Err(failure) => return Ok(Err(failure)),
            },
        };
        let mut needles = Vec::with_capacity(read.len());
        for (name, read) in batch.iter().zip(read) {
            match read {
                Ok(Copied { name: (key, cookie, _), codec, parts, crc }) => {
                    needles.push(NewNeedle::new(epoch, key, cookie, codec, parts, Some(crc))?);
                }
                Err(failure) => work.could_not_read(*name, &failure),
            }
        }
        self.put(work, needles, began).await.map(Ok)
    }

    /// Stores what was copied since `began`, no faster than a fill may.
    async fn put(&self, work: &mut Work, needles: Vec<NewNeedle>, began: Duration) -> Result<(), FillError> {
        let bytes: u64 = needles.iter().map(|needle| needle.length() as u64).sum();
        work.copied += needles.len() as u64;
        for answer in self.store.fill(work.volume, needles).await {
            match answer {
                // Listed by two sources.
                Ok(()) | Err(AppendError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        metrics::counter!("hay_volume_fill_bytes_total").increment(bytes);
        let least = Duration::from_micros(bytes.saturating_mul(1_000_000) / FILL_BYTES_PER_S);
        tokio::time::sleep(least.saturating_sub(self.clock.monotonic().saturating_sub(began))).await;
        Ok(())
    }
}

/// Needles that go into one message together; large ones alone.
fn batches(names: Vec<Name>) -> Vec<Vec<Name>> {
    let mut batches: Vec<Vec<Name>> = Vec::new();
    let mut room = 0;
    let mut places = 0;
    for name in names {
        let bytes = name.2 as usize;
        if bytes > APPEND_UNARY_BYTES_MAX {
            batches.push(vec![name]);
            places = 0;
            continue;
        }
        match batches.last_mut() {
            Some(batch) if places > 0 && bytes <= room => batch.push(name),
            _ => {
                batches.push(vec![name]);
                room = RPC_MESSAGE_BYTES_MAX;
                places = RPC_BATCH_ITEMS_MAX;
            }
        }
        room = room.saturating_sub(bytes);
        places -= 1;
    }
    batches
}
