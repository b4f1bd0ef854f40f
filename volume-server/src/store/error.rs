//! What can go wrong in the store, one enum for each operation.

use std::io;
use std::path::PathBuf;

use hay_common::ids::{ClusterId, Epoch, VolumeId};

/// Why an append was not stored. Nothing of it is visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No such volume here.
    #[error("volume {0} is not on this server")]
    NoVolume(VolumeId),
    /// The volume has seen a higher epoch.
    #[error("the append carries epoch {given}, volume {volume} is at {current}: get a new write lease")]
    StaleEpoch {
        /// Which volume.
        volume: VolumeId,
        /// What the append carries.
        given: Epoch,
        /// What the volume has seen.
        current: Epoch,
    },
    /// The identity is taken.
    #[error("volume {volume} already holds a needle of that key and cookie: draw another cookie")]
    Exists {
        /// Which volume.
        volume: VolumeId,
    },
    /// It takes no more: sealed.
    #[error("volume {0} is sealed")]
    Sealed(VolumeId),
    /// It takes no more: a fault.
    #[error("volume {volume} is read-only on this server: {reason}")]
    ReadOnly {
        /// Which volume.
        volume: VolumeId,
        /// What happened.
        reason: String,
    },
    /// It takes no more: no room up to its greatest size.
    #[error("volume {0} is full")]
    Full(VolumeId),
    /// The needle is larger than any may be.
    #[error("a needle of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Of the needle.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The codec number does not fit into a record.
    #[error("codec {0} is over the limit of 255")]
    Codec(u32),
    /// The free-space reserve of the disk is reached.
    #[error("the disk of this volume server is full up to its reserve")]
    StorageFull,
    /// Too much waits already.
    #[error("too many appends wait for volume {0}")]
    Overloaded(VolumeId),
    /// The server is shutting down.
    #[error("this volume server is shutting down")]
    Closing,
    /// It is one replica of several, and no master has said since this server started that it still is.
    #[error("volume {0} is not confirmed by a master yet; another volume takes the append")]
    Unconfirmed(VolumeId),
    /// It is being copied here.
    #[error("volume {0} is being filled on this server")]
    Filling(VolumeId),
    /// Another replica did not take an append, so that none is acknowledged until the masters have sealed the volume.
    #[error("volume {volume} is read-only: {reason}")]
    ReplicaFailed {
        /// Which volume.
        volume: VolumeId,
        /// Which replica, and how.
        reason: String,
    },
    /// Another replica refused this needle alone.
    #[error("a replica of volume {volume} refused the needle: {reason}")]
    ReplicaRefused {
        /// Which volume.
        volume: VolumeId,
        /// Why.
        reason: String,
    },
}

/// Why a needle was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such volume here.
    #[error("volume {0} is not on this server")]
    NoVolume(VolumeId),
    /// The volume holds no such needle.
    #[error("volume {0} holds no such needle")]
    Absent(VolumeId),
    /// The volume knows of no such needle, and has lost records whose names it can't tell.
    #[error(
        "volume {0} holds no such needle that can be read; some of its records can't be: it may be one of them"
    )]
    Lost(VolumeId),
    /// Not held here; but this replica may not be whole, or may have been left behind, so that others must be asked.
    #[error("volume {0} holds no such needle here, and this replica is not confirmed as whole: ask another")]
    Unconfirmed(VolumeId),
    /// The bytes are not what was written.
    #[error("the needle at offset {offset} of volume {volume} is damaged: {reason}")]
    Corrupt {
        /// Which volume.
        volume: VolumeId,
        /// Where its record begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The whole volume can't be used.
    #[error("volume {volume} can't be opened on this server: {reason}")]
    Broken {
        /// Which volume.
        volume: VolumeId,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed.
    #[error("volume {volume} could not be read at offset {offset}")]
    Io {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        offset: u64,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The server is shutting down.
    #[error("this volume server is shutting down")]
    Closing,
}

/// Why a store, or one of its volumes, was not opened, made or sealed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The directory is of another cluster.
    #[error(
        "{dir} belongs to cluster {found}, this server to {own}: give this server a directory of its own"
    )]
    ForeignCluster {
        /// Which directory.
        dir: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Ours.
        own: ClusterId,
    },
    /// Something that was there is gone.
    #[error("{what} is missing in {dir}: {remedy}")]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The thing.
        what: String,
        /// The way out.
        remedy: &'static str,
    },
    /// A file is not what its name says.
    #[error("{path}: {reason}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The volume is there with another class.
    #[error("volume {0} exists with another size class")]
    ClassDiffers(VolumeId),
    /// The volume is not there.
    #[error("volume {0} is not on this server")]
    NoVolume(VolumeId),
    /// The volume can't be filled in its place.
    #[error("volume {volume} can't be filled on this server: {reason}")]
    NotFillable {
        /// Which volume.
        volume: VolumeId,
        /// Why.
        reason: String,
    },
    /// The volume's appender did not answer.
    #[error("volume {0} is closed")]
    Closed(VolumeId),
    /// The disk failed.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
}

/// Names the file of an I/O error.
pub(crate) trait At<T> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { path: path.to_owned(), source })
    }
}
