//! The bodies of messages between members. Entries stand in them as they stand in the log.
//!
//! ```text
//! append: length of the head u32, little endian | head (postcard) | the entries' data, one after the other
//! all others: postcard
//! ```

use bytes::{Buf, Bytes};
use hay_common::limits::LOG_RECORD_BYTES_MAX;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::log::payload;
use crate::types::{Entry, LogId, SnapshotMeta, Types, Vote};

/// Bytes that are no message of the consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message can't be read")]
pub(crate) struct Malformed;

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    previous: Option<LogId>,
    committed: Option<LogId>,
    /// Each with the length of its data.
    entries: Vec<(LogId, u32)>,
}

/// What precedes a snapshot's files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

/// Who asks to be taken in, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) address: String,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes, Malformed> {
    postcard::to_stdvec(message).map(Bytes::from).map_err(|_| Malformed)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    postcard::from_bytes(bytes).map_err(|_| Malformed)
}

pub(crate) fn encode_vote(request: &VoteRequest<u64>) -> Result<Bytes, Malformed> {
    encode(request)
}

pub(crate) fn encode_append(request: &AppendEntriesRequest<Types>) -> Result<Bytes, Malformed> {
    let mut entries = Vec::with_capacity(request.entries.len());
    let mut data = Vec::with_capacity(request.entries.len());
    for entry in &request.entries {
        let payload = payload::encode(&entry.payload).map_err(|_| Malformed)?;
        entries.push((entry.log_id, u32::try_from(payload.len()).map_err(|_| Malformed)?));
        data.push(payload);
    }
    let head = AppendHead {
        vote: request.vote,
        previous: request.prev_log_id,
        committed: request.leader_commit,
        entries,
    };
    let head = postcard::to_stdvec(&head).map_err(|_| Malformed)?;
    let bytes = 4 + head.len() + data.iter().map(Vec::len).sum::<usize>();
    let mut body = Vec::with_capacity(bytes);
    body.extend_from_slice(&u32::try_from(head.len()).map_err(|_| Malformed)?.to_le_bytes());
    body.extend_from_slice(&head);
    data.iter().for_each(|data| body.extend_from_slice(data));
    Ok(body.into())
}

pub(crate) fn decode_append(mut body: Bytes) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let length = body.try_get_u32_le().map_err(|_| Malformed)? as usize;
    if body.len() < length {
        return Err(Malformed);
    }
    let head: AppendHead = decode(&body.split_to(length))?;
    let mut entries: Vec<Entry> = Vec::with_capacity(head.entries.len());
    for (log_id, length) in head.entries {
        let length = length as usize;
        if length > LOG_RECORD_BYTES_MAX || body.len() < length {
            return Err(Malformed);
        }
        let payload = payload::decode(body.split_to(length)).map_err(|_| Malformed)?;
        entries.push(Entry { log_id, payload });
    }
    // Indices of one message follow each other, whatever the sender believes.
    let consecutive =
        entries.iter().zip(entries.iter().skip(1)).all(|(a, b)| a.log_id.index + 1 == b.log_id.index);
    if !body.is_empty() || !consecutive {
        return Err(Malformed);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.previous,
        leader_commit: head.committed,
        entries,
    })
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::*;
    use crate::types::Batch;

    fn request() -> AppendEntriesRequest<Types> {
        let id = |index| LogId::new(CommittedLeaderId::new(3, 7), index);
        let batch = Batch::new(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
        let membership = openraft::Membership::new(vec![[1, u64::MAX].into()], None);
        let payloads =
            [EntryPayload::Normal(batch), EntryPayload::Blank, EntryPayload::Membership(membership)];
        let entries = (10..).zip(payloads).map(|(index, payload)| Entry { log_id: id(index), payload });
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 7),
            prev_log_id: Some(id(9)),
            leader_commit: None,
            entries: entries.collect(),
        }
    }

    #[test]
    fn entries_read_back_and_no_cut_of_them() {
        let body = encode_append(&request()).unwrap();
        let read = decode_append(body.clone()).unwrap();
        assert_eq!(read.entries, request().entries);
        assert_eq!((read.vote, read.prev_log_id), (request().vote, request().prev_log_id));
        for cut in 0..body.len() {
            assert_eq!(decode_append(body.slice(..cut)).err(), Some(Malformed), "cut at {cut}");
        }
        let longer = [body.as_ref(), b"x"].concat();
        assert_eq!(decode_append(longer.into()).err(), Some(Malformed));
    }

    #[test]
    fn a_gap_between_entries_is_refused() {
        let mut gap = request();
        gap.entries.remove(1);
        assert_eq!(decode_append(encode_append(&gap).unwrap()).err(), Some(Malformed));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = decode_append(bytes.into());
        }
    }
}
