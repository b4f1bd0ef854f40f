//! A chunk that is being filled: its last bytes in memory, and those before them, where it was set aside, in a file.

use bytes::Bytes;
use hay_common::limits::{ASIDE_TAIL_BYTES, CHUNK_BYTES_MAX, KIB, MIB, SMALL_BODY_BYTES_MAX};

use super::aside::{AsideError, AsideFile};
use super::uploads::{Evicted, News, NoGrowth, Share, UploadMemory};

/// Sizes a buffer grows through, in bytes: a stalled client holds little, and a chunk is copied less than twice.
const STEPS: [usize; 6] = [SMALL_BODY_BYTES_MAX, 256 * KIB, MIB, 2 * MIB, 4 * MIB, CHUNK_BYTES_MAX];

/// Why a chunk can't be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BufferLoss {
    /// Its memory was taken away: its client is too slow.
    Evicted,
    /// There was no memory in time.
    NoRoom,
    /// What was set aside did not come back.
    AsideLost,
}

impl From<NoGrowth> for BufferLoss {
    fn from(why: NoGrowth) -> Self {
        match why {
            NoGrowth::Evicted => Self::Evicted,
            NoGrowth::NoRoom => Self::NoRoom,
        }
    }
}

/// One chunk, growing.
pub(crate) struct ChunkBuffer {
    share: Share,
    before: Option<AsideFile>,
    tail: Vec<u8>,
}

impl ChunkBuffer {
    /// Empty.
    pub(crate) fn new(memory: &UploadMemory) -> Self {
        Self { share: memory.share(), before: None, tail: Vec::new() }
    }

    /// Bytes of the chunk so far.
    pub(crate) fn len(&self) -> usize {
        self.before.as_ref().map_or(0, AsideFile::len) + self.tail.len()
    }

    /// Takes from `bytes` what fits below `limit`. `to_come`: bytes that are expected behind these, where that is known.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(crate) async fn take(
        &mut self,
        bytes: &mut Bytes,
        limit: usize,
        to_come: Option<usize>,
    ) -> Result<(), BufferLoss> {
        let room = limit.saturating_sub(self.len()).min(bytes.len());
        let wanted = self.tail.len() + room;
        if wanted > self.tail.capacity() {
            let first = self.before.as_ref().map(|_| ASIDE_TAIL_BYTES);
            let step = first.into_iter().chain(STEPS).find(|s| *s >= wanted).unwrap_or(wanted);
            // No more than the rest of the body ever needs, nor than the chunk may have.
            let rest = to_come.map_or(usize::MAX, |c| c.saturating_add(self.tail.len() + bytes.len()));
            let most = rest.min(limit.saturating_sub(self.len() - self.tail.len()));
            let size = step.min(most).max(wanted);
            self.share.grow(size).await?;
            self.tail.reserve_exact(size - self.tail.len());
        }
        self.tail.extend_from_slice(&bytes.split_to(room));
        Ok(())
    }

    /// Nothing comes from the client.
    pub(crate) fn idle(&mut self) {
        self.share.idle();
    }

    /// Bytes came; `is_slow`: fewer than the floor that counts under pressure.
    ///
    /// # Errors
    /// When it was evicted meanwhile.
    pub(crate) fn active(&mut self, is_slow: bool) -> Result<(), Evicted> {
        self.share.active(is_slow)
    }

    /// Resolves when others need its memory.
    pub(crate) async fn news(&self) -> News {
        self.share.news().await
    }

    /// Gives the memory to others and keeps the bytes in a file. Where that does not work out it stays as it is.
    ///
    /// # Errors
    /// When the bytes are lost.
    pub(crate) async fn set_aside(&mut self) -> Result<(), BufferLoss> {
        let Some(room) = self.share.aside_room() else {
            self.share.not_set_aside();
            return Ok(());
        };
        let (tail, mut before) = (std::mem::take(&mut self.tail), self.before.take());
        // Should this future be dropped, the memory is held until the thread is done with it.
        let paid = self.share.lease();
        let written = tokio::task::spawn_blocking(move || {
            let written = room.append(&mut before, &tail);
            (tail, before, written, paid)
        });
        let (tail, before, written, _paid) = written.await.map_err(|_| BufferLoss::AsideLost)?;
        self.before = before;
        match written {
            Ok(()) => {
                let bytes = tail.len();
                drop(tail);
                self.share.set_aside(bytes);
            }
            Err(error) => {
                self.tail = tail;
                if !matches!(error, AsideError::NearlyFull) {
                    tracing::warn!(%error, "a body could not be set aside: slow ones lose their buffers instead");
                }
                self.share.not_set_aside();
            }
        }
        Ok(())
    }

    /// The whole chunk in memory, never to be taken from now on.
    ///
    /// # Errors
    /// When its memory or its bytes are lost.
    pub(crate) async fn whole(mut self) -> Result<(Vec<u8>, Share), BufferLoss> {
        if let Some(before) = self.before.take() {
            let (ahead, behind) = (before.len(), self.tail.len());
            self.share.grow(ahead + behind).await?;
            let (mut chunk, paid) = (self.tail, self.share.lease());
            let read = tokio::task::spawn_blocking(move || {
                chunk.reserve_exact(ahead);
                chunk.resize(ahead + behind, 0);
                chunk.copy_within(..behind, ahead);
                let read = chunk.get_mut(..ahead).map_or(Ok(()), |into| before.read(into));
                (chunk, read, paid)
            });
            let (chunk, read, _paid) = read.await.map_err(|_| BufferLoss::AsideLost)?;
            if let Err(error) = read {
                tracing::error!(%error, "a body that was set aside did not come back");
                return Err(BufferLoss::AsideLost);
            }
            self.tail = chunk;
            self.share.taken_back();
        }
        self.share.seal().map_err(|Evicted| BufferLoss::Evicted)?;
        Ok((self.tail, self.share))
    }
}

#[cfg(test)]
mod tests;
