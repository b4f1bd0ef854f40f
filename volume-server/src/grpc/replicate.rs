//! Replication, both ends: needles from the server that took an append to the other replicas, and names for one that is
//! being filled.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Cookie, Epoch, NeedleKey, NodeId, VolumeId};
use hay_common::limits::{LIST_NEEDLES_PAGE_MAX, NEEDLE_BYTES_MAX, RPC_BATCH_ITEMS_MAX};
use hay_proto::convert::{WireId, required};
use hay_proto::rpc::credential::CredentialError;
use hay_proto::rpc::{DynVolume, Peer, in_process, set_timeout, to_failure};
use hay_proto::v1::{self, append_part::Part};
use tonic::{Request, Streaming};

use super::append::{Grouped, invalid, next, receive};
use super::failure;
use crate::server::VolumeServer;
use crate::store::{Answers, AppendError, NewNeedle};

/// Sends small needles; one result each, in their order.
pub(crate) async fn send_batch(
    server: &DynVolume,
    volume: VolumeId,
    needles: Vec<NewNeedle>,
    timeout: Duration,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    let items = needles.into_iter().map(|needle| item(volume, needle)).collect();
    let mut request = Request::new(v1::ReplicateBatchRequest { items });
    set_timeout(&mut request, timeout);
    let reply = server.replicate_batch(request).await.map_err(|status| to_failure(&status))?;
    let results = reply.into_inner().results.into_iter();
    Ok(results.map(|result| result.failure.map_or(Ok(()), |failure| Err(failure.into()))).collect())
}

fn item(volume: VolumeId, needle: NewNeedle) -> v1::ReplicateItem {
    let NewNeedle { epoch, key, cookie, codec, mut parts, crc, .. } = needle;
    let data = match parts.len() {
        1 => parts.pop().unwrap_or_default(),
        // A small needle that came as a stream of parts: rare, and short.
        _ => Bytes::from(parts.concat()),
    };
    let crc32c = crc.unwrap_or_else(|| crc32c::crc32c(&data));
    let item = v1::AppendItem {
        volume: volume.0,
        epoch: epoch.0,
        key: key.to_wire(),
        cookie: cookie.0,
        codec: u32::from(codec),
        data,
    };
    v1::ReplicateItem { item: Some(item), crc32c }
}

/// Sends a large needle in the parts that it came in: nothing is copied. The inner failure is the replica's answer.
pub(crate) async fn send_stream(
    server: &DynVolume,
    volume: VolumeId,
    needle: NewNeedle,
    timeout: Duration,
) -> Result<Result<(), Failure>, Failure> {
    let NewNeedle { epoch, key, cookie, codec, parts, length, crc } = needle;
    let crc = crc.unwrap_or_else(|| parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)));
    let head = Part::Head(v1::AppendHead {
        lease: Bytes::new(),
        volume: volume.0,
        epoch: epoch.0,
        key: key.to_wire(),
        cookie: cookie.0,
        codec: u32::from(codec),
        length,
    });
    let end = Part::End(v1::AppendEnd { length, crc32c: crc });
    let parts = [head].into_iter().chain(parts.into_iter().map(Part::Data)).chain([end]);
    let parts = parts.map(|part| Ok(v1::AppendPart { part: Some(part) }));
    let mut request = Request::new(in_process(stream::iter(parts)));
    set_timeout(&mut request, timeout);
    let reply = server.replicate(request).await.map_err(|status| to_failure(&status))?;
    Ok(reply.into_inner().failure.map_or(Ok(()), |failure| Err(failure.into())))
}

/// Takes in what is left of a needle that is not stored, and keeps none of it.
pub(super) async fn drain(parts: &mut Streaming<v1::AppendPart>) {
    let mut left = NEEDLE_BYTES_MAX;
    while let Ok(Some(part)) = next(parts).await {
        let Part::Data(data) = part else { continue };
        match left.checked_sub(data.len().max(1)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Who sends: only a server that is a member of the volume may.
pub(super) fn sender<T>(request: &Request<T>) -> Result<NodeId, Failure> {
    let peer = request.extensions().get::<Peer>();
    peer.map(|peer| peer.node).ok_or_else(|| CredentialError::Missing.into())
}

impl VolumeServer {
    /// Stores needles that another replica sends; each succeeds or fails alone.
    pub(super) async fn follow_items(
        &self,
        from: NodeId,
        request: v1::ReplicateBatchRequest,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        if request.items.len() > RPC_BATCH_ITEMS_MAX {
            return Err(invalid(format!("a batch has at most {RPC_BATCH_ITEMS_MAX} items")));
        }
        let mut grouped = Grouped::with_capacity(request.items.len());
        for sent in request.items {
            match self.followed(from, sent) {
                Ok((volume, needle)) => grouped.add(volume, needle),
                Err(failure) => grouped.refuse(failure),
            }
        }
        Ok(grouped.append(|volume, needles| self.stored(volume, needles)).await)
    }

    /// A replica that was sealed in a higher epoch says so, and not that it can't be written to: that would be a failure.
    async fn stored(&self, volume: VolumeId, needles: Vec<NewNeedle>) -> Answers {
        let epochs: Vec<Epoch> = needles.iter().map(NewNeedle::epoch).collect();
        let answers = self.store.append(volume, needles).await.into_iter().zip(epochs);
        answers.map(|(answer, given)| answer.map_err(|error| self.fenced(given, error))).collect()
    }

    fn fenced(&self, given: Epoch, error: AppendError) -> AppendError {
        match error {
            AppendError::Sealed(volume) => match self.store.state(volume) {
                Some(state) if state.epoch > given => {
                    AppendError::StaleEpoch { volume, given, current: state.epoch }
                }
                _ => error,
            },
            error => error,
        }
    }

    fn followed(&self, from: NodeId, sent: v1::ReplicateItem) -> Result<(VolumeId, NewNeedle), Failure> {
        let item = required("replicate_item.item", sent.item)?;
        let (volume, epoch) = (VolumeId(item.volume), Epoch(item.epoch));
        self.replication.may_follow(volume, from).map_err(failure::append)?;
        let key = NeedleKey::from_wire("append_item.key", &item.key)?;
        if crc32c::crc32c(&item.data) != sent.crc32c {
            let text = "the data that arrived do not have the sum that the other replica gave";
            return Err(Failure::new(ErrorCode::DigestMismatch, text));
        }
        let (cookie, crc) = (Cookie(item.cookie), Some(sent.crc32c));
        let needle = NewNeedle::new(epoch, key, cookie, item.codec, vec![item.data], crc);
        Ok((volume, needle.map_err(failure::append)?))
    }

    /// Stores a large needle that another replica sends.
    pub(super) async fn follow_stream(
        &self,
        from: NodeId,
        parts: &mut Streaming<v1::AppendPart>,
    ) -> Result<(), Failure> {
        let Some(Part::Head(head)) = next(parts).await? else {
            return Err(invalid("an append begins with its head"));
        };
        let length = head.length as usize;
        if length > NEEDLE_BYTES_MAX {
            return Err(failure::append(AppendError::TooLarge { bytes: length, max: NEEDLE_BYTES_MAX }));
        }
        let (volume, epoch) = (VolumeId(head.volume), Epoch(head.epoch));
        let key = NeedleKey::from_wire("append_head.key", &head.key)?;
        self.replication.may_follow(volume, from).map_err(failure::append)?;
        let allowed = self.store.may_append(volume, epoch);
        allowed.map_err(|error| failure::append(self.fenced(epoch, error)))?;
        // A budget of its own: two servers whose writers' streams wait for each other's room would wait for ever.
        let permits = self.replica_budget.clone().acquire_many_owned(head.length).await;
        let _budget = permits.map_err(|_| failure::append(AppendError::Closing))?;
        let (data, crc) = receive(parts, length).await?;
        let needle = NewNeedle::new(epoch, key, Cookie(head.cookie), head.codec, data, Some(crc))
            .map_err(failure::append)?;
        let answer = self.stored(volume, vec![needle]).await.pop();
        answer.unwrap_or(Err(AppendError::Closing)).map_err(failure::append)
    }

    /// A page of names, for a replica that is being filled. Only a confirmed replica that takes nothing any more is a source.
    pub(super) async fn list_names(
        &self,
        request: v1::ListNeedlesRequest,
    ) -> Result<v1::ListNeedlesReply, Failure> {
        let volume = VolumeId(request.volume);
        let after = match request.after {
            None => None,
            Some(name) => Some((NeedleKey::from_wire("listed_needle.key", &name.key)?, Cookie(name.cookie))),
        };
        if !self.replication.may_list(volume) {
            let text = format!("volume {volume} is not a sealed and confirmed replica here");
            return Err(Failure::new(ErrorCode::Unavailable, text));
        }
        let limit = (request.limit as usize).clamp(1, LIST_NEEDLES_PAGE_MAX);
        let store = self.store.clone();
        // Sorting a table of a full volume takes milliseconds.
        let names = self.store.blocking(move || store.names(volume, after, limit)).await;
        let names = names.map_err(|_| Failure::new(ErrorCode::Internal, "listing needles did not end"))?;
        let names = names.map_err(failure::read)?;
        let needles = names.names.into_iter().map(|(key, cookie, length)| v1::ListedNeedle {
            key: key.to_wire(),
            cookie: cookie.0,
            length,
        });
        Ok(v1::ListNeedlesReply {
            needles: needles.collect(),
            more: names.more,
            incomplete: names.incomplete,
        })
    }
}
