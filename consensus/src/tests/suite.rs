//! openraft's own conformance suite over our log and snapshots.

use std::sync::Arc;

use hay_common::disk::RealDisk;
use hay_common::ids::ClusterId;
use hay_common::model::Durability;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::{CLUSTER, Journal};
use crate::apply::{Applied, Applier};
use crate::log::{self, LogConfig, LogHandle, LogStore};
use crate::snapshot::Snapshots;
use crate::types::{StorageError, Types};

struct Builder;

/// Ends the threads and removes the directory.
struct Guard(LogHandle, Applier, #[expect(dead_code, reason = "held, not read")] TempDir);

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.stop();
        self.0.stop();
    }
}

impl StoreBuilder<Types, LogStore, Applier, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, Applier), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig {
            dir: dir.path().join("log"),
            cluster: ClusterId::from_random(CLUSTER),
            name: "suite".to_owned(),
            // A few records a segment: the suite crosses their borders.
            segment_bytes: 512,
            durability: Durability::Sync,
        };
        let log = log::open(config, RealDisk::shared()).unwrap();
        let snapshots = Snapshots::open(dir.path().join("snapshots"), RealDisk::shared()).unwrap();
        let (journal, room) = (Box::new(Journal::default()), log.shared.room.clone());
        let applier =
            Applier::start("suite", journal, Applied::default(), Arc::new(snapshots), room).unwrap();
        Ok((Guard(log.clone(), applier.clone(), dir), LogStore { log, reached: None }, applier))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    Suite::<Types, LogStore, Applier, Builder, Guard>::test_all(Builder).unwrap();
}
