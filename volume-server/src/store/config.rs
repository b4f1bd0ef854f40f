//! What a store is told.

use std::path::PathBuf;

use hay_common::ids::ClusterId;
use hay_common::limits::{
    CHECKPOINT_EVERY_BYTES, FREE_SPACE_RESERVE_BYTES, VOLUME_BYTES_MAX, ZERO_AHEAD_BYTES,
};
use hay_common::model::Durability;

/// Where the volumes are and how they are kept.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory, this server's alone.
    pub dir: PathBuf,
    /// Whose volumes these are.
    pub cluster: ClusterId,
    /// What acknowledged means.
    pub durability: Durability,
    /// Bytes zeroed ahead in volumes of small contents.
    pub zero_ahead_bytes: u64,
    /// Bytes of tail between two checkpoints of a volume.
    pub checkpoint_every_bytes: u64,
    /// No volume grows beyond this.
    pub volume_bytes_max: u64,
    /// Appends are refused below this much free space.
    pub reserve_bytes: u64,
}

impl StoreConfig {
    /// The defaults.
    pub fn new(dir: impl Into<PathBuf>, cluster: ClusterId) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            durability: Durability::Sync,
            zero_ahead_bytes: ZERO_AHEAD_BYTES,
            checkpoint_every_bytes: CHECKPOINT_EVERY_BYTES,
            volume_bytes_max: VOLUME_BYTES_MAX,
            reserve_bytes: FREE_SPACE_RESERVE_BYTES,
        }
    }
}
