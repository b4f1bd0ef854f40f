//! How many bytes the gateway holds in buffers, and the most it ever held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes held now and at most. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferGauge(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    held: AtomicU64,
    peak: AtomicU64,
}

impl BufferGauge {
    /// Counts `bytes` until the answer is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Held {
        self.add(bytes);
        Held { gauge: self.clone(), bytes }
    }

    fn add(&self, bytes: usize) {
        let now = self.0.held.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.0.peak.fetch_max(now, Ordering::Relaxed);
    }

    /// Counts `bytes` until as many are forgotten.
    pub(crate) fn remember(&self, bytes: usize) {
        self.add(bytes);
    }

    /// Counts `bytes` less.
    pub(crate) fn forget(&self, bytes: usize) {
        if bytes > 0 {
            self.0.held.fetch_sub(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The most bytes held since the start.
    pub(crate) fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }
}

/// Bytes that are counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Held {
    gauge: BufferGauge,
    bytes: usize,
}

impl Held {
    /// Counts `bytes` instead.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.gauge.add(bytes - self.bytes);
        } else {
            self.gauge.0.held.fetch_sub((self.bytes - bytes) as u64, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.0.held.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_stays_when_bytes_go() {
        let gauge = BufferGauge::default();
        let mut first = gauge.hold(10);
        let second = gauge.hold(5);
        drop(second);
        first.resize(12);
        first.resize(3);
        assert_eq!((gauge.held(), gauge.peak()), (3, 15));
        drop(first);
        assert_eq!((gauge.held(), gauge.peak()), (0, 15));
    }
}
