//! SIGINT and SIGTERM.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use hay_common::clock::SharedClock;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals of one kind that come closer together are one wish: a terminal sends SIGINT to a whole group of processes,
/// and one of the group may pass it on.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Waits for the signals that end a server.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    heard: Heard,
    clock: SharedClock,
    /// Somebody waits for them.
    is_awaited: Arc<AtomicBool>,
}

impl Stop {
    /// From now on these signals no longer end the process by themselves.
    pub fn listen(clock: SharedClock) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            heard: Heard::default(),
            clock,
            is_awaited: Arc::default(),
        })
    }

    /// The signals for as long as nobody has called [`Stop::wait`]: a start may take long.
    ///
    /// # Errors
    /// As [`Stop::listen`].
    pub fn early(&self) -> anyhow::Result<Early> {
        let signals = Self::listen(self.clock.clone()).context("signals can't be received")?;
        Ok(Early { signals, is_awaited: self.is_awaited.clone() })
    }

    /// The name of the first one; called again, of one that insists.
    pub async fn wait(&mut self) -> &'static str {
        self.is_awaited.store(true, Ordering::SeqCst);
        loop {
            let interrupt = tokio::select! {
                _ = self.interrupt.recv() => true,
                _ = self.terminate.recv() => false,
            };
            if self.heard.counts(interrupt, self.clock.monotonic()) {
                return if interrupt { "SIGINT" } else { "SIGTERM" };
            }
        }
    }
}

/// See [`Stop::early`].
pub struct Early {
    signals: Stop,
    is_awaited: Arc<AtomicBool>,
}

impl Early {
    /// `work`, unless a signal comes before it waits for signals itself.
    ///
    /// # Errors
    /// Those of `work`, or that a signal came.
    pub async fn or<T>(mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let signal = async {
            let signal = self.signals.wait().await;
            if self.is_awaited.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            signal
        };
        tokio::select! {
            ended = work => ended,
            // It leaves nothing behind that the next start could not go on from.
            signal = signal => anyhow::bail!("{signal} while it started; the next start recovers"),
        }
    }
}

/// What came so far, by the monotonic clock.
#[derive(Default)]
struct Heard {
    interrupt: Option<Duration>,
    terminate: Option<Duration>,
}

impl Heard {
    /// Whether a signal says something new: the first of all does, and after it one whose own kind came a while ago.
    /// The other kind may be the same wish on another way, as when `make run` is interrupted and its script ends what
    /// it started.
    fn counts(&mut self, interrupt: bool, now: Duration) -> bool {
        let first = self.interrupt.is_none() && self.terminate.is_none();
        let own = if interrupt { &mut self.interrupt } else { &mut self.terminate };
        let since = *own.get_or_insert(now);
        first || now.saturating_sub(since) >= SAME_WISH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wish_that_comes_twice_is_no_insisting() {
        let at = Duration::from_millis;
        let mut heard = Heard::default();
        assert!(heard.counts(true, at(0)));
        // The script of `make run` passes the end on, however late.
        assert!(!heard.counts(false, at(3)));
        assert!(!heard.counts(true, at(900)));
        assert!(heard.counts(true, at(1000)), "pressed again");

        let mut heard = Heard::default();
        assert!(heard.counts(true, at(0)));
        assert!(!heard.counts(false, at(5000)));
        assert!(heard.counts(false, at(7000)));
    }
}
