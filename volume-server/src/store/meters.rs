//! What the store counts.

use metrics::{Counter, Histogram, counter, histogram};

/// Handles, looked up once: an append must not search a registry.
pub(crate) struct Meters {
    pub appends: Counter,
    pub append_bytes: Counter,
    pub appends_refused: Counter,
    pub syncs: Counter,
    pub sync_seconds: Histogram,
    pub appends_per_sync: Histogram,
    pub bytes_per_sync: Histogram,
    pub reads: Counter,
    pub read_bytes: Counter,
    pub reads_cached: Counter,
    pub read_seconds: Histogram,
    pub corrupt: Counter,
    pub torn_tails: Counter,
    pub failed_volumes: Counter,
    pub zeroed_bytes: Counter,
    pub checkpoints: Counter,
}

impl Meters {
    pub fn new() -> Self {
        Self {
            appends: counter!("hay_volume_appends_total"),
            append_bytes: counter!("hay_volume_append_bytes_total"),
            appends_refused: counter!("hay_volume_appends_refused_total"),
            syncs: counter!("hay_volume_syncs_total"),
            sync_seconds: histogram!("hay_volume_sync_seconds"),
            appends_per_sync: histogram!("hay_volume_appends_per_sync"),
            bytes_per_sync: histogram!("hay_volume_bytes_per_sync"),
            reads: counter!("hay_volume_reads_total"),
            read_bytes: counter!("hay_volume_read_bytes_total"),
            reads_cached: counter!("hay_volume_reads_cached_total"),
            read_seconds: histogram!("hay_volume_read_seconds"),
            corrupt: counter!("hay_volume_corrupt_total"),
            torn_tails: counter!("hay_volume_torn_tails_total"),
            failed_volumes: counter!("hay_volume_failed_total"),
            zeroed_bytes: counter!("hay_volume_zeroed_bytes_total"),
            checkpoints: counter!("hay_volume_checkpoints_total"),
        }
    }
}
