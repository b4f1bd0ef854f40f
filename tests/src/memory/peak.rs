//! The server's own gauge of its buffers, looked at while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::{Metrics, Raw, Server};

/// Bytes of chunk buffers in use.
const GAUGE: &str = "hay_gateway_buffer_bytes";

/// Looks until it is told to end.
pub struct Peak {
    end: Arc<AtomicBool>,
    watcher: JoinHandle<Option<u64>>,
}

impl Peak {
    pub fn watch(server: &Server) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (address, request) = (server.address(), server.request("GET /metrics HTTP/1.1", b""));
        let told = end.clone();
        let watcher = std::thread::spawn(move || {
            let mut peak = None;
            while !told.load(Ordering::SeqCst) {
                if let Ok(answer) = Raw::exchange(address, &request) {
                    let metrics = Metrics::parse(&answer.text());
                    if metrics.has(GAUGE) {
                        peak = peak.max(Some(metrics.sum(GAUGE) as u64));
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            peak
        });
        Self { end, watcher }
    }

    /// The highest value seen; `None` when the server has no such gauge.
    pub fn end(self) -> Option<u64> {
        self.end.store(true, Ordering::SeqCst);
        self.watcher.join().expect("the watcher ends")
    }
}
