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
use crate::store::{Answers, AppendError, NewNeedle};

/// Parts of a stream may be small, but not so small that their list outweighs the data.
const PART_BYTES_LEAST: usize = 4096;

pub(super) fn invalid(text: impl Into<String>) -> Failure {
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
        let mut grouped = Grouped::with_capacity(request.items.len());
        for item in request.items {
            let volume = VolumeId(item.volume);
            match needle(&lease, item) {
                Ok(needle) => grouped.add(volume, needle),
                Err(failure) => grouped.refuse(failure),
            }
        }
        Ok(grouped.append(|volume, needles| self.replication.append(volume, needles)).await)
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
        if let Some(state) = self.store.state(volume) {
            self.replication.may_lead(volume, &state).map_err(failure::append)?;
        }
        let closing = || failure::append(AppendError::Closing);
        let permits = self.append_budget.clone().acquire_many_owned(head.length).await;
        let budget = permits.map_err(|_| closing())?;
        let (data, crc) = receive(&mut parts, length).await?;
        let needle = NewNeedle::new(epoch, key, Cookie(head.cookie), head.codec, data, Some(crc))
            .map_err(failure::append)?;
        // In a task, with what it was paid for: a writer that goes away, having found another volume, must not free the
        // memory of what is still under way to a silent replica.
        let replication = self.replication.clone();
        let task = tokio::spawn(async move {
            let answers = replication.append(volume, vec![needle]).await;
            drop(budget);
            answers
        });
        let answer = task.await.ok().and_then(|mut answers| answers.pop());
        answer.unwrap_or(Err(AppendError::Closing)).map_err(failure::append)
    }
}

/// The needles of a batch by their volumes, and a place for each one's result.
pub(super) struct Grouped {
    results: Vec<Result<(), Failure>>,
    volumes: Vec<(VolumeId, Vec<usize>, Vec<NewNeedle>)>,
}

impl Grouped {
    pub fn with_capacity(items: usize) -> Self {
        Self { results: Vec::with_capacity(items), volumes: Vec::with_capacity(1) }
    }

    pub fn refuse(&mut self, failure: Failure) {
        self.results.push(Err(failure));
    }

    pub fn add(&mut self, volume: VolumeId, needle: NewNeedle) {
        let at = self.results.len();
        self.results.push(Ok(()));
        // A batch names one volume, rarely two: a list is looked through faster than a map.
        match self.volumes.iter_mut().find(|(id, _, _)| *id == volume) {
            Some((_, places, needles)) => {
                places.push(at);
                needles.push(needle);
            }
            None => self.volumes.push((volume, vec![at], vec![needle])),
        }
    }

    /// Appends all volumes' needles at once.
    pub async fn append<F: Future<Output = Answers>>(
        self,
        append: impl Fn(VolumeId, Vec<NewNeedle>) -> F,
    ) -> Vec<Result<(), Failure>> {
        let Self { mut results, volumes } = self;
        let appends = volumes.into_iter().map(|(volume, places, needles)| {
            let answers = append(volume, needles);
            async move { (places, answers.await) }
        });
        for (places, answers) in join_all(appends).await {
            for (at, answer) in places.into_iter().zip(answers) {
                if let (Some(result), Err(error)) = (results.get_mut(at), answer) {
                    *result = Err(failure::append(error));
                }
            }
        }
        results
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

pub(super) async fn next(parts: &mut Streaming<v1::AppendPart>) -> Result<Option<Part>, Failure> {
    let message = parts.message().await.map_err(|status| to_failure(&status))?;
    match message {
        None => Ok(None),
        Some(v1::AppendPart { part: Some(part) }) => Ok(Some(part)),
        Some(v1::AppendPart { part: None }) => Err(invalid("a part of an append is of an unknown kind")),
    }
}

/// The data up to the end message, and their CRC32C, both as the end message says.
pub(super) async fn receive(
    parts: &mut Streaming<v1::AppendPart>,
    length: usize,
) -> Result<(Vec<Bytes>, u32), Failure> {
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
