//! A volume brought to this server, or completed here, by set difference: names of immutable contents are compared, and what
//! is lacking is copied. May break off anywhere and begin again: what is there already is not copied twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hay_common::error::Failure;
use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{
    APPEND_UNARY_BYTES_MAX, FILL_BYTES_PER_S, RPC_BATCH_ITEMS_MAX, RPC_MESSAGE_BYTES_MAX,
};
use hay_common::model::SizeClass;
use hay_proto::rpc::DynVolume;
use tokio::sync::watch;

use super::{Member, Replication};
use crate::grpc::copy::{self, Copied, Name};
use crate::server::stopping;
use crate::store::{AppendError, NewNeedle, StoreError};

/// Needles that no source could give so far; beyond it there is more wrong than a fill can mend.
const UNREAD_MAX: usize = 10_000;

/// What a master wants filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fill {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub class: SizeClass,
    pub sources: Vec<Member>,
    pub members: Vec<Member>,
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("{0}: {cause}", cause = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Store(#[from] StoreError),
    #[error("a needle could not be stored: {0}")]
    Append(#[from] AppendError),
    #[error("no source could list its needles: {0}")]
    NoSource(String),
    #[error("{0} needles can't be read from any source")]
    Unread(usize),
    #[error("a thread of the program failed")]
    Thread,
}

/// What a source's list was worth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Whole,
    Incomplete,
}

impl Replication {
    /// Fills a volume, unless this server is busy with another: the masters ask again.
    pub fn fill(self: &Arc<Self>, fill: Fill, mut stopped: watch::Receiver<bool>) {
        let Ok(place) = self.fills.clone().try_acquire_owned() else { return };
        let own = self.clone();
        self.entry(fill.volume).lock().fill_failed = None;
        self.learn(&fill.members);
        self.learn(&fill.sources);
        tokio::spawn(async move {
            let _place = place;
            let filled = tokio::select! {
                () = stopping(&mut stopped) => return,
                filled = own.fill_now(&fill) => filled,
            };
            let failed = match filled {
                Ok(copied) => {
                    tracing::info!(volume = %fill.volume, copied, "the volume is filled");
                    None
                }
                Err(error) => {
                    tracing::warn!(volume = %fill.volume, %error, "the volume could not be filled yet");
                    Some(format!("it could not be filled yet: {error}"))
                }
            };
            own.entry(fill.volume).lock().fill_failed = failed;
            own.news.notify_one();
        });
    }

    async fn fill_now(self: &Arc<Self>, fill: &Fill) -> Result<u64, FillError> {
        let nodes: Vec<NodeId> = fill.members.iter().map(|member| member.node).collect();
        let Fill { volume, epoch, class, .. } = *fill;
        self.blocking(move |own| own.store.begin_fill(volume, epoch, class, &nodes)).await?;
        let (mut copied, mut unread) = (0, BTreeSet::new());
        let (mut best, mut silent) = (None, Vec::new());
        for source in fill.sources.iter().filter(|source| source.node != self.node) {
            match self.fill_from(fill, source, &mut copied, &mut unread).await? {
                Ok(Listed::Whole) => best = Some(Listed::Whole),
                Ok(Listed::Incomplete) => best = best.or(Some(Listed::Incomplete)),
                Err(failure) => silent.push(format!("{}: {}", source.address, failure.message)),
            }
        }
        let best = best.ok_or_else(|| FillError::NoSource(silent.join("; ")))?;
        if best == Listed::Incomplete && !silent.is_empty() {
            // The one that did not answer may know of needles that the others have lost.
            return Err(FillError::NoSource(silent.join("; ")));
        }
        unread.retain(|(key, cookie, _): &Name| !self.store.has(volume, *key, *cookie));
        if !unread.is_empty() {
            return Err(FillError::Unread(unread.len()));
        }
        let incomplete = best == Listed::Incomplete;
        self.blocking(move |own| own.store.finish_fill(volume, epoch, incomplete)).await?;
        Ok(copied)
    }

    async fn blocking(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), FillError> {
        let own = self.clone();
        let done = self.store.blocking(move || work(&own)).await;
        Ok(done.map_err(|_| FillError::Thread)??)
    }

    /// All that this source lists and that is not here. The inner error is the source's: another may do.
    async fn fill_from(
        &self,
        fill: &Fill,
        source: &Member,
        copied: &mut u64,
        unread: &mut BTreeSet<Name>,
    ) -> Result<Result<Listed, Failure>, FillError> {
        let server = match self.peers.volume(&source.address) {
            Ok(server) => server,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut after = None;
        loop {
            let page = match copy::list(&server, fill.volume, after).await {
                Ok(page) => page,
                Err(failure) => return Ok(Err(failure)),
            };
            let lacking =
                page.names.iter().filter(|(key, cookie, _)| !self.store.has(fill.volume, *key, *cookie));
            for batch in batches(lacking.copied().collect()) {
                *copied += self.copy_batch(fill, &server, batch, unread).await?;
            }
            after = page.names.last().copied();
            if !page.more || after.is_none() {
                return Ok(Ok(if page.incomplete { Listed::Incomplete } else { Listed::Whole }));
            }
        }
    }

    /// Copies needles that fit into one message, or a large one, no faster than a fill may. Says how many.
    async fn copy_batch(
        &self,
        fill: &Fill,
        server: &DynVolume,
        batch: Vec<Name>,
        unread: &mut BTreeSet<Name>,
    ) -> Result<u64, FillError> {
        let began = self.clock.monotonic();
        let read = match batch.as_slice() {
            [large] if large.2 as usize > APPEND_UNARY_BYTES_MAX => {
                vec![copy::read_large(server, fill.volume, *large).await]
            }
            small => match copy::read_small(server, fill.volume, small).await {
                Ok(read) => read,
                Err(failure) => small.iter().map(|_| Err(failure.clone())).collect(),
            },
        };
        let (mut needles, mut bytes) = (Vec::with_capacity(read.len()), 0);
        for (name, read) in batch.iter().zip(read) {
            match read {
                Ok(Copied { name: (key, cookie, length), codec, parts, crc }) => {
                    bytes += u64::from(length);
                    needles.push(NewNeedle::new(fill.epoch, key, cookie, codec, parts, Some(crc))?);
                }
                Err(failure) => {
                    let (volume, code) = (fill.volume, failure.code);
                    tracing::warn!(%volume, key = %name.0, %code, message = failure.message, "a source could not give a needle");
                    unread.insert(*name);
                    if unread.len() > UNREAD_MAX {
                        return Err(FillError::Unread(unread.len()));
                    }
                }
            }
        }
        let count = needles.len() as u64;
        for answer in self.store.fill(fill.volume, needles).await {
            match answer {
                // Listed by two sources.
                Ok(()) | Err(AppendError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        metrics::counter!("hay_volume_fill_bytes_total").increment(bytes);
        let least = Duration::from_micros(bytes.saturating_mul(1_000_000) / FILL_BYTES_PER_S);
        tokio::time::sleep(least.saturating_sub(self.clock.monotonic().saturating_sub(began))).await;
        Ok(count)
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
