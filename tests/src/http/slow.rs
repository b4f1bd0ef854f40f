//! Clients that send hardly anything: they lose their connection, those that are merely slow do not.

use std::thread;
use std::time::Duration;

use crate::harness::{Pattern, Raw, RawAnswer, Server, seed, shared_server};

/// BODY_RATE_WINDOW and HTTP_HEADER_TIMEOUT are 30 s; a busy machine may look late.
const CUT_WITHIN: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);

/// Sends `head` and `first`, then `step` bytes a second until the server has had enough, or `rest` is sent.
fn trickle(server: &Server, head: &str, first: &[u8], rest: &[u8], step: usize) -> Result<RawAnswer, String> {
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.send(&server.request(head, first)).map_err(|e| e.to_string())?;
    for part in rest.chunks(step).take(CUT_WITHIN.as_secs() as usize) {
        thread::sleep(TICK);
        if raw.has_answer() || raw.send(part).is_err() {
            break;
        }
    }
    raw.answer().map_err(|e| e.to_string())
}

#[test]
fn http_slow_clients_below_the_floor_are_cut_and_others_are_not() {
    let server = &shared_server();
    let seed = seed();
    let body = Pattern::new(seed, 1 << 20).bytes();
    let (announce, body) = (format!("Content-Length: {}", body.len()), body.as_slice());
    thread::scope(|scope| {
        // 200 KiB at once, so that it holds a buffer, then 200 bytes a second.
        let starved = scope.spawn(|| {
            let head = format!("PUT /api/nfs/files/slow/starved HTTP/1.1\r\n{announce}");
            trickle(server, &head, &body[..200 << 10], &body[200 << 10..], 200)
        });
        // A small body that never comes.
        let small = scope.spawn(|| {
            let head = "PUT /api/nfs/files/slow/small HTTP/1.1\r\nContent-Length: 20000";
            trickle(server, head, &body[..100], &body[100..20_000], 10)
        });
        // A head that never ends.
        let header = scope.spawn(|| {
            let mut raw = Raw::connect(server.address()).unwrap();
            raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").unwrap();
            for n in 0..CUT_WITHIN.as_secs() {
                thread::sleep(TICK);
                if raw.is_closed() || raw.send(format!("X-{n}: y\r\n").as_bytes()).is_err() {
                    return Ok(());
                }
            }
            Err("it was heard for a minute")
        });
        // 20 KiB a second: slow, and above the floor.
        let steady = scope.spawn(|| {
            let head = format!("PUT /api/nfs/files/slow/steady HTTP/1.1\r\n{announce}");
            trickle(server, &head, &body[..300 << 10], &body[300 << 10..], 20 << 10)
        });
        for (name, cut) in [("starved", starved), ("small", small)] {
            // Cut with a word, or without one.
            if let Ok(answer) = cut.join().unwrap() {
                assert_eq!((answer.status, answer.error_code().as_str()), (408, "too_slow"), "{name}");
            }
        }
        assert_eq!(header.join().unwrap(), Ok(()));
        let steady = steady.join().unwrap().expect("an answer");
        assert!((200..300).contains(&steady.status), "steady: {} {}", steady.status, steady.text());
    });
    for (path, status) in [("starved", 404), ("small", 404), ("steady", 200)] {
        let answer = server.raw(&format!("GET /api/nfs/files/slow/{path} HTTP/1.1"), b"").unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(status == 404 || answer.body == body, "{path}");
    }
}
