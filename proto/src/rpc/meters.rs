//! Counters and histograms for each method. The handles are looked up once for each holder, at a method's first call.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use tonic::Status;

use super::{Rpc, to_failure};

struct PerRpc<T>(Box<[OnceLock<T>]>);

impl<T> Default for PerRpc<T> {
    fn default() -> Self {
        Self(Rpc::ALL.iter().map(|_| OnceLock::new()).collect())
    }
}

impl<T> PerRpc<T> {
    fn with(&self, rpc: Rpc, make: impl FnOnce() -> T, use_it: impl FnOnce(&T)) {
        if let Some(slot) = self.0.get(rpc as usize) {
            use_it(slot.get_or_init(make));
        }
    }
}

/// What a client layer counts.
#[derive(Default)]
pub(crate) struct ClientMeters(PerRpc<Counter>);

impl ClientMeters {
    pub(crate) fn called(&self, rpc: Rpc) {
        let make =
            || counter!("hay_rpc_client_calls_total", "service" => rpc.service(), "method" => rpc.name());
        self.0.with(rpc, make, |counter| counter.increment(1));
    }
}

/// What a guard counts.
#[derive(Default)]
pub(crate) struct ServerMeters(PerRpc<Calls>);

struct Calls {
    total: Counter,
    seconds: Histogram,
}

impl ServerMeters {
    pub(crate) fn answered(&self, rpc: Rpc, took: Duration) {
        let make = || Calls {
            total: counter!("hay_rpc_calls_total", "service" => rpc.service(), "method" => rpc.name()),
            seconds: histogram!("hay_rpc_seconds", "service" => rpc.service(), "method" => rpc.name()),
        };
        self.0.with(rpc, make, |calls| {
            calls.total.increment(1);
            calls.seconds.record(took);
        });
    }

    pub(crate) fn failed(&self, rpc: Rpc, status: &Status) {
        let code = to_failure(status).code.as_str();
        counter!("hay_rpc_failures_total", "service" => rpc.service(), "method" => rpc.name(), "code" => code)
            .increment(1);
    }
}
