//! One append on all replicas.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{APPEND_UNARY_BYTES_MAX, REPLICATE_BYTES_PER_S_MIN, REPLICATE_TIMEOUT};
use hay_needle::State;
use tokio::sync::oneshot;

use super::Replication;
use super::lane::Lane;
use super::standing::is_sole;
use crate::grpc::replicate as wire;
use crate::store::{Answers, AppendError, NewNeedle};

impl Replication {
    /// Stores needles here and on every other replica of the volume. One that succeeded is on all their disks.
    pub async fn append(self: &Arc<Self>, id: VolumeId, needles: Vec<NewNeedle>) -> Answers {
        let Some(state) = self.store.state(id) else {
            return vec![Err(AppendError::NoVolume(id)); needles.len()];
        };
        if is_sole(&state) {
            return match self.may_alone(id) {
                Ok(()) => self.store.append(id, needles).await,
                Err(error) => vec![Err(error); needles.len()],
            };
        }
        let (mut results, admitted) = self.admit(id, &state, needles);
        if admitted.is_empty() {
            return results;
        }
        let others = self.send_to_others(id, &state, &admitted);
        let own = async {
            let answers = self.store.append(id, admitted).await;
            if answers.contains(&Err(AppendError::StorageFull)) {
                // Writing goes on elsewhere, where all replicas have room.
                self.stop(id, state.epoch, self.node, "the disk of this server is full");
            }
            answers
        };
        // Two queues rather than one after the other: a sync here costs no more time than the one there.
        let (own, others) = tokio::join!(own, join_all(others));
        let mut places = results.iter_mut().filter(|result| result.is_ok());
        for (at, own) in own.into_iter().enumerate() {
            let there =
                others.iter().map(|answers| answers.get(at).cloned().unwrap_or(Err(AppendError::Closing)));
            let all = [own.map_err(|error| elsewhere(id, error))].into_iter().chain(there);
            if let Some(place) = places.next() {
                *place = all.fold(Ok(()), Result::and);
            }
        }
        results
    }

    /// Results with the refusals filled in, and the needles that may go. Before anything is sent: a needle of another epoch
    /// must not look like a replica that failed.
    fn admit(&self, id: VolumeId, state: &State, needles: Vec<NewNeedle>) -> (Answers, Vec<NewNeedle>) {
        let count = needles.len();
        let allowed = match self.may_lead(id, state) {
            _ if state.sealed.is_some() => Err(AppendError::Sealed(id)),
            allowed => allowed,
        };
        if let Err(error) = allowed {
            return (vec![Err(error); count], Vec::new());
        }
        let (mut results, mut admitted) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for needle in needles {
            let given = needle.epoch();
            results.push(match given.cmp(&state.epoch) {
                std::cmp::Ordering::Less => {
                    Err(AppendError::StaleEpoch { volume: id, given, current: state.epoch })
                }
                std::cmp::Ordering::Greater => Err(AppendError::Unconfirmed(id)),
                std::cmp::Ordering::Equal => {
                    admitted.push(needle);
                    Ok(())
                }
            });
        }
        (results, admitted)
    }

    /// Begins to send to each other replica; the answers come in the order of the needles.
    fn send_to_others(
        self: &Arc<Self>,
        id: VolumeId,
        state: &State,
        needles: &[NewNeedle],
    ) -> Vec<impl Future<Output = Answers> + use<>> {
        let is_large = needles.iter().any(|needle| needle.length() > APPEND_UNARY_BYTES_MAX);
        let others = state.members.iter().filter(|node| **node != self.node);
        let count = needles.len();
        let sent = others.map(|node| match is_large {
            true => self.send_large(id, *node, needles),
            false => self.lane(id, *node).send(self, needles.to_vec()),
        });
        sent.map(|sent| async move {
            match sent {
                // The task that sends answers always; without an answer it has met a fault in the program.
                Ok(answers) => answers.await.unwrap_or_else(|_| vec![Err(AppendError::Closing); count]),
                Err(error) => vec![Err(error); count],
            }
        })
        .collect()
    }

    fn lane(&self, id: VolumeId, node: NodeId) -> Arc<Lane> {
        let entry = self.entry(id);
        let mut entry = entry.lock();
        if let Some(lane) = entry.lanes.iter().find(|lane| lane.node == node) {
            return lane.clone();
        }
        let lane = Lane::new(id, node);
        entry.lanes.push(lane.clone());
        lane
    }

    /// Large needles, each as a stream of its own; how many there are the budget of the streams they came by decides. In a
    /// task: a caller that goes away must not leave unsaid that the replica failed.
    fn send_large(
        self: &Arc<Self>,
        id: VolumeId,
        node: NodeId,
        needles: &[NewNeedle],
    ) -> Result<oneshot::Receiver<Answers>, AppendError> {
        let (reply, answers) = oneshot::channel();
        let (own, needles) = (self.clone(), needles.to_vec());
        tokio::spawn(async move {
            let sent = needles.into_iter().map(|needle| own.send_stream(id, node, needle));
            // Whoever asked may have gone.
            let _ = reply.send(join_all(sent).await);
        });
        Ok(answers)
    }

    async fn send_stream(&self, id: VolumeId, node: NodeId, needle: NewNeedle) -> Result<(), AppendError> {
        let epoch = needle.epoch();
        let deadline = stream_deadline(needle.length());
        let call = async { wire::send_stream(&self.peer(node)?, id, needle, deadline).await };
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => answer.map_err(|failure| self.refused(id, epoch, node, failure)),
            Ok(Err(failure)) => Err(self.failed(id, epoch, node, failure)),
            Err(_) => Err(self.failed(id, epoch, node, too_slow())),
        }
    }

    /// One call with small needles of one epoch or several.
    pub(super) async fn send_batch(&self, id: VolumeId, node: NodeId, needles: Vec<NewNeedle>) -> Answers {
        let epochs: Vec<Epoch> = needles.iter().map(NewNeedle::epoch).collect();
        let call = async { wire::send_batch(&self.peer(node)?, id, needles, REPLICATE_TIMEOUT).await };
        let sent = match tokio::time::timeout(REPLICATE_TIMEOUT, call).await {
            Ok(Ok(results)) if results.len() == epochs.len() => {
                let judged = results.into_iter().zip(epochs);
                return judged
                    .map(|(sent, epoch)| sent.map_err(|f| self.refused(id, epoch, node, f)))
                    .collect();
            }
            Ok(Ok(results)) => {
                let text = format!("it answered {} needles with {} results", epochs.len(), results.len());
                vec![Err(Failure::new(ErrorCode::Unavailable, text)); epochs.len()]
            }
            Ok(Err(failure)) => vec![Err(failure); epochs.len()],
            Err(_) => vec![Err(too_slow()); epochs.len()],
        };
        let judged = sent.into_iter().zip(epochs);
        judged.map(|(sent, epoch)| sent.map_err(|failure| self.failed(id, epoch, node, failure))).collect()
    }

    /// What an answer of a replica for one needle means. One that is not confirmed yet has just come back: after a restart
    /// of everything no volume should be sealed for that.
    fn refused(&self, id: VolumeId, epoch: Epoch, node: NodeId, failure: Failure) -> AppendError {
        match failure.code {
            ErrorCode::Unavailable => AppendError::ReplicaRefused { volume: id, reason: failure.message },
            _ => self.failed(id, epoch, node, failure),
        }
    }

    /// What a failure of a replica means for the needle, and for the volume.
    fn failed(&self, id: VolumeId, epoch: Epoch, node: NodeId, failure: Failure) -> AppendError {
        match failure.code {
            // The replica is well and has said no to this needle. It is not acknowledged, and that is all.
            ErrorCode::NeedleExists => AppendError::Exists { volume: id },
            ErrorCode::Overloaded => AppendError::Overloaded(id),
            // It has taken a seal: it is well, the masters know, and so will this server. Each append asks it again.
            ErrorCode::StaleEpoch => AppendError::ReplicaRefused { volume: id, reason: failure.message },
            ErrorCode::DigestMismatch | ErrorCode::TooLarge | ErrorCode::InvalidArgument => {
                AppendError::ReplicaRefused { volume: id, reason: failure.message }
            }
            _ => {
                let reason = format!("replica {} failed: {}", self.named(node), failure.message);
                self.stop(id, epoch, node, &reason);
                AppendError::ReplicaFailed { volume: id, reason }
            }
        }
    }
}

/// How long a replica may take for a large needle of so many bytes.
fn stream_deadline(bytes: usize) -> Duration {
    REPLICATE_TIMEOUT + Duration::from_millis(bytes as u64 * 1000 / REPLICATE_BYTES_PER_S_MIN)
}

fn too_slow() -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, "it did not answer in time")
}

/// A full disk of one of several servers is no reason to refuse the writer.
fn elsewhere(id: VolumeId, error: AppendError) -> AppendError {
    match error {
        AppendError::StorageFull => {
            AppendError::ReplicaFailed { volume: id, reason: "the disk of this server is full".to_owned() }
        }
        error => error,
    }
}
