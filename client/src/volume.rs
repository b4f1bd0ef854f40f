//! Needles: stored on a leased volume, read from any replica.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::Epoch;
use hay_common::ids::{Cookie, Incarnation, NeedleKey, NodeId, VolumeId};
use hay_common::limits::{APPEND_UNARY_BYTES_MAX, CHUNK_BYTES_MAX, RPC_BULK_PART_BYTES};
use hay_common::model::{Codec, LeasedVolume, SizeClass, VolumeState};

use crate::grpc;
use crate::peers::Peers;

/// Part of one needle's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedleRange {
    /// The volume that holds the needle.
    pub volume: VolumeId,
    /// The needle's key.
    pub key: NeedleKey,
    /// The needle's cookie.
    pub cookie: Cookie,
    /// The first byte.
    pub offset: u32,
    /// How many bytes, exactly.
    pub length: u32,
}

/// The bytes of a range in order; together exactly its length, or an error.
pub type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// What a read gives.
pub enum Data {
    /// All of it.
    Whole(Bytes),
    /// Parts of at most 1 MiB.
    Parts(Parts),
}

/// What one volume server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeServerStatus {
    /// The server.
    pub node: NodeId,
    /// Its volumes.
    pub volumes: Vec<VolumeReport>,
    /// Bytes free on its disks.
    pub free_bytes: u64,
    /// Bytes of its disks.
    pub total_bytes: u64,
    /// `sync` or `async`.
    pub durability: String,
    /// Why it can't do its work yet.
    pub not_ready: Option<String>,
}

/// One volume as its server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReport {
    /// Which volume.
    pub id: VolumeId,
    /// The highest epoch seen.
    pub epoch: Epoch,
    /// What it is for.
    pub class: SizeClass,
    /// Whether it takes appends.
    pub state: VolumeState,
    /// Why it takes none here.
    pub read_only_reason: Option<String>,
    /// Bytes of its data file in use.
    pub size_bytes: u64,
    /// Needles in it.
    pub needles: u64,
    /// Bytes that nothing refers to any more.
    pub garbage_bytes: u64,
    /// Which writing of the file.
    pub incarnation: Incarnation,
}

/// A client of all volume servers. Cheap to clone.
#[derive(Clone)]
pub struct VolumeClient {
    peers: Peers,
}

impl VolumeClient {
    /// Over `peers`.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }

    /// Stores one needle on the leased volume: when this returns it is on disk on every replica. Is not repeated
    /// here: after a failure it is the caller who draws another cookie or takes another volume.
    pub async fn append(
        &self,
        target: &LeasedVolume,
        lease_token: &Bytes,
        key: NeedleKey,
        cookie: Cookie,
        codec: Codec,
        data: Bytes,
    ) -> Result<(), Failure> {
        if data.len() > CHUNK_BYTES_MAX {
            let text = format!("a needle of {} bytes; at most {CHUNK_BYTES_MAX} are allowed", data.len());
            return Err(Failure::new(ErrorCode::TooLarge, text));
        }
        let primary = target.replicas.first().ok_or_else(|| {
            Failure::new(ErrorCode::VolumeNotWritable, format!("volume {} has no replica", target.volume))
        })?;
        let server = self.peers.volume(primary)?;
        let needle = grpc::volume::Needle { key, cookie, codec, data };
        if needle.data.len() <= APPEND_UNARY_BYTES_MAX {
            grpc::volume::append_unary(&server, target, lease_token, needle).await
        } else {
            grpc::volume::append_stream(&server, target, lease_token, needle).await
        }
    }

    /// Reads a range from the first of `addresses` that gives it: whole up to [`RPC_BULK_PART_BYTES`], else in parts.
    pub async fn read(&self, addresses: &[String], range: NeedleRange) -> Result<Data, Failure> {
        if range.length as usize <= RPC_BULK_PART_BYTES {
            self.read_whole(addresses, range).await.map(Data::Whole)
        } else {
            self.read_parts(addresses, range).await.map(Data::Parts)
        }
    }

    /// Reads a range of at most [`RPC_BULK_PART_BYTES`] bytes in one message. A longer one is refused, whatever room
    /// a server has for its answers: it goes by [`VolumeClient::read_parts`].
    pub async fn read_whole(&self, addresses: &[String], range: NeedleRange) -> Result<Bytes, Failure> {
        if range.length as usize > RPC_BULK_PART_BYTES {
            let text =
                format!("{} bytes in one message; at most {RPC_BULK_PART_BYTES} are read so", range.length);
            return Err(Failure::new(ErrorCode::InvalidArgument, text));
        }
        // On the wire a length of 0 means all.
        if range.length == 0 {
            return Ok(Bytes::new());
        }
        let mut failure = None;
        for address in addresses {
            let read = match self.peers.volume(address) {
                Ok(server) => grpc::volume::read_batch(&server, range).await,
                Err(unknown) => Err(unknown),
            };
            match read {
                Ok(data) => return Ok(data),
                Err(next) => failure = Some(weightier(failure, next)),
            }
        }
        Err(failure.unwrap_or_else(|| no_replica(range.volume)))
    }

    /// Reads a range in parts. A replica that fails before its first part is passed over; what fails later fails
    /// the stream.
    pub async fn read_parts(&self, addresses: &[String], range: NeedleRange) -> Result<Parts, Failure> {
        if range.length == 0 {
            return Ok(Box::pin(futures::stream::empty()));
        }
        let mut failure = None;
        for address in addresses {
            let read = match self.peers.volume(address) {
                Ok(server) => grpc::volume::read_stream(&server, range).await,
                Err(unknown) => Err(unknown),
            };
            match read {
                Ok(parts) => return Ok(parts),
                Err(next) => failure = Some(weightier(failure, next)),
            }
        }
        Err(failure.unwrap_or_else(|| no_replica(range.volume)))
    }

    /// What the server at `address` holds.
    pub async fn status(&self, address: &str) -> Result<VolumeServerStatus, Failure> {
        grpc::volume::status(&self.peers.volume(address)?).await
    }
}

fn no_replica(volume: VolumeId) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("no server that holds volume {volume} is known"))
}

/// Of the failures of several replicas, the one that tells most: damage is worse than a server that is away.
fn weightier(before: Option<Failure>, next: Failure) -> Failure {
    match before {
        Some(before) if before.code == ErrorCode::Corrupt || next.code != ErrorCode::Corrupt => before,
        Some(_) | None => next,
    }
}

#[cfg(test)]
mod tests;
