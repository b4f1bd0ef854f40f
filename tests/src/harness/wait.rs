//! Waiting for something to become true, with an end.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Measures, for figures that are printed; never for an assertion.
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Asks `look` until it gives something; its error is the reason that is named when `within` has passed.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let watch = Stopwatch::start();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if watch.elapsed() > within => panic!("{what}: not within {within:?}: {reason}"),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// As [`eventually`], for what is asked on a runtime.
pub async fn eventually_async<T, F, Fut>(what: &str, within: Duration, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let watch = Stopwatch::start();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(reason) if watch.elapsed() > within => panic!("{what}: not within {within:?}: {reason}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
