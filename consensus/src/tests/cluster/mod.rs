//! Groups of several members over the network within the process. Faults come from a seed, which is printed.
//!
//! What is assumed: members stop and come back with what they had synced, or with nothing; ways between them are cut, in
//! one direction too; messages are late, lost, repeated, out of order; disks hang and fill up. They don't lie; that is what
//! `crash` is about.

mod checker;
mod disks;
mod failover;
mod formation;
mod histories;
mod members;
mod snapshots;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::ids::ClusterId;
use hay_common::random::{SeededRandom, SharedRandom};
use tempfile::TempDir;

use super::disk::{Failing, FailingDisk};
use super::{CLUSTER, Journal};
use crate::switchboard::Switchboard;
use crate::{Group, GroupConfig, GroupDeps, StartError};

/// A member's place, whether one runs there or not.
pub(super) struct Place {
    pub(super) address: String,
    pub(super) group: Option<Group>,
    pub(super) journal: Journal,
    /// Of the one that runs there, or ran there last.
    pub(super) disk: Arc<Failing>,
    /// The next one's disk holds changes of files with this in their path.
    pub(super) hold: Option<&'static str>,
}

impl Place {
    fn at(address: &str) -> Self {
        let (disk, journal) = (Failing::after(i64::MAX), Journal::default());
        Self { address: address.to_owned(), group: None, journal, disk, hold: None }
    }
}

/// Members on one switchboard.
pub(super) struct Cluster {
    dir: TempDir,
    pub(super) board: Switchboard,
    pub(super) random: SharedRandom,
    pub(super) places: Vec<Place>,
    pub(super) peers: Vec<String>,
    pub(super) change: fn(GroupConfig) -> GroupConfig,
}

/// Where syncs cost nothing, if there is such a place: these tests are about messages.
pub(super) fn fast_dir() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Cluster {
    /// Whether a member's log no longer has its entries up to `index`: a snapshot alone does not say so, as what is on its
    /// way to another member is kept until it has arrived or failed.
    pub(super) fn has_purged(&self, n: usize, index: u64) -> bool {
        let metrics = self.group(n).inner.raft.metrics();
        let purged = metrics.borrow().purged;
        purged.is_some_and(|at| at.index > index)
    }

    /// Places for `count` members; none runs.
    pub(super) fn new(count: usize, seed: u64) -> Self {
        let random = SeededRandom::shared(seed);
        let peers: Vec<String> = (0..count).map(|n| format!("m{n}:1")).collect();
        Self {
            dir: fast_dir(),
            board: Switchboard::new(random.clone()),
            places: peers.iter().map(|address| Place::at(address)).collect(),
            random,
            peers,
            change: |config| config,
        }
    }

    /// A group of `count` members that has a leader.
    pub(super) async fn formed(count: usize, seed: u64) -> Self {
        let mut cluster = Self::new(count, seed);
        for n in 0..count {
            cluster.start(n).await;
        }
        cluster.leader().await;
        cluster
    }

    /// One more place, not in the static list.
    pub(super) fn add_place(&mut self) -> usize {
        let address = format!("m{}:1", self.places.len());
        self.places.push(Place::at(&address));
        self.places.len() - 1
    }

    pub(super) fn config(&self, n: usize) -> GroupConfig {
        let cluster = ClusterId::from_random(CLUSTER);
        let dir = self.dir.path().join(n.to_string());
        let config = GroupConfig::member_of("test", dir, cluster, &self.places[n].address, &self.peers);
        let config = GroupConfig { heartbeat: Duration::from_millis(50), segment_bytes: 16 << 10, ..config };
        (self.change)(config.with_slot(n))
    }

    pub(super) async fn try_start(&mut self, n: usize) -> Result<(), StartError> {
        let config = self.config(n);
        let address = self.places[n].address.clone();
        let transport = self.board.from(&address);
        let disk = Failing::after(i64::MAX);
        if let Some(part) = self.places[n].hold {
            disk.hold(part);
        }
        self.places[n].disk = disk.clone();
        let deps = GroupDeps {
            disk: FailingDisk::shared(&disk),
            random: self.random.clone(),
            clock: hay_common::clock::SystemClock::shared(),
            transport,
        };
        let journal = Journal::default();
        let group = Group::open(config, Box::new(journal.clone()), deps).await?;
        self.board.plug(&address, group.clone());
        self.places[n].group = Some(group);
        self.places[n].journal = journal;
        Ok(())
    }

    pub(super) async fn start(&mut self, n: usize) {
        self.try_start(n).await.unwrap();
    }

    /// As `kill -9`: nothing leaves it any more, and nothing more reaches its disk.
    pub(super) async fn kill(&mut self, n: usize) {
        let Some(group) = self.places[n].group.take() else { return };
        self.board.unplug(&self.places[n].address);
        self.places[n].disk.kill();
        group.crash().await;
    }

    /// Kills it and loses its directory.
    pub(super) async fn wipe(&mut self, n: usize) {
        self.kill(n).await;
        let dir = self.dir.path().join(n.to_string());
        if dir.exists() {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    pub(super) fn group(&self, n: usize) -> Group {
        self.places[n].group.clone().unwrap()
    }

    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|n| self.places[*n].group.is_some()).collect()
    }

    /// A member that leads and is heard; waits for one.
    pub(super) async fn leader(&self) -> usize {
        self.leader_among(&self.running()).await
    }

    pub(super) async fn leader_among(&self, among: &[usize]) -> usize {
        eventually("a leader", || {
            let leads = |n: &usize| self.group(*n).leading().borrow().is_some();
            let mut leaders: Vec<usize> = among.iter().copied().filter(leads).collect();
            leaders.sort_by_key(|n| self.group(*n).status().term);
            leaders.pop()
        })
        .await
    }

    /// Writes through whoever leads among them, again and again until it is acknowledged.
    pub(super) async fn write_among(&self, among: &[usize], command: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let leader = self.leader_among(among).await;
            match self.group(leader).propose(Bytes::from(command.to_owned())).await {
                Ok(_) => return,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{command}: {error}"),
            }
        }
    }

    /// What member `n` has, as text.
    pub(super) fn has(&self, n: usize) -> Vec<String> {
        let commands = self.places[n].journal.commands();
        commands.iter().map(|c| String::from_utf8(c.to_vec()).unwrap()).collect()
    }

    /// All running members hold the same, in the same order.
    pub(super) async fn agree(&self, among: &[usize]) {
        eventually("agreement", || {
            let first = self.has(among[0]);
            among.iter().all(|n| self.has(*n) == first).then_some(())
        })
        .await;
    }

    pub(super) async fn end(mut self) {
        for n in 0..self.places.len() {
            self.kill(n).await;
        }
    }
}

/// Nothing takes so long on a machine that works at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
pub(super) async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
}
