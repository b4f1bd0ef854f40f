//! Bodies cut into chunks: each in one buffer that grows with what arrives and is paid for in upload memory.

use bytes::Bytes;
use hay_common::limits::SMALL_BODY_BYTES_MAX;
use http_body::Body;

use super::body::{BodyFault, BodyReader};
use crate::memory::buffer::ChunkBuffer;
use crate::memory::gauge::Held;
use crate::memory::uploads::{Share, UploadMemory};

/// A chunk in memory and the memory it is paid with, sealed.
pub(crate) struct FullChunk {
    /// Its bytes.
    pub(crate) data: Bytes,
    /// Given back when the chunk is stored and referred to. None: it came in one frame, in the connection's buffer.
    pub(crate) _share: Option<Share>,
    /// Counts what no share pays for.
    pub(crate) _counted: Option<Held>,
}

/// What came of the first bytes of a body.
pub(crate) enum Start {
    /// All of it.
    Small(FullChunk),
    /// More than a small body: the chunk goes on with [`Chunker::next`].
    Large,
}

/// Cuts one body.
pub(crate) struct Chunker<B> {
    reader: BodyReader<B>,
    memory: UploadMemory,
    /// Received, not yet in a chunk.
    carry: Bytes,
    carry_counted: Held,
    /// The chunk that is being filled.
    open: Option<ChunkBuffer>,
    chunk_bytes: usize,
}

impl<B> Chunker<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Chunks of `chunk_bytes`.
    pub(crate) fn new(reader: BodyReader<B>, memory: UploadMemory, chunk_bytes: usize) -> Self {
        let carry_counted = memory.count(0);
        Self { reader, memory, carry: Bytes::new(), carry_counted, open: None, chunk_bytes }
    }

    /// Reads a body that may be small.
    ///
    /// # Errors
    /// See [`BodyFault`].
    pub(crate) async fn start(&mut self) -> Result<Start, BodyFault> {
        let limit = SMALL_BODY_BYTES_MAX.min(self.chunk_bytes);
        let Some(first) = self.reader.next(None).await? else {
            return Ok(Start::Small(FullChunk { data: Bytes::new(), _share: None, _counted: None }));
        };
        if first.len() <= limit && self.reader.is_finished() {
            let counted = Some(self.memory.count(first.len()));
            return Ok(Start::Small(FullChunk { data: first, _share: None, _counted: counted }));
        }
        self.carry_on(first);
        loop {
            if self.have() + self.carry.len() > limit {
                return Ok(Start::Large);
            }
            self.take_carry(limit).await?;
            if !self.refill().await? {
                return Ok(Start::Small(self.finish().await?));
            }
        }
    }

    /// The next chunk: full, but for the last one. `None` at the end.
    ///
    /// # Errors
    /// See [`BodyFault`].
    pub(crate) async fn next(&mut self) -> Result<Option<FullChunk>, BodyFault> {
        loop {
            let have = self.have();
            let ended = have < self.chunk_bytes && self.carry.is_empty() && !self.refill().await?;
            if have == self.chunk_bytes || ended {
                return if self.open.is_some() { self.finish().await.map(Some) } else { Ok(None) };
            }
            self.take_carry(self.chunk_bytes).await?;
        }
    }

    fn have(&self) -> usize {
        self.open.as_ref().map_or(0, ChunkBuffer::len)
    }

    /// Reads into `carry`. False at the end of the body.
    async fn refill(&mut self) -> Result<bool, BodyFault> {
        match self.reader.next(self.open.as_mut()).await? {
            None => Ok(false),
            Some(bytes) => {
                self.carry_on(bytes);
                Ok(true)
            }
        }
    }

    fn carry_on(&mut self, bytes: Bytes) {
        self.carry_counted.resize(bytes.len());
        self.carry = bytes;
    }

    /// Moves what fits of `carry` into the open chunk.
    async fn take_carry(&mut self, limit: usize) -> Result<(), BodyFault> {
        let to_come = self.reader.remaining().and_then(|r| usize::try_from(r).ok());
        let open = self.open.get_or_insert_with(|| ChunkBuffer::new(&self.memory));
        let taken = open.take(&mut self.carry, limit, to_come).await;
        self.carry_counted.resize(self.carry.len());
        taken.map_err(|loss| self.reader.lost(loss))
    }

    async fn finish(&mut self) -> Result<FullChunk, BodyFault> {
        let open = self.open.take().unwrap_or_else(|| ChunkBuffer::new(&self.memory));
        let (data, share) = open.whole().await.map_err(|loss| self.reader.lost(loss))?;
        Ok(FullChunk { data: Bytes::from(data), _share: Some(share), _counted: None })
    }

    /// Gives back the memory of a chunk that nobody wants any more. Nobody listens for others' need of it from now on.
    pub(crate) fn forget_open(&mut self) {
        self.open = None;
        self.carry_on(Bytes::new());
    }

    /// The body, to be read to its end without use.
    pub(crate) fn into_body(self) -> B {
        self.reader.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::body::tests::{data, rules, scripted};
    use crate::memory::gauge::BufferGauge;
    use crate::memory::ledger::{AsideLimits, LedgerLimits};
    use hay_common::clock::ManualClock;
    use hay_common::limits::{CHUNK_BYTES_MAX, MIB};
    use hay_common::random::{Random, SeededRandom};
    use std::time::Duration;

    fn chunker(
        frames: Vec<Vec<u8>>,
        announced: Option<u64>,
        chunk_bytes: usize,
    ) -> (Chunker<impl Body<Data = Bytes> + Unpin>, BufferGauge) {
        let clock = ManualClock::at(0);
        let gauge = BufferGauge::default();
        let limits = LedgerLimits {
            small_bytes: MIB,
            small_each: SMALL_BODY_BYTES_MAX,
            open_bytes: 16 * MIB,
            slots: 1,
            park_idle: Duration::from_millis(10),
            pressure_idle: Duration::from_secs(3),
            wait_max: Duration::from_secs(60),
            aside: AsideLimits { bytes: 0, at_once: 0, worth: 0, each: 0, pause: Duration::ZERO },
        };
        let memory = UploadMemory::new(limits, clock.clone(), gauge.clone(), None);
        let steps = frames.iter().map(|f| (Duration::ZERO, data(f))).collect();
        let reader = BodyReader::new(scripted(steps, clock.clone()), announced, rules(), clock);
        (Chunker::new(reader, memory, chunk_bytes), gauge)
    }

    fn cut(bytes: &[u8], random: &dyn Random) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (frame, after) = rest.split_at((1 + random.u32() as usize % 40_000).min(rest.len()));
            frames.push(frame.to_vec());
            rest = after;
        }
        frames
    }

    #[tokio::test]
    async fn chunks_are_the_same_however_the_bytes_arrive() {
        let chunk_bytes = 300_000;
        for seed in 0..40 {
            let random = SeededRandom::shared(seed);
            let edges = [0, 1, 65_535, 65_536, 65_537, 299_999, 300_000, 300_001, 600_000, 1_000_000];
            let mut bytes = vec![0; edges[seed as usize % edges.len()]];
            random.fill(&mut bytes);
            let announced = (seed % 2 == 0).then_some(bytes.len() as u64);
            let (mut chunker, gauge) = chunker(cut(&bytes, random.as_ref()), announced, chunk_bytes);
            let mut chunks = Vec::new();
            match chunker.start().await.unwrap() {
                Start::Small(chunk) => {
                    assert!(bytes.len() <= SMALL_BODY_BYTES_MAX, "seed {seed}");
                    chunks.push(chunk.data.to_vec());
                }
                Start::Large => {
                    assert!(bytes.len() > SMALL_BODY_BYTES_MAX, "seed {seed}");
                    while let Some(chunk) = chunker.next().await.unwrap() {
                        assert!(gauge.held() >= chunk.data.len() as u64, "seed {seed}");
                        chunks.push(chunk.data.to_vec());
                    }
                }
            }
            let all_but_last = chunks.len().saturating_sub(1);
            assert!(chunks.iter().take(all_but_last).all(|c| c.len() == chunk_bytes), "seed {seed}");
            assert_eq!(chunks.concat(), bytes, "seed {seed}");
            assert_eq!(gauge.held(), 0, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn a_stalled_body_holds_little_more_than_it_sent() {
        let clock = ManualClock::at(0);
        let (mut chunker, gauge) = chunker(vec![vec![1; 100_000]], Some(8 << 20), CHUNK_BYTES_MAX);
        drop(clock);
        assert!(matches!(chunker.start().await.unwrap(), Start::Large));
        assert!(chunker.next().await.is_err(), "cut short");
        assert_eq!(gauge.peak(), (256 << 10) + 100_000, "the buffer, and the frame until it was copied");
    }

    #[tokio::test]
    async fn a_known_length_is_not_exceeded() {
        let (mut chunker, gauge) =
            chunker(vec![vec![1; 70_000], vec![2; 10_000]], Some(80_000), CHUNK_BYTES_MAX);
        assert!(matches!(chunker.start().await.unwrap(), Start::Large));
        assert_eq!(chunker.next().await.unwrap().unwrap().data.len(), 80_000);
        assert!(chunker.next().await.unwrap().is_none());
        assert_eq!(gauge.peak(), 150_000, "the buffer, and the frame until it was copied");
    }
}
