//! A progress bar on stderr, where that is a terminal; nothing elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{spinner} {msg} {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec} {eta}";

/// The bar of one command. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    moved: Arc<AtomicU64>,
}

impl Progress {
    /// A bar for `what`, with nothing to do yet.
    pub fn new(what: &'static str) -> Self {
        // The draw target hides itself where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, moved: Arc::default() }
    }

    /// A bar that nobody sees.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), moved: Arc::default() }
    }

    /// Further bytes to move.
    pub fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// Bytes that moved.
    pub fn advance(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// The same bar, for one try of one file.
    pub fn part(&self) -> Self {
        Self { bar: self.bar.clone(), moved: Arc::default() }
    }

    /// The bytes of this part have to move once more.
    pub fn take_back(&self) {
        self.bar.dec(self.moved.swap(0, Ordering::Relaxed));
    }

    /// Writes a line without tearing the bar.
    pub fn say(&self, line: impl FnOnce()) {
        self.bar.suspend(line);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
