//! Appends: batches of small needles, and one large needle in parts.

use bytes::Bytes;
use futures::future::join_all;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, Epoch, NeedleKey, VolumeId};
use hay_common::limits::{NEEDLE_BYTES_MAX, RPC_BATCH_ITEMS_MAX};
use hay_proto::convert::WireId;
use hay_proto::rpc::lease::{LeaseError, LeaseToken};
use hay_proto::rpc::to_failure;
use hay_proto::v1::{self, append_part::Part};
use tonic::Streaming;

use super::failure;
use crate::server::VolumeServer;
use crate::store::{AppendError, NewNeedle};

/// Parts of a stream may be small, but not so small that their list outweighs the data.
const PART_BYTES_LEAST: usize = 4096;

fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, text)
}

impl VolumeServer {
    /// Each needle succeeds or fails alone.
    pub(super) async fn append_items(
        &self,
        request: v1::AppendBatchRequest,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        if request.items.len() > RPC_BATCH_ITEMS_MAX {
            return Err(invalid(format!("a batch has at most {RPC_BATCH_ITEMS_MAX} items")));
        }
        let lease = self.leases.verify(&request.lease)?;
        let mut results: Vec<Result<(), Failure>> = Vec::with_capacity(request.items.len());
        let mut volumes: Vec<(VolumeId, Vec<usize>, Vec<NewNeedle>)> = Vec::with_capacity(1);
        for (at, item) in request.items.into_iter().enumerate() {
            let volume = VolumeId(item.volume);
            let needle = needle(&lease, item);
            results.push(needle.as_ref().map(|_| ()).map_err(Clone::clone));
            let Ok(needle) = needle else { continue };
            // A batch names one volume, rarely two: a list is looked through faster than a map.
            match volumes.iter_mut().find(|(id, _, _)| *id == volume) {
                Some((_, places, needles)) => {
                    places.push(at);
                    needles.push(needle);
                }
                None => volumes.push((volume, vec![at], vec![needle])),
            }
        }
        let append =
            async |(volume, places, needles)| (places, self.append_everywhere(volume, needles).await);
        let answered: Vec<(Vec<usize>, _)> = match volumes.pop() {
            // The usual batch, without a list of futures and wakers of its own.
            Some(only) if volumes.is_empty() => vec![append(only).await],
            last => join_all(volumes.into_iter().chain(last).map(append)).await,
        };
        for (places, answers) in answered {
            for (at, answer) in places.into_iter().zip(answers) {
                if let (Some(result), Err(error)) = (results.get_mut(at), answer) {
                    *result = Err(failure::append(error));
                }
            }
        }
        Ok(results)
    }

    /// Stores needles here and on every other replica of the volume; each is acknowledged when all have it. The
    /// only replica is this server's own as long as volumes have one.
    async fn append_everywhere(
        &self,
        volume: VolumeId,
        needles: Vec<NewNeedle>,
    ) -> Vec<Result<(), AppendError>> {
        self.store.append(volume, needles).await
    }

    /// One needle in parts. Nothing is stored unless the end message came and agrees.
    pub(super) async fn append_stream(&self, mut parts: Streaming<v1::AppendPart>) -> Result<(), Failure> {
        let Some(Part::Head(head)) = next(&mut parts).await? else {
            return Err(invalid("an append begins with its head"));
        };
        let length = head.length as usize;
        if length > NEEDLE_BYTES_MAX {
            return Err(failure::append(AppendError::TooLarge { bytes: length, max: NEEDLE_BYTES_MAX }));
        }
        let (volume, epoch) = (VolumeId(head.volume), Epoch(head.epoch));
        self.leases.check(&head.lease, volume, epoch)?;
        let key = NeedleKey::from_wire("append_head.key", &head.key)?;
        // Before the bytes come: most refusals are known by now.
        self.store.may_append(volume, epoch).map_err(failure::append)?;
        let closing = || failure::append(AppendError::Closing);
        let permits = self.append_budget.clone().acquire_many_owned(head.length).await;
        let _budget = permits.map_err(|_| closing())?;
        let (data, crc) = receive(&mut parts, length).await?;
        let needle = NewNeedle::new(epoch, key, Cookie(head.cookie), head.codec, data, Some(crc))
            .map_err(failure::append)?;
        let answer = self.append_everywhere(volume, vec![needle]).await.pop();
        answer.unwrap_or(Err(AppendError::Closing)).map_err(failure::append)
    }
}

fn needle(lease: &LeaseToken, item: v1::AppendItem) -> Result<NewNeedle, Failure> {
    let (volume, epoch) = (VolumeId(item.volume), Epoch(item.epoch));
    if !lease.covers(volume, epoch) {
        return Err(LeaseError::NotCovered { volume, epoch }.into());
    }
    let key = NeedleKey::from_wire("append_item.key", &item.key)?;
    NewNeedle::new(epoch, key, Cookie(item.cookie), item.codec, vec![item.data], None)
        .map_err(failure::append)
}

async fn next(parts: &mut Streaming<v1::AppendPart>) -> Result<Option<Part>, Failure> {
    let message = parts.message().await.map_err(|status| to_failure(&status))?;
    match message {
        None => Ok(None),
        Some(v1::AppendPart { part: Some(part) }) => Ok(Some(part)),
        Some(v1::AppendPart { part: None }) => Err(invalid("a part of an append is of an unknown kind")),
    }
}

/// The data up to the end message, and their CRC32C, both as the end message says.
async fn receive(parts: &mut Streaming<v1::AppendPart>, length: usize) -> Result<(Vec<Bytes>, u32), Failure> {
    let cut = |got: usize| {
        let text = format!("the append ended after {got} of {length} bytes; nothing was stored");
        Failure::new(ErrorCode::IncompleteBody, text)
    };
    let (mut data, mut got, mut crc) = (Vec::new(), 0, 0);
    loop {
        match next(parts).await? {
            // A cancelled call looks like this, too: without its end it is none.
            None => return Err(cut(got)),
            Some(Part::Head(_)) => return Err(invalid("an append has one head")),
            Some(Part::Data(part)) => {
                got += part.len();
                if got > length {
                    return Err(invalid(format!("the append goes on beyond its {length} bytes")));
                }
                if data.len() > length / PART_BYTES_LEAST + 1 {
                    return Err(invalid("the append comes in too small parts"));
                }
                crc = crc32c::crc32c_append(crc, &part);
                data.push(part);
            }
            Some(Part::End(end)) => {
                if got != length || end.length as usize != length {
                    return Err(cut(got));
                }
                if end.crc32c != crc {
                    let text =
                        "the data that arrived do not have the sum that the sender gave; nothing was stored";
                    return Err(Failure::new(ErrorCode::DigestMismatch, text));
                }
                return Ok((data, crc));
            }
        }
    }
}
