//! Many workers on few threads, for one slice of time. Each thread has a runtime of its own, and each worker a
//! connection of its own; both are there before the clock starts.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hay_common::clock::Clock;
use hdrhistogram::Histogram;

use super::content::WrongBytes;

/// The longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// What a worker met. One is enough to end the run: figures with errors in them say nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection.
    #[error("{0} can't be reached: {1}")]
    Connect(SocketAddr, String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// An error instead of an answer.
    #[error("the server answered {0}: {1}")]
    Refused(u16, String),
    /// What was read is not what was written.
    #[error("object read back wrong: {0}")]
    Wrong(#[from] WrongBytes),
    /// Threads or runtimes can't be had.
    #[error("the load client can't start: {0}")]
    Start(String),
}

/// Something that is done over and over.
pub trait Load: Sync {
    /// What a worker keeps between two times, as a connection.
    type Session;
    /// Before the clock starts.
    fn open(&self) -> impl Future<Output = Result<Self::Session, LoadError>>;
    /// Once, with the number that is this time's own.
    fn once(&self, session: &mut Self::Session, number: u64) -> impl Future<Output = Result<(), LoadError>>;
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The first number.
    pub from: u64,
    /// At most so many.
    pub count_max: u64,
    /// No new one begins after this.
    pub time_max: Duration,
    /// Workers.
    pub concurrency: usize,
    /// Threads that they share.
    pub threads: usize,
}

/// What a slice brought.
pub struct Slice {
    /// How many were done: exactly the numbers `from .. from + ops`.
    pub ops: u64,
    /// From the start to the end of the last.
    pub elapsed: Duration,
    /// Nanoseconds each.
    pub latency: Histogram<u64>,
}

impl Slice {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// An empty histogram of latencies in nanoseconds.
pub fn latencies() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).map_err(|e| LoadError::Start(e.to_string()))
}

/// Runs a slice. `stop` ends it early.
pub fn run<L: Load>(
    load: &L,
    extent: Extent,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> Result<Slice, LoadError> {
    let threads = extent.threads.clamp(1, extent.concurrency.max(1));
    let shared = Shared {
        extent,
        next: AtomicU64::new(0),
        barrier: Barrier::new(threads),
        failed: AtomicBool::new(false),
        clock,
        stop,
    };
    let results: Vec<Result<Slice, LoadError>> = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|thread| {
                let share = extent.concurrency / threads + usize::from(thread < extent.concurrency % threads);
                let shared = &shared;
                scope.spawn(move || run_thread(load, share, shared))
            })
            .collect();
        spawned
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(LoadError::Start("a thread died".into()))))
            .collect()
    });
    let mut whole = Slice { ops: 0, elapsed: Duration::ZERO, latency: latencies()? };
    for result in results {
        let slice = result?;
        whole.ops += slice.ops;
        whole.elapsed = whole.elapsed.max(slice.elapsed);
        whole.latency.add(&slice.latency).map_err(|e| LoadError::Start(e.to_string()))?;
    }
    Ok(whole)
}

struct Shared<'a> {
    extent: Extent,
    next: AtomicU64,
    barrier: Barrier,
    failed: AtomicBool,
    clock: &'a dyn Clock,
    stop: &'a AtomicBool,
}

fn run_thread<L: Load>(load: &L, workers: usize, shared: &Shared<'_>) -> Result<Slice, LoadError> {
    let opened = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| LoadError::Start(e.to_string()))
        .and_then(|runtime| {
            let mut sessions = Vec::with_capacity(workers);
            for _ in 0..workers {
                sessions.push(runtime.block_on(load.open())?);
            }
            Ok((runtime, sessions))
        });
    // Whoever failed must come to the barrier too, or the others wait there for ever.
    shared.barrier.wait();
    let (runtime, sessions) = opened?;
    let started = shared.clock.monotonic();
    let mut slice = Slice { ops: 0, elapsed: Duration::ZERO, latency: latencies()? };
    let outcome = runtime.block_on(async {
        let mut running: FuturesUnordered<_> =
            sessions.into_iter().map(|session| work(load, session, shared, started)).collect();
        let mut outcome = Ok(());
        while let Some(done) = running.next().await {
            match done {
                Ok(latency) => {
                    slice.ops += latency.len();
                    if let Err(error) = slice.latency.add(&latency) {
                        outcome = Err(LoadError::Start(error.to_string()));
                    }
                }
                Err(error) => {
                    shared.failed.store(true, Ordering::Relaxed);
                    outcome = Err(error);
                }
            }
        }
        outcome
    });
    slice.elapsed = shared.clock.monotonic() - started;
    outcome.map(|()| slice)
}

async fn work<L: Load>(
    load: &L,
    mut session: L::Session,
    shared: &Shared<'_>,
    started: Duration,
) -> Result<Histogram<u64>, LoadError> {
    let mut latency = latencies()?;
    let extent = shared.extent;
    loop {
        let begun = shared.clock.monotonic();
        let ended = shared.stop.load(Ordering::Relaxed) || shared.failed.load(Ordering::Relaxed);
        if ended || begun - started >= extent.time_max {
            return Ok(latency);
        }
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= extent.count_max {
            return Ok(latency);
        }
        load.once(&mut session, extent.from + number).await?;
        let ns = (shared.clock.monotonic() - begun).as_nanos();
        latency.saturating_record(u64::try_from(ns).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::clock::SystemClock;
    use parking_lot::Mutex;

    struct Counting {
        seen: Mutex<Vec<u64>>,
        fail_at: u64,
    }

    impl Load for Counting {
        type Session = ();

        async fn open(&self) -> Result<(), LoadError> {
            Ok(())
        }

        async fn once(&self, (): &mut (), number: u64) -> Result<(), LoadError> {
            tokio::task::yield_now().await;
            if number == self.fail_at {
                return Err(LoadError::Broken("as told".into()));
            }
            self.seen.lock().push(number);
            Ok(())
        }
    }

    fn extent(count_max: u64) -> Extent {
        Extent { from: 100, count_max, time_max: Duration::from_secs(600), concurrency: 5, threads: 2 }
    }

    #[test]
    fn every_number_is_done_once() {
        let load = Counting { seen: Mutex::default(), fail_at: u64::MAX };
        let slice =
            run(&load, extent(1_000), SystemClock::shared().as_ref(), &AtomicBool::new(false)).unwrap();
        let mut seen = load.seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, (100..1_100).collect::<Vec<_>>());
        assert_eq!((slice.ops, slice.latency.len()), (1_000, 1_000));
    }

    #[test]
    fn one_error_ends_the_slice() {
        let load = Counting { seen: Mutex::default(), fail_at: 150 };
        let slice = run(&load, extent(u64::MAX), SystemClock::shared().as_ref(), &AtomicBool::new(false));
        assert!(matches!(slice, Err(LoadError::Broken(_))));
    }

    #[test]
    fn it_can_be_stopped() {
        let load = Counting { seen: Mutex::default(), fail_at: u64::MAX };
        let slice =
            run(&load, extent(u64::MAX), SystemClock::shared().as_ref(), &AtomicBool::new(true)).unwrap();
        assert_eq!(slice.ops, 0);
    }
}
