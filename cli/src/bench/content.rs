//! The bytes of the objects: random, incompressible, and different in every 8 bytes from one segment to the next,
//! so that no deduplication of any chunking helps. Made and compared at memory speed: a load client that spends its
//! time on content would hide the server's.
//!
//! A segment is a stretch of one random pool, exclusive-or'd with a key that belongs to (seed, object, segment).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hay_common::random::SeededRandom;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes of a segment; also of one frame of a body.
pub const SEGMENT_BYTES: usize = 64 << 10;

/// Names the bytes of all objects of a run.
#[derive(Clone)]
pub struct Contents {
    seed: u64,
    size: u64,
    pool: Arc<[u64]>,
}

impl Contents {
    /// Objects of `size` bytes.
    pub fn new(seed: u64, size: u64) -> Self {
        let random = SeededRandom::shared(seed);
        let mut bytes = vec![0; 2 * SEGMENT_BYTES];
        random.fill(&mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        Self { seed, size, pool: words.iter().map(|word| u64::from_le_bytes(*word)).collect() }
    }

    fn segments(&self) -> u64 {
        self.size.div_ceil(SEGMENT_BYTES as u64)
    }

    fn segment_len(&self, segment: u64) -> usize {
        let left = self.size.saturating_sub(segment * SEGMENT_BYTES as u64);
        // At most SEGMENT_BYTES.
        left.min(SEGMENT_BYTES as u64) as usize
    }

    /// The key and the words that a segment is made of.
    fn words(&self, object: u64, segment: u64) -> (u64, &[u64]) {
        let key = mix(mix(self.seed ^ mix(object)) ^ segment);
        let half = self.pool.len() / 2;
        // The start differs too, in words, so that two keys never meet the same stretch.
        let start = (key >> 40) as usize % half.max(1);
        (key, self.pool.get(start..start + half).unwrap_or_default())
    }

    /// One segment.
    pub fn segment(&self, object: u64, segment: u64) -> Bytes {
        let (key, words) = self.words(object, segment);
        let len = self.segment_len(segment);
        let mut bytes = vec![0; len.next_multiple_of(8)];
        let (out, _) = bytes.as_chunks_mut::<8>();
        for (out, word) in out.iter_mut().zip(words) {
            *out = (word ^ key).to_le_bytes();
        }
        bytes.truncate(len);
        bytes.into()
    }

    /// The whole object in one piece.
    pub fn whole(&self, object: u64) -> Bytes {
        if self.segments() == 1 {
            return self.segment(object, 0);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        for segment in 0..self.segments() {
            bytes.extend_from_slice(&self.segment(object, segment));
        }
        bytes.into()
    }

    /// The object as a request body.
    pub fn body(&self, object: u64) -> ObjectBody {
        ObjectBody { contents: Some(self.clone()), object, next: 0, sent: 0 }
    }

    /// Something that takes an object piece by piece and says whether it is the right one.
    pub fn verifier(&self, object: u64) -> Verifier {
        Verifier { contents: self.clone(), object, segment: 0, expected: Bytes::new(), done: 0 }
    }
}

/// SplitMix64's finaliser.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A request body that makes its segments as they are asked for; or an empty one.
pub struct ObjectBody {
    contents: Option<Contents>,
    object: u64,
    next: u64,
    sent: u64,
}

impl ObjectBody {
    /// No bytes, for GET.
    pub fn empty() -> Self {
        Self { contents: None, object: 0, next: 0, sent: 0 }
    }

    fn left(&self) -> u64 {
        self.contents.as_ref().map_or(0, |contents| contents.size.saturating_sub(self.sent))
    }
}

impl Body for ObjectBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(contents) = this.contents.as_ref().filter(|contents| this.next < contents.segments()) else {
            return Poll::Ready(None);
        };
        let segment = contents.segment(this.object, this.next);
        this.next += 1;
        this.sent += segment.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

/// Compares an object as it arrives.
pub struct Verifier {
    contents: Contents,
    object: u64,
    segment: u64,
    expected: Bytes,
    done: u64,
}

/// The bytes are not those of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongBytes {
    /// Other bytes.
    #[error("other bytes than were stored, from byte {0} on")]
    Different(u64),
    /// Too few or too many.
    #[error("{0} bytes instead of the object's")]
    Length(u64),
}

impl Verifier {
    /// The next piece.
    ///
    /// # Errors
    /// Where it differs.
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), WrongBytes> {
        while !piece.is_empty() {
            if self.expected.is_empty() {
                if self.segment == self.contents.segments() {
                    return Err(WrongBytes::Length(self.done + piece.len() as u64));
                }
                self.expected = self.contents.segment(self.object, self.segment);
                self.segment += 1;
            }
            let len = piece.len().min(self.expected.len());
            let (now, later) = piece.split_at(len);
            if self.expected.split_to(len) != now {
                return Err(WrongBytes::Different(self.done));
            }
            self.done += len as u64;
            piece = later;
        }
        Ok(())
    }

    /// The end.
    ///
    /// # Errors
    /// When it came too early.
    pub fn finish(self) -> Result<(), WrongBytes> {
        if self.done == self.contents.size { Ok(()) } else { Err(WrongBytes::Length(self.done)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::collections::HashSet;

    #[test]
    fn every_segment_of_every_object_has_other_words() {
        let contents = Contents::new(1, 3 * SEGMENT_BYTES as u64);
        let mut seen = HashSet::new();
        for object in 0..20 {
            for word in contents.whole(object).as_chunks::<8>().0 {
                assert!(seen.insert(*word), "8 bytes came twice");
            }
        }
    }

    #[tokio::test]
    async fn the_body_the_segments_and_the_whole_agree() {
        for size in [0, 1, 7, 4096, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES - 5] {
            let contents = Contents::new(9, size as u64);
            let whole = contents.whole(5);
            assert_eq!(whole.len(), size);
            assert_eq!(contents.body(5).size_hint().exact(), Some(size as u64));
            assert_eq!(contents.body(5).collect().await.unwrap().to_bytes(), whole);
        }
    }

    #[test]
    fn the_verifier_takes_the_object_and_nothing_else() {
        let contents = Contents::new(2, SEGMENT_BYTES as u64 + 100);
        let whole = contents.whole(3).to_vec();
        let verify = |bytes: &[u8]| {
            let mut verifier = contents.verifier(3);
            bytes.chunks(1000).try_for_each(|piece| verifier.take(piece)).and_then(|()| verifier.finish())
        };
        assert_eq!(verify(&whole), Ok(()));
        assert_eq!(verify(&whole[1..]), Err(WrongBytes::Different(0)));
        assert_eq!(verify(&whole[..whole.len() - 1]), Err(WrongBytes::Length(whole.len() as u64 - 1)));
        let mut long = whole.clone();
        long.push(0);
        assert!(matches!(verify(&long), Err(WrongBytes::Length(_))));
        let mut flipped = whole;
        *flipped.last_mut().unwrap() ^= 1;
        assert!(matches!(verify(&flipped), Err(WrongBytes::Different(_))));
    }
}
