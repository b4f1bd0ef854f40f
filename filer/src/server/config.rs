//! What a filer must be told, and what it works with.

use std::path::PathBuf;

use hay_common::clock::SharedClock;
use hay_common::disk::SharedDisk;
use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits;
use hay_common::model::Durability;
use hay_common::random::SharedRandom;

/// The engine of the path index (`storage.path_index.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathIndexMode {
    /// RocksDB.
    #[default]
    RocksDb,
}

impl PathIndexMode {
    /// As in configuration and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RocksDb => "rocksdb",
        }
    }

    /// Reads what [`PathIndexMode::as_str`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        (text == Self::RocksDb.as_str()).then_some(Self::RocksDb)
    }
}

/// What a filer must be told. [`FilerConfig::new`] fills in the usual.
#[derive(Debug, Clone)]
pub struct FilerConfig {
    /// The filer's own directory. Made where missing.
    pub dir: PathBuf,
    /// Which cluster it belongs to.
    pub cluster: ClusterId,
    /// Which member of its group it is.
    pub member: MemberId,
    /// Where other members will reach it.
    pub address: String,
    /// What acknowledged means.
    pub durability: Durability,
    /// The engine of the path index.
    pub path_index_mode: PathIndexMode,
    /// MiB of the engine's block cache.
    pub cache_size_mb: usize,
    /// Below so many free bytes, commands that make the store grow are refused.
    pub free_space_reserve_bytes: u64,
    /// Bytes of one segment of the replicated log.
    pub log_segment_bytes: u64,
}

/// MiB of the block cache, unless told otherwise.
pub const CACHE_SIZE_MB_DEFAULT: usize = 64;

impl FilerConfig {
    /// The only filer of `cluster`, in `dir`, durably.
    pub fn new(dir: impl Into<PathBuf>, cluster: ClusterId) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            member: MemberId(1),
            address: String::new(),
            durability: Durability::Sync,
            path_index_mode: PathIndexMode::default(),
            cache_size_mb: CACHE_SIZE_MB_DEFAULT,
            free_space_reserve_bytes: limits::FREE_SPACE_RESERVE_BYTES,
            log_segment_bytes: limits::LOG_SEGMENT_BYTES,
        }
    }
}

/// What a filer works with.
#[derive(Clone)]
pub struct FilerDeps {
    /// The disk.
    pub disk: SharedDisk,
    /// The time.
    pub clock: SharedClock,
    /// Ids.
    pub random: SharedRandom,
}
