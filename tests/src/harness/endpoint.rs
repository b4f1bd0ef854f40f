//! A process that speaks HTTP with clients, be it a whole Haystore or the gateway of a cluster.

use std::net::SocketAddr;

use rustix::process::Pid;

use super::{Api, Metrics, Raw, RawAnswer};

/// Where it is, what may be done there, and who it is.
#[derive(Clone)]
pub struct Endpoint {
    pub http: SocketAddr,
    pub token: String,
    pub pid: Pid,
}

impl Endpoint {
    /// A client with its token.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://{}", self.http), Some(&self.token))
    }

    /// Sends a request head (without the empty line) and a body over a socket of its own; the token and
    /// `Connection: close` are added.
    pub fn raw(&self, head: &str, body: &[u8]) -> std::io::Result<RawAnswer> {
        Raw::exchange(self.http, &self.request(head, body))
    }

    /// The bytes of such a request.
    pub fn request(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let token = &self.token;
        let mut bytes = format!(
            "{head}\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// All metrics now.
    pub fn metrics(&self) -> Metrics {
        let answer = self.raw("GET /metrics HTTP/1.1", b"").unwrap();
        assert_eq!(answer.status, 200, "GET /metrics: {}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// A line of `/proc/PID/status` in bytes, as in `VmHWM`.
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).expect(field);
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
    }
}
