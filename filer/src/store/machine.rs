//! The state machine behind the replicated log: commands in, one RocksDB write out.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hay_consensus::{StateError, StateMachine};
use rocksdb::checkpoint::Checkpoint;

use super::layout::{LayoutError, copy_database, sync_tree};
use super::rocks::{self, HotRows, WriterRows};
use super::{OpenStoreError, Shared, check_format};
use crate::namespace::apply::apply;
use crate::namespace::command::{Proposal, Reply};
use crate::namespace::rows::{Batch, RowsError};
use crate::schema::keys;
use crate::schema::values::{DecodeRowError, Row};

/// Where a snapshot's database lies in the snapshot's directory.
const SNAPSHOT_DATABASE: &str = "db";

/// The one writer of the metadata.
pub struct Machine {
    shared: Arc<Shared>,
    hot: HotRows,
}

impl Machine {
    pub(super) fn over(shared: Arc<Shared>) -> Self {
        Self { shared, hot: HotRows::default() }
    }
}

fn engine(error: rocksdb::Error) -> StateError {
    StateError::Engine(Box::new(error))
}

fn rows(error: RowsError) -> StateError {
    match error {
        RowsError::Decode(error) => decode(error),
        RowsError::Contradiction(what) => StateError::Corrupt(what),
        RowsError::Engine(source) => StateError::Engine(source),
        RowsError::NotCached => StateError::Corrupt("the writer's rows were not to be had".to_owned()),
    }
}

fn decode(error: DecodeRowError) -> StateError {
    match error {
        DecodeRowError::NewerVersion { row, found, known } => StateError::NewerVersion {
            what: row.to_owned(),
            found: u32::from(found),
            known: u32::from(known),
        },
        DecodeRowError::Damaged { .. } => StateError::Corrupt(error.to_string()),
    }
}

fn layout(error: LayoutError) -> StateError {
    match error {
        LayoutError::Io { what, path, source } => {
            StateError::Io { what: format!("{what} {}", path.display()), source }
        }
        LayoutError::Corrupt { .. } | LayoutError::Lost { .. } => StateError::Corrupt(error.to_string()),
    }
}

impl StateMachine for Machine {
    fn applied(&self) -> Result<Option<Bytes>, StateError> {
        Ok(self.shared.db().get(keys::applied()).map_err(engine)?.map(Bytes::from))
    }

    fn apply(&mut self, commands: Vec<Bytes>, applied: Bytes) -> Result<Vec<Bytes>, StateError> {
        let db = self.shared.db();
        let point = rocksdb::ReadOptions::default();
        let base = WriterRows { db: &db, point: &point, hot: &self.hot };
        let mut batch = Batch::over(&base);
        let mut replies = Vec::with_capacity(commands.len());
        for command in &commands {
            let proposal = Proposal::decode(command).map_err(decode)?;
            let reply: Reply = apply(&mut batch, &proposal).map_err(rows)?;
            replies.push(Bytes::from(reply.encode()));
        }
        let changes = batch.into_changes();
        // Before any answer leaves: whoever asks after a token was revoked finds it revoked.
        let shut = self.shared.known.shut(changes.keys());
        if let Err(error) = rocks::write(&db, &changes, &applied) {
            // Whether it is there is not known: nothing that was at hand may be believed.
            self.hot.clear();
            return Err(engine(error));
        }
        if shut {
            self.shared.known.open();
        }
        for (key, value) in &changes {
            self.hot.changed(key, value.as_deref());
        }
        Ok(replies)
    }

    fn snapshot(&mut self, dir: &Path) -> Result<(), StateError> {
        let db = self.shared.db();
        // Not left to the checkpoint, whose thresholds decide whether it flushes: the log is purged below this.
        rocks::flush(&db).map_err(engine)?;
        Checkpoint::new(&db)
            .and_then(|c| c.create_checkpoint(dir.join(SNAPSHOT_DATABASE)))
            .map_err(engine)?;
        sync_tree(dir).map_err(layout)
    }

    fn install(&mut self, dir: &Path, applied: Bytes) -> Result<(), StateError> {
        self.hot.clear();
        let shared = &self.shared;
        let number = *shared.number.lock() + 1;
        let target = shared.layout.state(number);
        if target.exists() {
            // Left by a crash during an earlier try.
            std::fs::remove_dir_all(&target)
                .map_err(|source| StateError::Io { what: format!("remove {}", target.display()), source })?;
        }
        copy_database(&dir.join(SNAPSHOT_DATABASE), &target).map_err(layout)?;
        let db = rocks::open(&target, &shared.cache).map_err(engine)?;
        check_format(&db, &target).map_err(|error| match error {
            OpenStoreError::Format { found, known, .. } => {
                StateError::NewerVersion { what: target.display().to_string(), found, known }
            }
            other => StateError::Corrupt(other.to_string()),
        })?;
        rocks::write(&db, &std::collections::BTreeMap::new(), &applied).map_err(engine)?;
        rocks::flush(&db).map_err(engine)?;
        shared.layout.publish(shared.disk.as_ref(), number).map_err(layout)?;
        shared.known.shut_all();
        let old = std::mem::replace(&mut *shared.db.write(), Arc::new(db));
        shared.known.open();
        *shared.number.lock() = number;
        // Queries that still read the old one keep its files open; the directory goes at the next start.
        drop(old);
        Ok(())
    }
}
