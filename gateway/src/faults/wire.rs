//! A gateway on a socket, and clients that break rules or take their time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::inner::Inner;
use super::{app_with, body};
use crate::app::App;
use crate::config::GatewayConfig;
use crate::server::accept;

/// What ends sooner than this in a good run; never what is measured.
const SOME_TIME: Duration = Duration::from_secs(30);

struct Wire {
    inner: Inner,
    app: Arc<App>,
    address: SocketAddr,
    served: tokio::task::JoinHandle<()>,
}

async fn wire(config: GatewayConfig) -> Wire {
    let inner = Inner::default();
    let app = app_with(&inner, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(accept::run(Arc::clone(&app), listener, app.stopping.clone()));
    Wire { inner, app, address, served }
}

impl Wire {
    async fn open(&self, sent: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream
    }

    /// All that comes until the connection ends.
    async fn ask(&self, head: &str, body: &[u8]) -> String {
        let head = format!("{head}\r\nConnection: close\r\n\r\n");
        let mut stream = self.open(&[head.as_bytes(), body].concat()).await;
        rest(&mut stream).await
    }

    async fn status(&self, head: &str, body: &[u8]) -> u16 {
        let answer = self.ask(head, body).await;
        answer.get(9..12).unwrap_or_default().parse().unwrap_or_else(|_| panic!("{head}: {answer:?}"))
    }

    fn files(&self) -> usize {
        self.inner.0.lock().files.len()
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset ends it as well.
    let _ = tokio::time::timeout(SOME_TIME, stream.read_to_end(&mut answer)).await.expect("still open");
    String::from_utf8_lossy(&answer).into_owned()
}

const PUT: &str = "PUT /api/nfs/files/a/file HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t";
const BAD: &str = "PUT /api/nfs/files/a/file HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer unknown";

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// HEADERS of a PUT, without END_STREAM.
fn h2_put(path: &str) -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let fields = [
        (":method", "PUT"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("authorization", "Bearer t"),
    ];
    frame(1, 4, 1, &fields.map(|(n, v)| literal(n, v)).concat())
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const NO_ERROR: [u8; 4] = [0; 4];

#[tokio::test]
async fn an_upload_that_is_reset_is_never_a_file_whatever_the_reason() {
    let wire = wire(GatewayConfig::default()).await;
    for (data, at_once) in [(0, false), (10, false), (10, true), (60_000, false), (60_000, true)] {
        let mut sent = [PREFACE, &h2_put("/api/nfs/files/cut")].concat();
        for part in vec![b'x'; data].chunks(16_000) {
            sent.extend(frame(0, 0, 1, part));
        }
        let reset = frame(3, 0, 1, &NO_ERROR);
        // A stream that ends well on the same connection afterwards shows that the reset was seen.
        let mut after = h2_put("/api/nfs/files/whole");
        after[8] = 3;
        after.extend(frame(0, 1, 3, b"abc"));
        if at_once {
            sent.extend(&reset);
        }
        let mut stream = wire.open(&sent).await;
        if !at_once {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(&reset).await.unwrap();
        }
        stream.write_all(&after).await.unwrap();
        let whole = async {
            while wire.files() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOME_TIME, whole).await.unwrap();
        let names: Vec<_> = wire.inner.0.lock().files.keys().cloned().collect();
        assert_eq!(names, [b"whole".to_vec()], "{data} bytes");
        wire.inner.0.lock().files.clear();
    }
}

#[tokio::test]
async fn what_http_forbids_or_nobody_undoes_is_refused() {
    let wire = wire(GatewayConfig::default()).await;
    for (head, status) in [
        (PUT.to_owned(), 411),
        (PUT.replace("1.1", "1.0"), 411),
        (format!("{PUT}\r\nContent-Length: 0\r\nContent-Encoding: gzip"), 415),
        (format!("{PUT}\r\nTransfer-Encoding: gzip, chunked"), 501),
        (format!("{PUT}\r\nContent-Length: 0\r\nHost: y"), 400),
        (PUT.replace("Host: x\r\n", "Content-Length: 0\r\n"), 400),
        (format!("{PUT}\r\nContent-Length: 0\r\nContent-Type: a/b\r\nContent-Type: a/b"), 400),
    ] {
        assert_eq!(wire.status(&head, b"").await, status, "{head}");
        assert_eq!(wire.files(), 0, "{head}");
    }
    for (good, body) in [
        ("Content-Length: 0", ""),
        ("Content-Length: 0\r\nContent-Encoding: identity", ""),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        assert_eq!(wire.status(&format!("{PUT}\r\n{good}"), body.as_bytes()).await / 100, 2, "{good}");
    }
}

#[tokio::test]
async fn uploads_that_stall_take_no_place_from_others_and_unknown_ones_none_at_all() {
    let wire = wire(GatewayConfig { requests_max: 1, bodies_max: 3, ..GatewayConfig::default() }).await;
    let stalled = |head: &str| format!("{head}\r\nContent-Length: 10\r\n\r\nabc").into_bytes();
    let mut unknown = Vec::new();
    for _ in 0..3 {
        unknown.push(wire.open(&stalled(BAD)).await);
    }
    for stream in &mut unknown {
        let mut status = [0; 12];
        tokio::time::timeout(SOME_TIME, stream.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status[9..], b"401");
    }
    let mut known = Vec::new();
    for _ in 0..2 {
        known.push(wire.open(&stalled(PUT)).await);
    }
    while wire.inner.0.lock().calls.iter().filter(|c| **c == "whoami").count() < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Their bodies are missing, so one place is enough for everybody else.
    assert_eq!(wire.status(&format!("{PUT}\r\nContent-Length: 3"), b"abc").await, 201);
    drop(known);
}

#[tokio::test]
async fn a_client_that_waits_for_100_shows_a_good_token_first() {
    let wire = wire(GatewayConfig::default()).await;
    let expect = "Content-Length: 3\r\nExpect: 100-continue";
    let answer = wire.ask(&format!("{BAD}\r\n{expect}"), b"").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let mut stream = wire.open(format!("{PUT}\r\n{expect}\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let mut go_on = [0; 25];
    tokio::time::timeout(SOME_TIME, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    stream.write_all(b"abc").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 201"));
}

#[tokio::test]
async fn a_small_put_in_one_piece_still_costs_three_calls() {
    let wire = wire(GatewayConfig::default()).await;
    assert_eq!(wire.status(&format!("{PUT}\r\nContent-Length: 3"), b"abc").await, 201);
    assert_eq!(wire.inner.0.lock().calls, ["begin", "append", "put"]);
}

#[tokio::test]
async fn connections_that_ask_nothing_are_closed() {
    let short = Duration::from_millis(300);
    let wire =
        wire(GatewayConfig { header_timeout: short, idle_timeout: short, ..GatewayConfig::default() }).await;
    let silent: [&[u8]; 5] = [b"", b"PRI * HT", b"G", b"GET / HTTP/1.1\r\nHo", PREFACE];
    for sent in silent {
        rest(&mut wire.open(sent).await).await;
    }
    rest(&mut wire.open(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
    let mut health = h2_put("/api/nfs/files/h2");
    health[4] |= 1;
    rest(&mut wire.open(&[PREFACE, &health].concat()).await).await;
}

#[tokio::test]
async fn a_stalled_upload_does_not_hold_up_the_end_but_a_moving_one_is_finished() {
    let wire =
        wire(GatewayConfig { shutdown_grace: Duration::from_secs(60), ..GatewayConfig::default() }).await;
    let bytes = body(1);
    let head = format!("{PUT}\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let mut stalled = wire.open(&[head.as_bytes(), b"abc"].concat()).await;
    let mut moving =
        wire.open(&[head.replace("a/file", "moving").as_bytes(), &bytes[..100_000]].concat()).await;
    while wire.inner.0.lock().calls.iter().filter(|c| **c == "begin").count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    wire.app.stopping.cancel();
    let send = async {
        for part in bytes[100_000..].chunks(20_000) {
            moving.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rest(&mut moving).await
    };
    assert!(send.await.starts_with("HTTP/1.1 201"));
    assert!(rest(&mut stalled).await.starts_with("HTTP/1.1 503"));
    tokio::time::timeout(SOME_TIME, wire.served).await.unwrap().unwrap();
    assert_eq!(wire.inner.0.lock().files.keys().collect::<Vec<_>>(), [b"moving".as_slice()]);
}
