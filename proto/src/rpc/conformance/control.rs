//! What the checks tell a test core to do, and what it tells them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hay_common::error::Failure;
use hay_common::ids::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Request, Status};

use crate::rpc::{Peer, RequestId, request_id, to_status};

/// Shared by a core and the checks.
pub struct Control {
    /// Whether handlers wait where they begin.
    hanging: watch::Sender<bool>,
    /// Handlers that have begun.
    pub entered: AtomicUsize,
    /// Client streams that ended without their end message.
    pub cut: AtomicUsize,
    /// The next handler fails so.
    pub failure: Mutex<Option<Failure>>,
    /// Replies are made this many bytes long.
    pub reply_bytes: AtomicUsize,
    /// Who called last, and for which request.
    pub seen: Mutex<Option<(Peer, Option<RequestId>)>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            hanging: watch::Sender::new(false),
            entered: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            failure: Mutex::default(),
            reply_bytes: AtomicUsize::new(0),
            seen: Mutex::default(),
        }
    }
}

impl Control {
    pub fn hang(&self) {
        self.hanging.send_replace(true);
    }

    pub fn release(&self) {
        self.hanging.send_replace(false);
    }

    /// What every handler of a test core does first.
    pub async fn enter<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>().copied();
        *self.seen.lock() = peer.map(|peer| (peer, request_id()));
        self.entered.fetch_add(1, Ordering::SeqCst);
        let mut hanging = self.hanging.subscribe();
        hanging.wait_for(|hanging| !hanging).await.map_err(|_| Status::internal("no core"))?;
        match self.failure.lock().take() {
            Some(failure) => Err(to_status(failure)),
            None => Ok(()),
        }
    }

    /// As many bytes as a reply shall have beside what it says.
    pub fn padding(&self) -> Vec<u8> {
        vec![b'x'; self.reply_bytes.load(Ordering::SeqCst)]
    }
}

/// Waits until `done`. The bound only ends a test that would hang.
pub async fn until(what: &str, done: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

pub fn node(number: u128) -> NodeId {
    NodeId::from_random(number)
}
