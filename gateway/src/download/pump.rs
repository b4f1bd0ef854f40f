//! A download of more than one piece: a task reads ahead, the connection takes.
//!
//! A volume server verifies a needle as a whole and holds it while it is sent, so each open chunk is paid for out of
//! the common budget with all its bytes, until the connection has written the last of them. Downloads take their turn
//! at the budget; one that waits too long, because others are stalled, goes on with small copies instead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{
    DOWNLOAD_PIECE_BYTES, DOWNLOAD_PREFETCH_BYTES, REFS_PER_ROW_MAX, RPC_BULK_PART_BYTES,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::needle::{Reader, Source, read_whole};
use super::plan::{Plan, Wanted};
use crate::app::{App, token};
use crate::auth::Authenticated;
use crate::memory::downloads::{Prefetch, tied};
use crate::reply::body::{BrokenOff, PartStream};

/// How long a download waits for its turn before it goes on with small pieces.
const TURN_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of a small piece.
const SMALL_PIECE_BYTES: u32 = DOWNLOAD_PIECE_BYTES as u32;

/// What a download is of.
pub(crate) struct Download {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Authenticated,
    pub(crate) source: Source,
    pub(crate) plan: Plan,
}

type Piece = Result<Bytes, Failure>;

impl Download {
    /// Starts reading. The answer comes with its first bytes, so that what fails at once is refused, not broken off.
    ///
    /// # Errors
    /// What the first read said.
    pub(crate) async fn start(self) -> Result<PartStream, Failure> {
        let depth = (DOWNLOAD_PREFETCH_BYTES / RPC_BULK_PART_BYTES).max(1);
        let (sender, mut receiver) = mpsc::channel::<Piece>(depth);
        let work = async move { self.run(sender).await };
        let task = match hay_proto::rpc::RequestContext::current() {
            Some(context) => tokio::spawn(context.scope(work)),
            None => tokio::spawn(work),
        };
        let task = AbortOnDropHandle::new(task);
        let first = receiver
            .recv()
            .await
            .unwrap_or_else(|| Err(Failure::new(ErrorCode::Internal, "a download ended before it began")))?;
        let state = (Some(first), receiver, task);
        Ok(Box::pin(futures::stream::unfold(state, |(first, mut receiver, task)| async move {
            let piece = match first {
                Some(bytes) => Ok(bytes),
                None => receiver.recv().await?,
            };
            if let Err(failure) = &piece {
                tracing::warn!(code = %failure.code, message = %failure.message, "a download is broken off");
            }
            Some((piece.map_err(|f| BrokenOff(f.message)), (None, receiver, task)))
        })))
    }

    async fn run(mut self, sender: mpsc::Sender<Piece>) {
        if let Err(failure) = self.pump(&sender).await {
            // Nobody listens where the client is gone.
            let _ = sender.send(Err(failure)).await;
        }
    }

    async fn pump(&mut self, sender: &mpsc::Sender<Piece>) -> Result<(), Failure> {
        loop {
            if let Some(number) = self.plan.missing() {
                self.learn(number).await?;
            }
            let next = self.plan.next().map_err(|hole| Failure::new(ErrorCode::Corrupt, hole.to_string()))?;
            let Some(wanted) = next else { return Ok(()) };
            if !self.send_chunk(wanted, sender).await? {
                return Ok(());
            }
        }
    }

    async fn learn(&mut self, number: u32) -> Result<(), Failure> {
        let Some(manifest) = self.source.manifest else {
            return Err(Failure::new(ErrorCode::Corrupt, "the file has fewer chunks than bytes"));
        };
        let count = u32::try_from(REFS_PER_ROW_MAX).unwrap_or(u32::MAX);
        let filer = &self.app.deps.filer;
        let chunks = filer.read_manifest(token(&self.caller), manifest, number, count).await?;
        if chunks.first().is_none_or(|c| c.number != number) {
            return Err(Failure::new(
                ErrorCode::Corrupt,
                format!("the chunk list of the file ends before {number}"),
            ));
        }
        self.plan.learn(chunks);
        Ok(())
    }

    /// False: the client is gone.
    async fn send_chunk(&self, wanted: Wanted, sender: &mpsc::Sender<Piece>) -> Result<bool, Failure> {
        let mut rest = wanted;
        while rest.start < rest.end {
            match self.app.downloads.take_turn(rest.located.chunk.size as usize, TURN_PATIENCE).await {
                Some(room) => return self.send_open(rest, Arc::new(room), sender).await,
                None => {
                    let end = rest.end.min(rest.start.saturating_add(SMALL_PIECE_BYTES));
                    let piece = Wanted { end, ..rest };
                    let bytes = read_whole(&self.app, &self.caller, &self.source, piece).await?;
                    // Copied: a slice would hold the whole needle.
                    let room = self.app.downloads.minimum(bytes.len());
                    if sender.send(Ok(tied(Bytes::copy_from_slice(&bytes), Arc::new(room)))).await.is_err() {
                        return Ok(false);
                    }
                    rest.start = end;
                }
            }
        }
        Ok(true)
    }

    async fn send_open(
        &self,
        wanted: Wanted,
        room: Arc<Prefetch>,
        sender: &mpsc::Sender<Piece>,
    ) -> Result<bool, Failure> {
        let mut reader = Reader::new(&self.app, &self.caller, &self.source, wanted);
        while let Some(mut bytes) = reader.next().await? {
            while !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(RPC_BULK_PART_BYTES));
                if sender.send(Ok(tied(part, Arc::clone(&room)))).await.is_err() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
