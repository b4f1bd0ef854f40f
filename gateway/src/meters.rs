//! Counters and histograms, made once: a request touches handles only.

use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Routes as metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteLabel {
    Put,
    Get,
    Head,
    Delete,
    List,
    Admin,
    Operations,
    Refused,
}

impl RouteLabel {
    const ALL: [Self; 8] = [
        Self::Put,
        Self::Get,
        Self::Head,
        Self::Delete,
        Self::List,
        Self::Admin,
        Self::Operations,
        Self::Refused,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Admin => "admin",
            Self::Operations => "operations",
            Self::Refused => "refused",
        }
    }
}

struct RouteMeters {
    // By the first digit of the status, from 2.
    statuses: [Counter; 4],
    seconds: Histogram,
    inner_calls: Counter,
}

/// All meters of a gateway.
pub(crate) struct Meters {
    routes: [RouteMeters; 8],
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) own_chunks: Counter,
    pub(crate) appended_chunks: Counter,
    pub(crate) hedges: Counter,
    pub(crate) requests: Gauge,
    pub(crate) connections: Gauge,
}

impl Meters {
    /// Registers them with the recorder that is installed now.
    pub(crate) fn new() -> Self {
        let route = |label: RouteLabel| {
            let route = label.name();
            let status = |class: &'static str| counter!("hay_http_requests_total", "route" => route, "status" => class);
            RouteMeters {
                statuses: [status("2xx"), status("3xx"), status("4xx"), status("5xx")],
                seconds: histogram!("hay_http_request_seconds", "route" => route),
                inner_calls: counter!("hay_http_inner_calls_total", "route" => route),
            }
        };
        Self {
            routes: RouteLabel::ALL.map(route),
            received_bytes: counter!("hay_http_received_bytes_total"),
            sent_bytes: counter!("hay_http_sent_bytes_total"),
            own_chunks: counter!("hay_gateway_chunks_total", "kind" => "own"),
            appended_chunks: counter!("hay_gateway_chunks_total", "kind" => "appended"),
            hedges: counter!("hay_gateway_hedges_total"),
            requests: gauge!("hay_http_requests_in_work"),
            connections: gauge!("hay_http_connections"),
        }
    }

    /// One answered request; `seconds` until its head was ready.
    pub(crate) fn answered(&self, route: RouteLabel, status: StatusCode, took: Duration, inner_calls: u32) {
        let Some(meters) = self.routes.get(route as usize) else { return };
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = meters.statuses.get(class) {
            counter.increment(1);
        }
        meters.seconds.record(took.as_secs_f64());
        meters.inner_calls.increment(u64::from(inner_calls));
    }
}
