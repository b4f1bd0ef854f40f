//! Where volumes are: fetched when first asked for, kept right by the masters' changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::VolumeId;
use hay_common::limits::{LOCATIONS_CACHED_MAX, LOCATIONS_PER_FETCH};
use hay_common::model::LeasedVolume;
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynMaster;
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::types::VolumeInfo;
use crate::grpc::master as grpc;

/// Between tries to watch the map.
const RETRY: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(50),
    pause_max: Duration::from_secs(5),
};

#[derive(Default)]
struct Cache {
    places: HashMap<VolumeId, Arc<[String]>>,
    /// Grows whenever a change came in or all was forgotten: what was fetched before may be older.
    changes: u64,
}

/// The places of volumes.
#[derive(Default)]
pub(crate) struct Locations {
    cache: RwLock<Cache>,
    /// Held while places are fetched: one call for all who miss the same.
    fetching: Mutex<()>,
}

impl Locations {
    /// The addresses of `volume`, the likeliest first.
    pub(crate) async fn locate(
        &self,
        master: &DynMaster,
        volume: VolumeId,
    ) -> Result<Arc<[String]>, Failure> {
        if let Some(places) = self.known(volume) {
            return Ok(places);
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(places) = self.known(volume) {
            return Ok(places);
        }
        let changes = self.cache.read().changes;
        // Its neighbours come with it: volumes that were written together are read together.
        let before = VolumeId(volume.0.saturating_sub(1));
        let page = grpc::volume_map(master, Vec::new(), before, LOCATIONS_PER_FETCH).await?;
        let found = page.volumes.iter().find(|info| info.id == volume).map(VolumeInfo::addresses);
        self.keep(page.volumes, changes);
        found.filter(|places| !places.is_empty()).ok_or_else(|| {
            Failure::new(
                ErrorCode::VolumeNotFound,
                format!("the masters know no server that holds volume {volume}"),
            )
        })
    }

    fn known(&self, volume: VolumeId) -> Option<Arc<[String]>> {
        self.cache.read().places.get(&volume).cloned()
    }

    #[cfg(test)]
    pub(crate) fn is_at(&self, volume: VolumeId, address: &str) -> bool {
        self.known(volume).is_some_and(|places| places.first().is_some_and(|first| first == address))
    }

    /// Keeps what was fetched, unless a change came in meanwhile that it may not have.
    fn keep(&self, volumes: Vec<VolumeInfo>, changes: u64) {
        let mut cache = self.cache.write();
        if cache.changes != changes {
            return;
        }
        for info in volumes {
            cache.insert(info.id, info.addresses());
        }
    }

    /// The replicas that came with a lease.
    pub(crate) fn learn_leased(&self, leased: &LeasedVolume) {
        self.cache.write().insert(leased.volume, leased.replicas.as_slice().into());
    }

    /// Has `volume` fetched anew the next time.
    pub(crate) fn forget(&self, volume: VolumeId) {
        self.cache.write().places.remove(&volume);
    }

    fn forget_all(&self) {
        let mut cache = self.cache.write();
        cache.places.clear();
        cache.changes += 1;
    }

    /// Takes changes in: only of what is known, the rest is fetched when it is asked for.
    fn change(&self, volumes: Vec<VolumeInfo>) {
        let mut cache = self.cache.write();
        cache.changes += 1;
        for info in volumes {
            if cache.places.contains_key(&info.id) {
                cache.insert(info.id, info.addresses());
            }
        }
    }

    /// Follows the masters' changes for ever. Whatever was missed while nobody listened is forgotten, not guessed.
    pub(crate) async fn follow(&self, master: DynMaster, random: SharedRandom) {
        let mut version = 0;
        let mut attempt = 0;
        loop {
            match grpc::watch(&master, version).await {
                Ok(mut changes) => {
                    self.forget_all();
                    while let Some(change) = changes.next().await {
                        match change {
                            Ok(page) => {
                                attempt = 0;
                                version = page.version;
                                self.change(page.volumes);
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
                }
                Err(failure) => tracing::debug!(message = failure.message, "the volume map can't be watched"),
            }
            attempt += 1;
            tokio::time::sleep(RETRY.pause(attempt, random.as_ref()).unwrap_or(RETRY.pause_max)).await;
        }
    }
}

impl Cache {
    fn insert(&mut self, volume: VolumeId, places: Arc<[String]>) {
        if self.places.len() >= LOCATIONS_CACHED_MAX && !self.places.contains_key(&volume) {
            self.places.clear();
        }
        if places.is_empty() {
            self.places.remove(&volume);
        } else {
            self.places.insert(volume, places);
        }
    }
}
