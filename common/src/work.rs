//! Work that waits for the disk. On a real one it goes to threads that may block; on a simulated one, whose calls take no
//! time of the machine's, it is done in turn with everything else: so one seed gives one history.
//!
//! Which of the two, the disk says: see [`Disk::takes`].

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::disk::{Disk, SharedDisk};

/// Does `work` where it may block, to its end, whether anybody waits for it or not. Within a tokio runtime.
pub fn blocking<T: Send + 'static>(
    disk: &dyn Disk,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    match disk.takes() {
        None => tokio::task::spawn_blocking(work),
        Some(time) => tokio::spawn(async move {
            tokio::time::sleep(time).await;
            work()
        }),
    }
}

/// Does `work` on a short-lived thread of its own, beside whoever starts it; in a simulation before this returns.
///
/// # Errors
/// When there is no thread: then it is not done.
pub fn beside(disk: &dyn Disk, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    match disk.takes() {
        None => std::thread::Builder::new().name(name).spawn(work).map(drop),
        Some(_) => {
            work();
            Ok(())
        }
    }
}

/// What an owner of state does with an order: whether there will be others.
type Carry<T> = Box<dyn FnMut(T) -> ControlFlow<()> + Send>;

/// The way to an owner of mutable state, which carries out one order after the other. Clones share it. Orders wait in a queue
/// without a bound of its own: whoever orders waits for an answer before the next order, or orders seldom. An owner must not
/// order anything from itself.
pub struct Orders<T>(Way<T>);

enum Way<T> {
    Thread { orders: mpsc::Sender<T>, thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>> },
    InTurn(Arc<InTurn<T>>),
}

impl<T> Clone for Orders<T> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Way::Thread { orders, thread } => Way::Thread { orders: orders.clone(), thread: thread.clone() },
            Way::InTurn(turn) => Way::InTurn(turn.clone()),
        })
    }
}

impl<T: Send + 'static> Orders<T> {
    /// Starts the owner: `carry` is called until it breaks off, or everybody who could order is gone; then `last` is its
    /// last order. (In a simulation those who are gone have been killed, and the owner with them: nothing is done then.)
    ///
    /// # Errors
    /// When there is no thread.
    pub fn to(
        disk: &SharedDisk,
        name: String,
        last: fn() -> T,
        mut carry: impl FnMut(T) -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<Self> {
        if disk.takes().is_some() {
            let owner = Mutex::new(Some(Box::new(carry) as Carry<T>));
            let turn = InTurn { disk: disk.clone(), owner, waiting: Mutex::default() };
            return Ok(Self(Way::InTurn(Arc::new(turn))));
        }
        let (orders, queue) = mpsc::channel();
        let run = move || while carry(queue.recv().unwrap_or_else(|_| last())).is_continue() {};
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(Self(Way::Thread { orders, thread: Arc::new(Mutex::new(Some(thread))) }))
    }

    /// Orders something, to be done after what was ordered before.
    ///
    /// # Errors
    /// When the owner has ended; the order is dropped.
    pub fn give(&self, order: T) -> Result<(), Ended> {
        match &self.0 {
            Way::Thread { orders, .. } => orders.send(order).map_err(|_| Ended),
            Way::InTurn(turn) => turn.give(order),
        }
    }

    /// In a simulation all that was ordered is done when this returns. Elsewhere it is under way, and this does nothing.
    pub fn catch_up(&self) {
        if let Way::InTurn(turn) = &self.0 {
            turn.carry_out();
        }
    }

    /// Gives the owner its last order and waits until it has ended. Blocks.
    ///
    /// # Errors
    /// When the owner panicked.
    pub fn end(&self, last: T) -> std::thread::Result<()> {
        match &self.0 {
            Way::Thread { orders, thread } => {
                // One that has ended needs no order.
                let _ = orders.send(last);
                // Under the lock: whoever else ends it waits too, and returns when there is no thread any more.
                let mut thread = thread.lock();
                thread.take().map_or(Ok(()), std::thread::JoinHandle::join)
            }
            Way::InTurn(turn) => {
                turn.waiting.lock().push_back(last);
                turn.carry_out();
                Ok(())
            }
        }
    }
}

/// An owner has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has ended")]
pub struct Ended;

/// An owner in a simulation.
struct InTurn<T> {
    disk: SharedDisk,
    /// `None` once it has ended.
    owner: Mutex<Option<Carry<T>>>,
    waiting: Mutex<VecDeque<T>>,
}

impl<T: Send + 'static> InTurn<T> {
    fn give(self: &Arc<Self>, order: T) -> Result<(), Ended> {
        if self.owner.lock().is_none() {
            return Err(Ended);
        }
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.push_back(order);
            waiting.len() == 1
        };
        if is_first {
            let (turn, time) = (self.clone(), self.disk.takes().unwrap_or_default());
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                turn.carry_out();
            });
        }
        Ok(())
    }

    fn carry_out(&self) {
        let mut owner = self.owner.lock();
        while let Some(carry) = owner.as_mut() {
            let Some(order) = self.waiting.lock().pop_front() else { return };
            if carry(order).is_break() {
                *owner = None;
            }
        }
        self.waiting.lock().clear();
    }
}

#[cfg(test)]
mod tests;
