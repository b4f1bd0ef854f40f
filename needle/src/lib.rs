//! The volume format: superblock, records, scan, replay, checkpoint, state and index. Bytes and memory only, no files.
//!
//! `docs/formats/volume.md` describes the same for people. All numbers are little endian, keys big endian.

mod checkpoint;
mod codec;
mod index;
mod record;
mod replay;
mod scan;
mod seeds;
mod state;
mod superblock;

pub use checkpoint::{Checkpoint, CheckpointError, Encoder};
pub use index::{Index, Slot};
pub use record::{
    Batch, CODEC_MAX, DATA_OVERHEAD_BYTES, HEADER_BYTES, Header, HeaderError, NeedleError, NeedleHeader,
    Trailer, check_needle, padded_len,
};
pub use replay::{Damage, Outcome, Replay};
pub use scan::{Step, resync, step};
pub use seeds::Seeds;
pub use state::{State, StateError};
pub use superblock::{SUPERBLOCK_BYTES, Superblock, SuperblockError};

/// Every record begins at a multiple of this.
pub const ALIGN_BYTES: usize = 8;

#[cfg(test)]
mod tests;
