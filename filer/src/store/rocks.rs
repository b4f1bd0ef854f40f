//! RocksDB as [`Rows`]: how it is opened, and how rows are read from it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use hay_common::limits::{HOT_ROWS_MAX, MEMTABLE_BYTES, MEMTABLES_MAX};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBPinnableSlice, DataBlockIndexType, ErrorKind,
    FlushOptions, Options, ReadOptions, ReadTier, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use super::View;
use crate::namespace::rows::{Order, Rows, RowsError, Visit, Walk};
use crate::schema::keys::{self, Key};

/// Files that RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 512;

pub(super) fn engine(error: rocksdb::Error) -> RowsError {
    match error.kind() {
        ErrorKind::Incomplete => RowsError::NotCached,
        _ => RowsError::Engine(Box::new(error)),
    }
}

/// Opens the database in `dir`, or makes it. One column family, so that what a flush makes durable is always a prefix
/// of the writes; no log of its own, because the replicated log is one.
pub(super) fn open(dir: &Path, cache: &Cache) -> Result<DB, rocksdb::Error> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(8 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_whole_key_filtering(true);
    // Filters and indexes count against the cache, so that its size is the whole of what blocks take.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(5);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    blocks.set_data_block_hash_ratio(0.75);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    // Most lookups of a put ask for what is not there.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.1);
    options.set_target_file_size_base(32 << 20);
    options.set_max_bytes_for_level_base(128 << 20);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::None,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
    ]);
    options.set_max_background_jobs(2);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    DB::open(&options, dir)
}

pub(super) fn without_wal() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Makes all that was written durable.
pub(super) fn flush(db: &DB) -> Result<(), rocksdb::Error> {
    let mut options = FlushOptions::default();
    options.set_wait(true);
    db.flush_opt(&options)
}

/// Walks rows by a raw iterator that `options` give a view of the rows.
fn walk(
    db: &DB,
    mut options: ReadOptions,
    range: &Range<Key>,
    order: Order,
    visit: &mut Visit<'_>,
) -> Result<(), RowsError> {
    options.set_iterate_lower_bound(range.start.clone());
    options.set_iterate_upper_bound(range.end.clone());
    let mut rows = db.raw_iterator_opt(options);
    match order {
        Order::Forward => rows.seek(&range.start),
        Order::Reverse => rows.seek_to_last(),
    }
    while let Some((key, value)) = rows.item() {
        match (visit(key, value)?, order) {
            (Walk::On, Order::Forward) => rows.next(),
            (Walk::On, Order::Reverse) => rows.prev(),
            (Walk::Seek(to), Order::Forward) => rows.seek(&to),
            (Walk::Seek(to), Order::Reverse) => rows.seek_for_prev(&to),
            (Walk::Stop, _) => return Ok(()),
        }
    }
    rows.status().map_err(engine)
}

/// The rows at one moment, for a query.
pub(super) struct SnapshotRows<'d> {
    view: &'d View<'d>,
    /// Points to the snapshot, so it is dropped before it.
    point: ReadOptions,
    snapshot: SnapshotWithThreadMode<'d, DB>,
    tier: Tier,
}

/// Where a query may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Only where it needs no waiting.
    Memory,
    /// Wherever rows are.
    Disk,
}

impl<'d> SnapshotRows<'d> {
    pub fn of(view: &'d View<'d>, tier: Tier) -> Self {
        let snapshot = view.db.snapshot();
        Self { view, point: options(&snapshot, tier), snapshot, tier }
    }
}

fn options(snapshot: &SnapshotWithThreadMode<'_, DB>, tier: Tier) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_snapshot(snapshot);
    if tier == Tier::Memory {
        options.set_read_tier(ReadTier::BlockCache);
    }
    options
}

/// A value that is copied once, not by way of an allocation of the engine's.
fn found(value: Option<DBPinnableSlice<'_>>) -> Option<Vec<u8>> {
    value.map(|value| value.to_vec())
}

impl Rows for SnapshotRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let View { known, pass, db } = self.view;
        let is_known = keys::is_known(key);
        if is_known && let Some(value) = known.get(*pass, key) {
            return Ok(Some(value));
        }
        let value = db.get_pinned_opt(key, &self.point).map(found).map_err(engine)?;
        if is_known && let Some(value) = &value {
            known.keep(*pass, key, value);
        }
        Ok(value)
    }

    fn walk(&self, range: &Range<Key>, order: Order, visit: &mut Visit<'_>) -> Result<(), RowsError> {
        walk(&self.view.db, options(&self.snapshot, self.tier), range, order, visit)
    }
}

/// The rows as the one writer sees them, with those that most commands read kept at hand.
pub(super) struct WriterRows<'d> {
    pub db: &'d DB,
    pub point: &'d ReadOptions,
    pub hot: &'d HotRows,
}

impl Rows for WriterRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        if !keys::is_hot(key) {
            return self.db.get_pinned_opt(key, self.point).map(found).map_err(engine);
        }
        if let Some(known) = self.hot.get(key) {
            return Ok(Some(known));
        }
        let value = self.db.get_pinned_opt(key, self.point).map(found).map_err(engine)?;
        if let Some(value) = &value {
            self.hot.keep(key, value);
        }
        Ok(value)
    }

    fn walk(&self, range: &Range<Key>, order: Order, visit: &mut Visit<'_>) -> Result<(), RowsError> {
        walk(self.db, ReadOptions::default(), range, order, visit)
    }
}

/// Rows that the writer has at hand: as they are in the database, because nobody else writes.
#[derive(Default)]
pub(super) struct HotRows(RefCell<HashMap<Key, Vec<u8>>>);

impl HotRows {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.borrow().get(key).cloned()
    }

    fn keep(&self, key: &[u8], value: &[u8]) {
        let mut rows = self.0.borrow_mut();
        if rows.len() >= HOT_ROWS_MAX {
            // The few that matter are back at once; no order of use is kept for the rest.
            rows.clear();
        }
        rows.insert(key.to_vec(), value.to_vec());
    }

    /// A change that was written.
    pub fn changed(&self, key: &[u8], value: Option<&[u8]>) {
        if keys::is_hot(key) {
            match value {
                Some(value) => self.keep(key, value),
                None => {
                    self.0.borrow_mut().remove(key);
                }
            }
        }
    }

    /// Forgets all: the database is another one, or what it holds is uncertain.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// Writes all changes and `applied` at once.
pub(super) fn write(
    db: &DB,
    changes: &std::collections::BTreeMap<Key, Option<Vec<u8>>>,
    applied: &[u8],
) -> Result<(), rocksdb::Error> {
    let mut batch = WriteBatch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch.put(keys::applied(), applied);
    db.write_opt(batch, &without_wal())
}
