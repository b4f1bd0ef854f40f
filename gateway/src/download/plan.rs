//! Which chunks a download still has to read, as a decision without I/O.

use std::collections::VecDeque;

use hay_common::model::LocatedChunk;

/// A part of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The chunk and a copy of it.
    pub(crate) located: LocatedChunk,
    /// The first byte, inside the chunk.
    pub(crate) start: u32,
    /// One past the last byte, inside the chunk.
    pub(crate) end: u32,
}

/// What a plan can't be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunk list of the file has a hole at byte {0}")]
pub(crate) struct Hole(pub(crate) u64);

/// The rest of a download.
#[derive(Debug)]
pub(crate) struct Plan {
    known: VecDeque<LocatedChunk>,
    at: u64,
    end: u64,
    next_number: u32,
}

impl Plan {
    /// `start..end` of a file whose first wanted chunks are known.
    pub(crate) fn new(start: u64, end: u64, known: Vec<LocatedChunk>) -> Self {
        let mut plan = Self { known: VecDeque::new(), at: start, end, next_number: 0 };
        plan.learn(known);
        plan
    }

    /// Further chunks, following those known.
    pub(crate) fn learn(&mut self, chunks: Vec<LocatedChunk>) {
        self.known.extend(chunks);
        if let Some(last) = self.known.back() {
            self.next_number = last.number.saturating_add(1);
        }
    }

    /// Whether all bytes have been handed out.
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// The number of the chunk that must be learnt before [`Plan::next`], if any.
    pub(crate) fn missing(&self) -> Option<u32> {
        (!self.is_done() && self.known.is_empty()).then_some(self.next_number)
    }

    /// The next part, or `None` when done or when chunks are missing.
    ///
    /// # Errors
    /// When the chunks don't cover the file.
    pub(crate) fn next(&mut self) -> Result<Option<Wanted>, Hole> {
        while !self.is_done() {
            let Some(located) = self.known.pop_front() else { return Ok(None) };
            let chunk_end = located.offset.saturating_add(u64::from(located.chunk.size));
            if chunk_end <= self.at {
                continue;
            }
            let (Some(start), end) = (self.at.checked_sub(located.offset), chunk_end.min(self.end)) else {
                return Err(Hole(self.at));
            };
            let (Ok(start), Ok(last)) = (u32::try_from(start), u32::try_from(end - located.offset)) else {
                return Err(Hole(self.at));
            };
            self.at = end;
            return Ok(Some(Wanted { located, start, end: last }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::ids::{ContentHash, Cookie, CopyId, VolumeId};
    use hay_common::model::{Chunk, Codec, Copy, CopyState, Location};

    fn located(number: u32, offset: u64, size: u32) -> LocatedChunk {
        let location = Location::Volume { volume: VolumeId(1), cookie: Cookie(number) };
        LocatedChunk {
            number,
            offset,
            chunk: Chunk { hash: ContentHash([0; 32]), size },
            copy: Copy {
                id: CopyId::from_random(u128::from(number)),
                location,
                codec: Codec::PLAIN,
                stored_bytes: size,
                state: CopyState::Live,
            },
        }
    }

    fn parts(plan: &mut Plan) -> Vec<(u32, u32, u32)> {
        std::iter::from_fn(|| plan.next().unwrap()).map(|w| (w.located.number, w.start, w.end)).collect()
    }

    #[test]
    fn ranges_cut_the_first_and_the_last_chunk() {
        let chunks = || vec![located(0, 0, 10), located(1, 10, 10), located(2, 20, 5)];
        for (start, end, expected) in [
            (0, 25, vec![(0, 0, 10), (1, 0, 10), (2, 0, 5)]),
            (9, 11, vec![(0, 9, 10), (1, 0, 1)]),
            (10, 20, vec![(1, 0, 10)]),
            (24, 25, vec![(2, 4, 5)]),
            (5, 5, vec![]),
        ] {
            let mut plan = Plan::new(start, end, chunks());
            assert_eq!(parts(&mut plan), expected, "{start}..{end}");
            assert!(plan.is_done());
        }
    }

    #[test]
    fn what_is_not_known_yet_is_named() {
        let mut plan = Plan::new(0, 30, vec![located(0, 0, 10)]);
        assert_eq!(plan.missing(), None);
        assert_eq!(parts(&mut plan), [(0, 0, 10)]);
        assert_eq!(plan.missing(), Some(1));
        plan.learn(vec![located(1, 10, 10), located(2, 20, 10)]);
        assert_eq!(parts(&mut plan), [(1, 0, 10), (2, 0, 10)]);
        assert_eq!(plan.missing(), None);
    }

    #[test]
    fn a_hole_is_an_error_not_a_shorter_file() {
        let mut plan = Plan::new(0, 30, vec![located(0, 0, 10), located(2, 20, 10)]);
        plan.next().unwrap();
        assert_eq!(plan.next(), Err(Hole(10)));
    }
}
