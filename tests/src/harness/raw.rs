//! HTTP over a bare socket, for requests that no decent client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing that the tests ask for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable code of a JSON error, or what came instead of one.
    pub fn error_code(&self) -> String {
        serde_json::from_slice::<serde_json::Value>(&self.body)
            .ok()
            .and_then(|v| v["error"]["code"].as_str().map(str::to_owned))
            .unwrap_or_else(|| format!("no JSON error but {:?}", self.text()))
    }
}

/// A connection that sends exactly the bytes that it is given.
pub struct Raw(TcpStream);

impl Raw {
    pub fn connect(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn end_of_sending(&self) -> std::io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }

    /// Whether the server has said something, or closed; asked without waiting.
    pub fn has_answer(&self) -> bool {
        self.peeked().is_some()
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.peeked() == Some(0)
    }

    fn peeked(&self) -> Option<usize> {
        self.0.set_nonblocking(true).ok()?;
        let peeked = self.0.peek(&mut [0; 1]);
        self.0.set_nonblocking(false).ok()?;
        match peeked {
            Ok(count) => Some(count),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some(0),
        }
    }

    /// Reads to the end of the connection and takes it apart as one answer; interim answers are skipped.
    pub fn answer(mut self) -> std::io::Result<RawAnswer> {
        let mut bytes = Vec::new();
        let ended = self.0.read_to_end(&mut bytes);
        match parse(&bytes) {
            Some(answer) => Ok(answer),
            None => {
                ended?;
                let shown = String::from_utf8_lossy(&bytes).into_owned();
                Err(std::io::Error::other(format!("no answer but {shown:?}")))
            }
        }
    }

    /// One whole exchange. The request should ask for `Connection: close`. A server that answers before it has read
    /// everything may close on us: what it said counts, not that the rest could not be sent.
    pub fn exchange(to: SocketAddr, request: &[u8]) -> std::io::Result<RawAnswer> {
        let mut raw = Self::connect(to)?;
        let sent = raw.send(request);
        raw.answer().map_err(|error| match sent {
            Ok(()) => error,
            Err(send) => std::io::Error::other(format!("{error}; sending: {send}")),
        })
    }
}

fn parse(bytes: &[u8]) -> Option<RawAnswer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if (100..200).contains(&status) {
        return parse(rest);
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v.contains("chunked"));
    let body = if chunked { unchunk(rest) } else { rest.to_vec() };
    Some(RawAnswer { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..line]).into_owned();
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16) else { break };
        let from = line + 2;
        if size == 0 || from + size > rest.len() {
            break;
        }
        body.extend_from_slice(&rest[from..from + size]);
        rest = rest.get(from + size + 2..).unwrap_or(&[]);
    }
    body
}
