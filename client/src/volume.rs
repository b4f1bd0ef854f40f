//! Needles: stored on a leased volume, read from any replica.

mod read;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::Epoch;
use hay_common::ids::{Cookie, Incarnation, NeedleKey, NodeId, VolumeId};
use hay_common::limits::{APPEND_BULK_TIMEOUT, APPEND_TIMEOUT, APPEND_UNARY_BYTES_MAX, CHUNK_BYTES_MAX};
use hay_common::model::{Codec, LeasedVolume, SizeClass, VolumeState};

use crate::grpc;
use crate::hedges::HedgeBudget;
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
    /// Of reads.
    hedges: Arc<HedgeBudget>,
}

impl VolumeClient {
    /// Over `peers`.
    pub fn new(peers: Peers) -> Self {
        Self { peers, hedges: Arc::default() }
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
        let is_small = needle.data.len() <= APPEND_UNARY_BYTES_MAX;
        let call = async {
            match is_small {
                true => grpc::volume::append_unary(&server, target, lease_token, needle).await,
                false => grpc::volume::append_stream(&server, target, lease_token, needle).await,
            }
        };
        if target.replicas.len() < 2 {
            return call.await;
        }
        // Where there are several servers another may do: nobody waits for a silent one as long as a call may take.
        let patience = if is_small { APPEND_TIMEOUT } else { APPEND_BULK_TIMEOUT };
        let appended = tokio::time::timeout(patience, call).await.unwrap_or_else(|_| Err(silent(primary)));
        self.noted(primary, appended)
    }

    /// The outcome of a call; a server that could not be reached is asked last for a while.
    fn noted<T>(&self, address: &str, outcome: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &outcome
            && is_of_server(failure.code)
        {
            self.peers.avoid(address);
        }
        outcome
    }

    /// What the server at `address` holds.
    pub async fn status(&self, address: &str) -> Result<VolumeServerStatus, Failure> {
        grpc::volume::status(&self.peers.volume(address)?).await
    }
}

/// Whether a failure is that of a server, whatever is asked of it.
pub(crate) fn is_of_server(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::CredentialRefused)
}

fn silent(address: &str) -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, format!("the volume server {address} did not answer in time"))
}

#[cfg(test)]
mod tests;
