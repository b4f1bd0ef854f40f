//! Clients that work, and clients that stop in the middle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::harness::{Api, Endpoint, Pattern};

/// Clients that put, get and compare until they are told to stop.
pub struct Workers {
    end: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Workers {
    pub fn start(api: Api, count: usize, seed: u64) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let tasks = (0..count as u64)
            .map(|worker| tokio::spawn(work(api.clone(), worker, seed, end.clone())))
            .collect();
        Self { end, tasks }
    }

    /// How many operations each has done; fails when one of them met an error or wrong bytes.
    pub async fn stop(self) -> Vec<u64> {
        self.end.store(true, Ordering::SeqCst);
        let mut done = Vec::new();
        for task in self.tasks {
            done.push(task.await.expect("a worker failed"));
        }
        done
    }
}

async fn work(api: Api, worker: u64, seed: u64, end: Arc<AtomicBool>) -> u64 {
    // Below and above SMALL_BODY_BYTES_MAX: the larger ones need a chunk slot as the stalled ones do.
    const SIZES: [u64; 5] = [100, 4_096, 60_000, 200_000, 1_000_000];
    let mut done = 0;
    while !end.load(Ordering::SeqCst) {
        let pattern = Pattern::new(
            seed.wrapping_add((worker << 32) + done),
            SIZES[(worker + done) as usize % SIZES.len()],
        );
        let path = format!("memory/w{worker}/f{}", done % 10);
        let put = api.put(&path, pattern.bytes()).await;
        assert!(put.is_success(), "PUT {path}: {} {}", put.status, put.text());
        let got = api.get(&path).await;
        assert_eq!(got.status, 200, "GET {path}: {}", got.error_code());
        assert!(pattern.is(&got.body), "{path} has other bytes");
        done += 1;
    }
    done
}

/// Connections whose other end hangs.
pub struct Stalled(Vec<TcpStream>);

impl Stalled {
    /// Uploads that announce 8 MiB or 48 KiB and stop on the way: in the middle of a chunk, of a small body, right
    /// after the head, and in the middle of the head.
    pub fn connect(server: &Endpoint, count: usize) -> Self {
        let stalled = (0..count).map(|n| {
            let (announced, sent) = match n % 8 {
                0..4 => (8 << 20, 1 << 20),
                4 => (8 << 20, 100 << 10),
                5 => (48 << 10, 32 << 10),
                6 => (8 << 20, 0),
                _ => (0, 0),
            };
            let head = format!("PUT /api/nfs/files/stalled/{n} HTTP/1.1\r\nContent-Length: {announced}");
            let mut request = server.request(&head, &vec![n as u8; sent]);
            if announced == 0 {
                request.truncate(request.len() - 5);
            }
            open(server, &request)
        });
        Self(stalled.collect())
    }

    /// Downloads that are asked for and never read.
    pub fn reading(server: &Endpoint, count: usize, path: &str) -> Self {
        let request = server.request(&format!("GET /api/nfs/files/{path} HTTP/1.1"), b"");
        Self((0..count).map(|_| open(server, &request)).collect())
    }

    /// How many the server has not cut off.
    pub fn still_open(&self) -> usize {
        let open = |stream: &&TcpStream| {
            let mut stream: &TcpStream = stream;
            let mut byte = [0; 1];
            matches!(stream.read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        };
        self.0.iter().filter(open).count()
    }
}

/// Sends as much as the server takes without waiting, so that a server that reads no further holds nobody up.
fn open(server: &Endpoint, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut rest = request;
    let mut waited = 0;
    while !rest.is_empty() && waited < 20 {
        match stream.write(rest) {
            Ok(0) => break,
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                waited += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Err(_) => break,
        }
    }
    stream
}
