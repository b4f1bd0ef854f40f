//! A server that answers as a test tells it, connection by connection, and remembers what it was asked.

use std::sync::Arc;

use hay_common::random::SeededRandom;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Client;
use crate::config::{Target, Token};

/// What to do with a request.
pub(crate) enum Act {
    /// Read it whole, and send these bytes, then close.
    Answer(Vec<u8>),
    /// Send these bytes as soon as its head is there, then close.
    AnswerEarly(Vec<u8>),
    /// Read it whole, and close without a word.
    Hang,
    /// Read it whole, say nothing, and keep the connection until the client gives it up.
    Silence,
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// A header of the request.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What the server was asked so far.
pub(crate) type Log = Arc<Mutex<Vec<Asked>>>;

/// An answer with these header lines (each with its line end) and body.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Starts a server that plays `script`, one act for each connection, and a client of it.
pub(crate) async fn play(script: Vec<Act>) -> (Client, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = log.clone();
    tokio::spawn(async move {
        for act in script {
            let (stream, _) = listener.accept().await.unwrap();
            perform(stream, act, &seen).await;
        }
    });
    let target = Target { servers: vec![server], token: Token::new("hay_test"), credentials: None };
    (Client::new(target, SeededRandom::shared(11)).unwrap(), log)
}

async fn perform(mut stream: TcpStream, act: Act, log: &Log) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let mut asked =
        Asked { head: String::from_utf8_lossy(&bytes[..end]).into_owned(), body: bytes[end..].to_vec() };
    let length: usize = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
    let early = matches!(act, Act::AnswerEarly(_));
    while !early && asked.body.len() < length {
        if stream.read_buf(&mut asked.body).await.unwrap_or(0) == 0 {
            break;
        }
    }
    log.lock().push(asked);
    if matches!(act, Act::Silence) {
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
        return;
    }
    match act {
        Act::Answer(bytes) | Act::AnswerEarly(bytes) => stream.write_all(&bytes).await.unwrap(),
        Act::Hang | Act::Silence => {}
    }
    stream.shutdown().await.ok();
    // Closing with unread bytes would send a reset that overtakes the answer.
    let mut rest = vec![0; 64 << 10];
    for _ in 0..64 {
        if stream.read(&mut rest).await.unwrap_or(0) == 0 {
            break;
        }
    }
}
