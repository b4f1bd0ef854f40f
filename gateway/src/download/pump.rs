//! A download of more than one piece: a task reads ahead, the connection takes.
//!
//! Each part is paid for out of the common budget until the connection has written it, and is asked for only when the
//! client has taken one before it. A volume server counts a needle that it holds as long as the reading is open, so the
//! reading stays open until its last part is written.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{
    DOWNLOAD_PIECE_BYTES, DOWNLOAD_PREFETCH_BYTES, REFS_PER_ROW_MAX, RPC_BULK_PART_BYTES,
};
use tokio::sync::mpsc::{self, Permit};
use tokio_util::task::AbortOnDropHandle;

use super::needle::{Reader, Source};
use super::plan::{Plan, Wanted};
use crate::app::{App, token};
use crate::auth::Authenticated;
use crate::memory::downloads::{Room, tied};
use crate::reply::body::{BrokenOff, PartStream};

/// How long a client may take over one part in transit. What it has not taken by then is read again later.
const TRANSIT_PATIENCE: Duration = Duration::from_millis(500);

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
        // One more is being read.
        let depth = (DOWNLOAD_PREFETCH_BYTES / RPC_BULK_PART_BYTES).max(1) + 1;
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
        let mut reader = Reader::new(&self.app, &self.caller, &self.source, wanted);
        while reader.left() > 0 {
            // First a client that takes something, then room: one that stalls waits here and holds nothing.
            let Ok(slot) = sender.reserve().await else { return Ok(false) };
            let room = self.app.downloads.room(reader.left() as usize).await;
            let Some(part) = reader.next().await? else { break };
            match room {
                Room::Ahead(room) => {
                    let reading = if reader.left() == 0 { reader.take_reading() } else { None };
                    slot.send(Ok(tied(part, (room, reading))));
                }
                Room::Transit(room) => {
                    let Some(sent) = self.send_copied(&part, slot, sender).await else { return Ok(false) };
                    reader.step_back(part.len() - sent);
                    drop(room);
                }
            }
        }
        Ok(true)
    }

    /// Sends copies of a part, as much as the client takes within [`TRANSIT_PATIENCE`]: a slice would hold the whole.
    /// Says how many bytes; `None`: the client is gone.
    async fn send_copied(
        &self,
        part: &Bytes,
        slot: Permit<'_, Piece>,
        sender: &mpsc::Sender<Piece>,
    ) -> Option<usize> {
        let mut patience = pin!(tokio::time::sleep(TRANSIT_PATIENCE));
        let (mut slot, mut rest) = (slot, part.clone());
        loop {
            let piece = rest.split_to(rest.len().min(DOWNLOAD_PIECE_BYTES));
            let room = self.app.downloads.minimum(piece.len());
            slot.send(Ok(tied(Bytes::copy_from_slice(&piece), room)));
            if rest.is_empty() {
                return Some(part.len());
            }
            slot = tokio::select! {
                biased;
                next = sender.reserve() => next.ok()?,
                () = &mut patience => return Some(part.len() - rest.len()),
            };
        }
    }
}
