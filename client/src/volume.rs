//! Needles: stored on a leased volume, read from any replica.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::Epoch;
use hay_common::ids::{Cookie, Incarnation, NeedleKey, NodeId, VolumeId};
use hay_common::limits::{
    APPEND_BULK_TIMEOUT, APPEND_TIMEOUT, APPEND_UNARY_BYTES_MAX, CHUNK_BYTES_MAX, READ_REPLICA_TIMEOUT,
    RPC_BULK_PART_BYTES,
};
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
            && matches!(failure.code, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded)
        {
            self.peers.avoid(address);
        }
        outcome
    }

    /// A call that is given up early where others may answer instead.
    async fn patiently<T>(
        &self,
        address: &str,
        is_last: bool,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let outcome = match is_last {
            true => call.await,
            false => match tokio::time::timeout(READ_REPLICA_TIMEOUT, call).await {
                Ok(outcome) => outcome,
                Err(_) => Err(silent(address)),
            },
        };
        self.noted(address, outcome)
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
        let order = self.peers.order(addresses, range.key);
        for (at, address) in order.iter().enumerate() {
            let call = async { grpc::volume::read_batch(&self.peers.volume(address)?, range).await };
            match self.patiently(address, at + 1 == order.len(), call).await {
                Ok(data) => return Ok(data),
                Err(next) => failure = Some(weightier(failure, next)),
            }
        }
        Err(failure.unwrap_or_else(|| no_replica(range.volume)))
    }

    /// Reads a range in parts. Where a replica fails, also in the middle, or sends nothing more, the next one goes on from
    /// there; each verifies the needle before its first part. When all have failed the stream fails.
    pub async fn read_parts(&self, addresses: &[String], range: NeedleRange) -> Result<Parts, Failure> {
        if range.length == 0 {
            return Ok(Box::pin(futures::stream::empty()));
        }
        let order = self.peers.order(addresses, range.key).into_iter().cloned().collect();
        let mut reading = Reading { client: self.clone(), order, range, open: None, failure: None };
        let first = reading.next().await?;
        let rest = futures::stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading.filter(|reading| reading.range.length > 0)?;
            match reading.next().await {
                Ok(part) => Some((Ok(part), Some(reading))),
                Err(failure) => Some((Err(failure), None)),
            }
        });
        Ok(Box::pin(futures::stream::iter([Ok(first)]).chain(rest)))
    }

    /// What the server at `address` holds.
    pub async fn status(&self, address: &str) -> Result<VolumeServerStatus, Failure> {
        grpc::volume::status(&self.peers.volume(address)?).await
    }
}

/// A read that goes on at another replica where one breaks off.
struct Reading {
    client: VolumeClient,
    /// Who has not been asked yet, the next one first; the one that is being read from stands in `open`.
    order: VecDeque<String>,
    /// What is still to come.
    range: NeedleRange,
    open: Option<(String, Parts)>,
    failure: Option<Failure>,
}

impl Reading {
    /// The next part, from whoever gives it.
    async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            let failure = match self.try_next().await {
                Ok(part) => {
                    // A part is never longer than what was asked for.
                    let came = u32::try_from(part.len()).unwrap_or(u32::MAX);
                    self.range.offset = self.range.offset.saturating_add(came);
                    self.range.length = self.range.length.saturating_sub(came);
                    return Ok(part);
                }
                Err(failure) => failure,
            };
            self.open = None;
            let failure = weightier(self.failure.take(), failure);
            if self.order.is_empty() {
                return Err(failure);
            }
            self.failure = Some(failure);
        }
    }

    async fn try_next(&mut self) -> Result<Bytes, Failure> {
        let range = self.range;
        let (address, mut parts) = match self.open.take() {
            Some(open) => open,
            None => {
                let address = self.order.pop_front().ok_or_else(|| no_replica(range.volume))?;
                let call =
                    async { grpc::volume::read_stream(&self.client.peers.volume(&address)?, range).await };
                let parts = self.client.patiently(&address, self.order.is_empty(), call).await?;
                (address, parts)
            }
        };
        let call = async { parts.next().await.unwrap_or_else(|| Err(broken_off(range.volume))) };
        let part = self.client.patiently(&address, self.order.is_empty(), call).await?;
        self.open = Some((address, parts));
        Ok(part)
    }
}

fn silent(address: &str) -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, format!("the volume server {address} did not answer in time"))
}

fn broken_off(volume: VolumeId) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("a read of volume {volume} broke off"))
}

fn no_replica(volume: VolumeId) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("no server that holds volume {volume} is known"))
}

/// Of the failures of several replicas, the one that tells most: damage is worse than a server that is away. That one holds
/// no such needle counts for least: one that could not be asked may have it.
fn weightier(before: Option<Failure>, next: Failure) -> Failure {
    let weight = |failure: &Failure| match failure.code {
        ErrorCode::Corrupt => 2,
        ErrorCode::NotFound => 0,
        _ => 1,
    };
    match before {
        Some(before) if weight(&before) >= weight(&next) => before,
        Some(_) | None => next,
    }
}

#[cfg(test)]
mod tests;
