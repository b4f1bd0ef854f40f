//! What stands in a record's data: the payload of a log entry.
//!
//! ```text
//! kind u8: 0 blank
//!          1 batch: count u32, then for each command its length u32, then the commands
//!          2 membership: postcard
//! ```

use bytes::{Buf, Bytes};
use openraft::EntryPayload;

use crate::types::{Batch, Types};

const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Data that no payload encodes to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the data of the record is no payload: {0}")]
pub(crate) struct DecodeError(&'static str);

pub(crate) fn encode(payload: &EntryPayload<Types>) -> Result<Vec<u8>, postcard::Error> {
    match payload {
        EntryPayload::Blank => Ok(vec![BLANK]),
        EntryPayload::Normal(batch) => Ok(encode_batch(batch)),
        EntryPayload::Membership(membership) => postcard::to_extend(membership, vec![MEMBERSHIP]),
    }
}

fn encode_batch(batch: &Batch) -> Vec<u8> {
    let bytes: usize = batch.0.iter().map(Bytes::len).sum();
    let mut data = Vec::with_capacity(5 + 4 * batch.0.len() + bytes);
    data.push(BATCH);
    // Proposals are bounded far below 4 GiB and 2^32 commands (limits.rs).
    data.extend_from_slice(&(batch.0.len() as u32).to_le_bytes());
    batch.0.iter().for_each(|c| data.extend_from_slice(&(c.len() as u32).to_le_bytes()));
    batch.0.iter().for_each(|c| data.extend_from_slice(c));
    data
}

pub(crate) fn decode(mut data: Bytes) -> Result<EntryPayload<Types>, DecodeError> {
    let kind = data.try_get_u8().map_err(|_| DecodeError("it is empty"))?;
    match kind {
        BLANK if data.is_empty() => Ok(EntryPayload::Blank),
        BATCH => decode_batch(data).map(EntryPayload::Normal),
        MEMBERSHIP => postcard::from_bytes(&data)
            .map(EntryPayload::Membership)
            .map_err(|_| DecodeError("a membership that can't be read")),
        _ => Err(DecodeError("an unknown kind")),
    }
}

fn decode_batch(mut data: Bytes) -> Result<Batch, DecodeError> {
    const SHORT: DecodeError = DecodeError("a batch that ends early");
    let count = data.try_get_u32_le().map_err(|_| SHORT)? as usize;
    if data.len() / 4 < count {
        return Err(SHORT);
    }
    let mut lengths = data.split_to(4 * count);
    let mut commands = Vec::with_capacity(count);
    while let Ok(length) = lengths.try_get_u32_le() {
        if data.len() < length as usize {
            return Err(SHORT);
        }
        commands.push(data.split_to(length as usize));
    }
    if data.is_empty() { Ok(Batch::new(commands)) } else { Err(DecodeError("a batch with bytes left over")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes_of_a_batch() {
        let batch = Batch::new(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
        let data = encode(&EntryPayload::Normal(batch.clone())).unwrap();
        assert_eq!(data, b"\x01\x03\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0abc");
        assert_eq!(decode(data.into()).unwrap(), EntryPayload::Normal(batch));
    }

    #[test]
    fn a_membership_reads_back() {
        let membership = openraft::Membership::new(vec![[1, 2].into()], None);
        let payload = EntryPayload::Membership(membership);
        assert_eq!(decode(encode(&payload).unwrap().into()).unwrap(), payload);
    }

    proptest! {
        #[test]
        fn any_batch_reads_back_and_no_cut_of_it(sizes in prop::collection::vec(0usize..50, 0..20)) {
            let batch = Batch::new(sizes.iter().map(|s| Bytes::from(vec![7; *s])).collect());
            let data = Bytes::from(encode(&EntryPayload::Normal(batch.clone())).unwrap());
            for cut in 0..data.len() {
                prop_assert!(decode(data.slice(..cut)).is_err());
            }
            prop_assert_eq!(decode(data).unwrap(), EntryPayload::Normal(batch));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(bytes.into());
        }
    }
}
