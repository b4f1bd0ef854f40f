//! Reads from whichever replica answers.

use std::collections::VecDeque;
use std::pin::pin;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::VolumeId;
use hay_common::limits::{READ_HEDGE_AFTER, READ_HEDGE_AVOIDED, READ_REPLICA_TIMEOUT, RPC_BULK_PART_BYTES};

use super::{Data, NeedleRange, Parts, VolumeClient, silent};
use crate::grpc;
use crate::places::Places;

impl VolumeClient {
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

    /// Reads a range from the first of `places` that gives it: whole up to [`RPC_BULK_PART_BYTES`], else in parts.
    pub async fn read(&self, places: impl Into<Places>, range: NeedleRange) -> Result<Data, Failure> {
        if range.length as usize <= RPC_BULK_PART_BYTES {
            self.read_whole(places, range).await.map(Data::Whole)
        } else {
            self.read_parts(places, range).await.map(Data::Parts)
        }
    }

    /// Reads a range of at most [`RPC_BULK_PART_BYTES`] bytes in one message. A longer one is refused, whatever room
    /// a server has for its answers: it goes by [`VolumeClient::read_parts`].
    ///
    /// # Errors
    /// `corrupt` and `not_found` only where every replica said so; else what kept one from answering.
    pub async fn read_whole(&self, places: impl Into<Places>, range: NeedleRange) -> Result<Bytes, Failure> {
        if range.length as usize > RPC_BULK_PART_BYTES {
            let text =
                format!("{} bytes in one message; at most {RPC_BULK_PART_BYTES} are read so", range.length);
            return Err(Failure::new(ErrorCode::InvalidArgument, text));
        }
        // On the wire a length of 0 means all.
        if range.length == 0 {
            return Ok(Bytes::new());
        }
        let places = places.into();
        let order = self.peers.order(&places, range.key);
        let Some((first, others)) = order.split_first() else { return Err(no_replica(range.volume)) };
        let mut call = pin!(self.read_batch(first, range));
        if others.is_empty() {
            return self.noted(first, call.await);
        }
        self.hedges.earn(range.length as usize);
        match tokio::time::timeout(READ_HEDGE_AFTER, call.as_mut()).await {
            Ok(Ok(data)) => Ok(data),
            Ok(failed) => self.read_rest(self.noted(first, failed).err(), None, others, range).await,
            Err(_) => self.read_rest(None, Some((first, call.boxed())), others, range).await,
        }
    }

    async fn read_batch(&self, address: &str, range: NeedleRange) -> Result<Bytes, Failure> {
        grpc::volume::read_batch(&self.peers.volume(address)?, range).await
    }

    /// Asks the `others` where one has failed or is silent: instead of the one that has failed, beside the one that is
    /// silent. The first good answer counts.
    async fn read_rest<'a>(
        &'a self,
        mut failure: Option<Failure>,
        silent: Option<(&'a String, BoxFuture<'a, Result<Bytes, Failure>>)>,
        others: &'a [&'a String],
        range: NeedleRange,
    ) -> Result<Bytes, Failure> {
        let mut others = others.iter();
        let mut asked: Vec<&String> = Vec::with_capacity(others.len() + 1);
        let mut calls = FuturesUnordered::new();
        if let Some((address, call)) = silent {
            asked.push(address);
            calls.push(self.patiently(address, false, call).map(move |read| (address, read)).boxed());
        }
        let mut replaces = calls.is_empty();
        loop {
            let may = others.len() > 0 && (replaces || self.hedges.spend(range.length as usize));
            replaces = false;
            if let Some(&address) = may.then(|| others.next()).flatten() {
                asked.push(address);
                let call = self.patiently(address, others.len() == 0, self.read_batch(address, range));
                calls.push(call.map(move |read| (address, read)).boxed());
            }
            let outcome = match others.len() {
                0 => Ok(calls.next().await),
                _ => tokio::time::timeout(READ_HEDGE_AFTER, calls.next()).await,
            };
            match outcome {
                Ok(Some((address, Ok(data)))) => {
                    // Who was asked before and is silent yet is asked last, but not for long: it may be slow for once.
                    let before = asked.iter().take_while(|known| **known != address);
                    before.for_each(|known| self.peers.avoid_for(known, READ_HEDGE_AVOIDED));
                    return Ok(data);
                }
                Ok(Some((address, Err(next)))) => {
                    asked.retain(|known| *known != address);
                    failure = Some(weightier(failure.take(), next));
                    replaces = true;
                }
                Ok(None) => return Err(failure.unwrap_or_else(|| no_replica(range.volume))),
                // Still silent, all of them.
                Err(_) => {}
            }
        }
    }

    /// Reads a range in parts. Where a replica fails, also in the middle, or sends nothing more, the next one goes on from
    /// there; each verifies the needle before its first part. When all have failed the stream fails.
    pub async fn read_parts(&self, places: impl Into<Places>, range: NeedleRange) -> Result<Parts, Failure> {
        if range.length == 0 {
            return Ok(Box::pin(futures::stream::empty()));
        }
        let order = self.peers.order(&places.into(), range.key).into_iter().cloned().collect();
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

fn broken_off(volume: VolumeId) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("a read of volume {volume} broke off"))
}

fn no_replica(volume: VolumeId) -> Failure {
    Failure::new(ErrorCode::Unavailable, format!("no server that holds volume {volume} is known"))
}

/// Of the failures of several replicas, the one that tells most. One that could not be asked, or could not say, may hold the
/// needle whole: only where there is none of that kind is it damaged, and only where nobody has lost it is it not there.
fn weightier(before: Option<Failure>, next: Failure) -> Failure {
    let weight = |failure: &Failure| match failure.code {
        ErrorCode::NotFound => 0,
        ErrorCode::Corrupt => 1,
        _ => 2,
    };
    match before {
        Some(before) if weight(&before) >= weight(&next) => before,
        Some(_) | None => next,
    }
}
