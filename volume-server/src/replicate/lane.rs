//! Small needles on their way to one replica of one volume: what comes while a call is under way is gathered for the next.
//! No task waits where nothing is to be sent.

use std::collections::VecDeque;
use std::sync::Arc;

use hay_common::ids::{NodeId, VolumeId};
use hay_common::limits::{
    APPENDS_WAITING_BYTES_MAX, APPENDS_WAITING_MAX, RPC_BATCH_ITEMS_MAX, RPC_MESSAGE_BYTES_MAX,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Replication;
use crate::store::{Answers, AppendError, NewNeedle};

struct Ticket {
    needles: Vec<NewNeedle>,
    reply: oneshot::Sender<Answers>,
}

impl Ticket {
    fn bytes(&self) -> usize {
        self.needles.iter().map(NewNeedle::length).sum()
    }
}

#[derive(Default)]
struct Waiting {
    tickets: VecDeque<Ticket>,
    needles: usize,
    bytes: usize,
    /// A task is sending, and will look again before it ends.
    is_sending: bool,
}

/// The way to one replica.
pub(crate) struct Lane {
    volume: VolumeId,
    pub node: NodeId,
    waiting: Mutex<Waiting>,
}

impl Lane {
    pub fn new(volume: VolumeId, node: NodeId) -> Arc<Self> {
        Arc::new(Self { volume, node, waiting: Mutex::default() })
    }

    /// Sends needles, with others if a call is under way. The sending goes on whether the caller waits for it or not: a
    /// caller that goes away must not leave unsaid that the replica failed.
    pub fn send(
        self: &Arc<Self>,
        replication: &Arc<Replication>,
        needles: Vec<NewNeedle>,
    ) -> Result<oneshot::Receiver<Answers>, AppendError> {
        let (reply, answers) = oneshot::channel();
        let ticket = Ticket { needles, reply };
        let mut waiting = self.waiting.lock();
        let (needles, bytes) = (waiting.needles + ticket.needles.len(), waiting.bytes + ticket.bytes());
        if needles > APPENDS_WAITING_MAX || bytes > APPENDS_WAITING_BYTES_MAX {
            return Err(AppendError::Overloaded(self.volume));
        }
        waiting.needles = needles;
        waiting.bytes = bytes;
        waiting.tickets.push_back(ticket);
        if !std::mem::replace(&mut waiting.is_sending, true) {
            tokio::spawn(self.clone().drain(replication.clone()));
        }
        Ok(answers)
    }

    async fn drain(self: Arc<Self>, replication: Arc<Replication>) {
        while let Some(tickets) = self.next() {
            let tickets = self.still_wanted(&replication, tickets);
            if tickets.is_empty() {
                continue;
            }
            let (mut needles, mut callers) = (Vec::new(), Vec::with_capacity(tickets.len()));
            for ticket in tickets {
                callers.push((ticket.needles.len(), ticket.reply));
                needles.extend(ticket.needles);
            }
            let mut answers = replication.send_batch(self.volume, self.node, needles).await.into_iter();
            for (count, reply) in callers {
                // Whoever asked may have gone.
                let _ = reply.send(answers.by_ref().take(count).collect());
            }
        }
    }

    /// Those that may still be acknowledged. A call before them may have stopped the volume: they are answered at once, for
    /// their writers would wait for another timeout, and give up a server that is well.
    fn still_wanted(&self, replication: &Replication, tickets: Vec<Ticket>) -> Vec<Ticket> {
        let mut wanted = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            let stopped = |needle| replication.stopped(self.volume, NewNeedle::epoch(needle));
            match ticket.needles.iter().find_map(stopped) {
                None => wanted.push(ticket),
                Some(error) => {
                    // Whoever asked may have gone.
                    let _ = ticket.reply.send(vec![Err(error); ticket.needles.len()]);
                }
            }
        }
        wanted
    }

    /// What waits and fits into one call; none ends the sending.
    fn next(&self) -> Option<Vec<Ticket>> {
        let mut waiting = self.waiting.lock();
        let (mut batch, mut needles, mut bytes) = (Vec::new(), 0, 0);
        while let Some(ticket) = waiting.tickets.front() {
            let (more, more_bytes) = (ticket.needles.len(), ticket.bytes());
            let is_full = needles + more > RPC_BATCH_ITEMS_MAX || bytes + more_bytes > RPC_MESSAGE_BYTES_MAX;
            if is_full && !batch.is_empty() {
                break;
            }
            needles += more;
            bytes += more_bytes;
            batch.extend(waiting.tickets.pop_front());
        }
        waiting.needles = waiting.needles.saturating_sub(needles);
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        waiting.is_sending = !batch.is_empty();
        (!batch.is_empty()).then_some(batch)
    }
}
