//! Where volumes are: fetched when first asked for, kept right by the masters' changes, and kept at all until something newer
//! is known.
//!
//! An old place is harmless. A needle is named by its content, so whoever has it has the right one, and who has it no more
//! says so. So while no majority of the masters answers, what is known has to do, and what any of them knows as it stands.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::VolumeId;
use hay_common::limits::{
    LOCATE_CONFIRM_AGAIN, LOCATE_PATIENCE, LOCATIONS_CACHED_MAX, LOCATIONS_KEPT, LOCATIONS_PER_FETCH,
};
use hay_common::model::LeasedVolume;
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynMaster;
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::types::{VolumeInfo, VolumePage};
use crate::grpc::master as grpc;
use crate::places::Places;

/// Between tries to watch the map.
const RETRY: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(50),
    pause_max: Duration::from_secs(5),
};

/// What is known of one volume.
struct Entry {
    places: Places,
    /// Of the map that said so.
    version: u64,
    /// When it was said.
    since: Duration,
    /// There may be something newer.
    is_doubtful: bool,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<VolumeId, Entry>,
    /// Grows whenever a change came in or all became doubtful: what was fetched before may be older.
    changes: u64,
}

/// What a reader may do with what is known.
enum Known {
    Good(Places),
    /// Good, and to be asked for anew beside it.
    Old(Places),
    /// To be asked for anew first, where somebody can say more.
    Doubtful(Places),
    Nothing,
}

/// The places of volumes.
pub(crate) struct Locations {
    clock: SharedClock,
    cache: RwLock<Cache>,
    /// From when on the masters are asked to confirm what they say: not while none of them tells of changes, and not for a
    /// while after they could not.
    pub(super) confirms_from: parking_lot::Mutex<Duration>,
    /// Held while places are fetched: one call for all who miss the same. In it when nobody answered last, and why: those who
    /// waited meanwhile share it.
    fetching: Mutex<Option<(Duration, Failure)>>,
    is_refreshing: AtomicBool,
}

impl Locations {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            cache: RwLock::default(),
            confirms_from: parking_lot::Mutex::new(Duration::MAX),
            fetching: Mutex::new(None),
            is_refreshing: AtomicBool::new(false),
        }
    }

    /// Where `volume` is.
    pub(crate) async fn locate(
        self: &Arc<Self>,
        master: &DynMaster,
        volume: VolumeId,
    ) -> Result<Places, Failure> {
        match self.known(volume) {
            Known::Good(places) => return Ok(places),
            Known::Old(places) => {
                self.refresh(master, volume);
                return Ok(places);
            }
            Known::Doubtful(places) if !self.may_confirm() => return Ok(places),
            Known::Doubtful(_) | Known::Nothing => {}
        }
        let asked = self.clock.monotonic();
        let mut fetching = self.fetching.lock().await;
        if let Known::Good(places) | Known::Old(places) = self.known(volume) {
            return Ok(places);
        }
        let fetched = match &*fetching {
            Some((when, failure)) if *when > asked => Err(failure.clone()),
            _ => self.fetch(master, volume).await,
        };
        *fetching = fetched.as_ref().err().map(|failure| (self.clock.monotonic(), failure.clone()));
        drop(fetching);
        let found = match self.known(volume) {
            Known::Good(places) | Known::Old(places) | Known::Doubtful(places) => Some(places),
            Known::Nothing => fetched?,
        };
        found.filter(|places| !places.is_empty()).ok_or_else(|| {
            Failure::new(
                ErrorCode::VolumeNotFound,
                format!("the masters know no server that holds volume {volume}"),
            )
        })
    }

    fn known(&self, volume: VolumeId) -> Known {
        let cache = self.cache.read();
        let Some(entry) = cache.entries.get(&volume) else { return Known::Nothing };
        let places = entry.places.clone();
        if entry.is_doubtful {
            Known::Doubtful(places)
        } else if self.clock.monotonic().saturating_sub(entry.since) > LOCATIONS_KEPT && self.may_confirm() {
            Known::Old(places)
        } else {
            Known::Good(places)
        }
    }

    pub(super) fn may_confirm(&self) -> bool {
        self.clock.monotonic() >= *self.confirms_from.lock()
    }

    /// Has what the masters say of `volume`, and of those after it, brought. Confirmed where that is possible in time, else as
    /// any master has it. `None`: they know of no such volume.
    async fn fetch(&self, master: &DynMaster, volume: VolumeId) -> Result<Option<Places>, Failure> {
        if self.may_confirm() {
            match self.confirmed(master, volume).await {
                Ok(found) => return Ok(found),
                Err(failure) => {
                    tracing::debug!(message = failure.message, "no confirmed place of a volume");
                }
            }
        }
        self.ask(master, volume, true).await
    }

    async fn confirmed(&self, master: &DynMaster, volume: VolumeId) -> Result<Option<Places>, Failure> {
        let asked = tokio::time::timeout(LOCATE_PATIENCE, self.ask(master, volume, false)).await;
        let answer = asked.unwrap_or_else(|_| {
            let text = "the masters could not confirm in time where a volume is";
            Err(Failure::new(ErrorCode::Unavailable, text))
        });
        if answer.is_err() {
            let mut from = self.confirms_from.lock();
            *from = (*from).max(self.clock.monotonic() + LOCATE_CONFIRM_AGAIN);
        }
        answer
    }

    async fn ask(
        &self,
        master: &DynMaster,
        volume: VolumeId,
        as_it_stands: bool,
    ) -> Result<Option<Places>, Failure> {
        let changes = self.cache.read().changes;
        // Its neighbours come with it: volumes that were written together are read together.
        let before = VolumeId(volume.0.saturating_sub(1));
        let page = grpc::volume_map_page(master, before, LOCATIONS_PER_FETCH, as_it_stands).await?;
        let found = page.volumes.iter().find(|info| info.id == volume).map(VolumeInfo::places);
        let since = self.clock.monotonic();
        let mut cache = self.cache.write();
        // What may not be the newest does not replace what is newer, and is asked for again.
        let is_newest = !as_it_stands && cache.changes == changes;
        if is_newest && found.is_none() {
            cache.entries.remove(&volume);
        }
        for info in page.volumes {
            let known = cache.entries.get(&info.id);
            if is_newest || known.is_none_or(|known| known.version <= page.version) {
                let (places, is_doubtful) = (info.places(), !is_newest);
                cache.insert(info.id, Entry { places, version: page.version, since, is_doubtful });
            }
        }
        Ok(found)
    }

    /// Asks for what is old, beside the reader who met it; one question at a time.
    fn refresh(self: &Arc<Self>, master: &DynMaster, volume: VolumeId) {
        if self.is_refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (own, master) = (self.clone(), master.clone());
        tokio::spawn(async move {
            if let Err(failure) = own.confirmed(&master, volume).await {
                tracing::debug!(message = failure.message, "an old place of a volume has to do");
            }
            own.is_refreshing.store(false, Ordering::Release);
        });
    }

    /// The replicas that came with a lease.
    pub(crate) fn learn_leased(&self, leased: &LeasedVolume) {
        let since = self.clock.monotonic();
        let mut cache = self.cache.write();
        // A lease says nothing of the map's version; members change only once nobody leases the volume any more.
        let version = cache.entries.get(&leased.volume).map_or(0, |known| known.version);
        let places = Places::from(&leased.replicas);
        cache.insert(leased.volume, Entry { places, version, since, is_doubtful: false });
    }

    /// Has `volume` asked for anew the next time. What is known of it stays until something newer is.
    pub(crate) fn forget(&self, volume: VolumeId) {
        if let Some(known) = self.cache.write().entries.get_mut(&volume) {
            known.is_doubtful = true;
        }
    }

    fn doubt_all(&self) {
        let mut cache = self.cache.write();
        cache.entries.values_mut().for_each(|known| known.is_doubtful = true);
        cache.changes += 1;
    }

    /// Takes changes in: only of what is known, the rest is fetched when it is asked for.
    fn change(&self, page: VolumePage) {
        let since = self.clock.monotonic();
        let mut cache = self.cache.write();
        cache.changes += 1;
        for info in page.volumes {
            if cache.entries.contains_key(&info.id) {
                let places = info.places();
                cache.insert(info.id, Entry { places, version: page.version, since, is_doubtful: false });
            }
        }
    }

    /// Follows the masters' changes for ever. Whatever was missed while nobody listened is doubted, not guessed.
    pub(crate) async fn follow(&self, master: DynMaster, random: SharedRandom) {
        let mut version = 0;
        let mut attempt = 0;
        loop {
            match grpc::watch(&master, version).await {
                Ok(mut changes) => {
                    attempt = 0;
                    self.doubt_all();
                    *self.confirms_from.lock() = Duration::ZERO;
                    while let Some(change) = changes.next().await {
                        match change {
                            Ok(page) => {
                                version = page.version;
                                self.change(page);
                            }
                            Err(failure) => {
                                tracing::debug!(
                                    message = failure.message,
                                    "the volume map's changes broke off"
                                );
                                break;
                            }
                        }
                    }
                    // Who told of them leads no more, or is gone.
                    *self.confirms_from.lock() = Duration::MAX;
                }
                Err(failure) => tracing::debug!(message = failure.message, "the volume map can't be watched"),
            }
            attempt += 1;
            tokio::time::sleep(RETRY.pause(attempt, random.as_ref()).unwrap_or(RETRY.pause_max)).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn is_at(&self, volume: VolumeId, address: &str) -> bool {
        let cache = self.cache.read();
        let first = cache.entries.get(&volume).and_then(|known| known.places.all().first());
        first.is_some_and(|first| first == address)
    }
}

impl Cache {
    fn insert(&mut self, volume: VolumeId, entry: Entry) {
        if self.entries.len() >= LOCATIONS_CACHED_MAX && !self.entries.contains_key(&volume) {
            self.entries.clear();
        }
        if entry.places.is_empty() {
            self.entries.remove(&volume);
        } else {
            self.entries.insert(volume, entry);
        }
    }
}
