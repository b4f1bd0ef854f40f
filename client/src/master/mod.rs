//! The masters as their clients need them: a write lease that is always there, the places of volumes, status.

mod lease;
mod locations;
pub mod types;

use std::sync::Arc;

use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::VolumeId;
use hay_common::model::{LeasedVolume, SizeClass};
use hay_common::random::SharedRandom;
use hay_proto::rpc::DynMaster;
use tokio::task::JoinSet;

use crate::grpc::master as grpc;
use crate::places::Places;
use lease::Leases;
use locations::Locations;

pub use types::*;

/// A client of the masters. Cheap to clone; its background tasks end with its last clone, or by
/// [`MasterClient::shutdown`].
#[derive(Clone)]
pub struct MasterClient(Arc<Inner>);

struct Inner {
    master: DynMaster,
    leases: Arc<Leases>,
    locations: Arc<Locations>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl MasterClient {
    /// Over `master`. Starts the tasks that keep the write lease and follow the volume map; within a tokio runtime.
    pub fn start(master: DynMaster, clock: SharedClock, random: SharedRandom) -> Self {
        let leases = Arc::new(Leases::new(clock.clone()));
        let locations = Arc::new(Locations::new(clock));
        let mut tasks = JoinSet::new();
        let (keeping, places) = (leases.clone(), locations.clone());
        let (to_lease, lease_random) = (master.clone(), random.clone());
        tasks.spawn(async move { keeping.keep(to_lease, places, lease_random).await });
        let (following, to_watch) = (locations.clone(), master.clone());
        tasks.spawn(async move { following.follow(to_watch, random).await });
        Self(Arc::new(Inner { master, leases, locations, tasks: tokio::sync::Mutex::new(tasks) }))
    }

    /// A volume to append a content of `class` to. Calls no master; where there is no lease at all it waits a while
    /// for the one that is under way.
    pub async fn writable(&self, class: SizeClass) -> Result<Writable, Failure> {
        self.0.leases.writable(class).await
    }

    /// Another volume for what those that were `asked` are silent about: one that has as few servers as can be in common with
    /// them, and among equals the one that a random `draw` falls on. `None` where the lease has none that could fare better.
    /// Waits for nothing.
    pub fn writable_besides(&self, class: SizeClass, asked: &[Writable], draw: u32) -> Option<Writable> {
        self.0.leases.besides(class, asked, draw)
    }

    /// The volume `silent` said nothing while `found`, which was asked later, took a content: those of its servers that the
    /// other does not have are asked last for a while.
    pub fn passed_over(&self, silent: &LeasedVolume, found: &LeasedVolume) {
        self.0.leases.passed_over(silent, found);
    }

    /// `volume` could not be appended to: it is not given out for a while, and other volumes are asked for.
    pub fn avoid(&self, volume: VolumeId) {
        self.0.leases.avoid(volume);
    }

    /// The server at `address` could not be written to: volumes without it come first for a while.
    pub fn avoid_server(&self, address: &str) {
        self.0.leases.avoid_server(address);
    }

    /// Whether contents of `class` can go to servers that are not avoided.
    pub fn has_others(&self, class: SizeClass) -> bool {
        self.0.leases.has_others(class)
    }

    /// Begins to bring a sealed volume back to its number of copies, or with `dry_run` says what would be done.
    pub async fn repair_volume(&self, id: VolumeId, dry_run: bool) -> Result<RepairPlan, Failure> {
        grpc::repair_volume(&self.0.master, id, dry_run).await
    }

    /// Gives a master that follows a vote, or takes one out of the group; with `dry_run` says what that would do. `name` is an
    /// id or an address.
    pub async fn change_masters(
        &self,
        name: &str,
        change: MastersChange,
        dry_run: bool,
    ) -> Result<MastersChanged, Failure> {
        grpc::change_masters(&self.0.master, name, change, dry_run).await
    }

    /// Where `volume` can be read. While no majority of the masters answers, this may be out of date, which harms nobody: a
    /// needle is named by its content.
    pub async fn locate(&self, volume: VolumeId) -> Result<Places, Failure> {
        self.0.locations.locate(&self.0.master, volume).await
    }

    /// What is known of `volume`'s places seems wrong: they are asked for anew the next time. Where nobody can say more, they
    /// are what they were.
    pub fn forget(&self, volume: VolumeId) {
        self.0.locations.forget(volume);
    }

    /// How the cluster is.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, Failure> {
        grpc::cluster_status(&self.0.master).await
    }

    /// Up to `limit` volumes of the map with ids above `after`.
    pub async fn volumes(&self, after: VolumeId, limit: u32) -> Result<VolumePage, Failure> {
        grpc::volume_map(&self.0.master, Vec::new(), after, limit).await
    }

    /// One volume of the map.
    pub async fn volume(&self, id: VolumeId) -> Result<VolumeInfo, Failure> {
        let page = grpc::volume_map(&self.0.master, vec![id], VolumeId(0), 1).await?;
        page.volumes.into_iter().find(|info| info.id == id).ok_or_else(|| {
            Failure::new(ErrorCode::VolumeNotFound, format!("the masters know no volume {id}"))
        })
    }

    /// Whether contents of both classes can be written; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.0.leases.ready()
    }

    /// Ends the background tasks. What was leased can still be used.
    pub async fn shutdown(&self) {
        self.0.tasks.lock().await.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
