//! Addresses for processes that are told where to listen, and that listen there again after each restart.
//!
//! Not port 0, asked beforehand: the kernel would give such a port to the next who asks, or to an outgoing connection while
//! the process is down. These are below the range that it chooses from, and in a block that this test process has for itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, OnceLock};

/// Below what kernels choose from (32768 and above).
const FIRST: u16 = 20_000;
const BLOCK: u16 = 1_000;
const BLOCKS: u16 = 12;

struct Block {
    /// As long as it listens, the block is ours.
    _guard: TcpListener,
    first: u16,
    next: Mutex<u16>,
}

fn listens_nobody(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

fn take_block() -> Block {
    // Not all begin with the same: a block of a process that was killed may still be in use by what it started.
    let start = (std::process::id() % u32::from(BLOCKS)) as u16;
    let firsts = (0..BLOCKS).map(|n| FIRST + (start + n) % BLOCKS * BLOCK);
    let mut blocks = firsts.filter_map(|first| Some((first, listens_nobody(first)?)));
    let (first, guard) = blocks.next().expect("a block of ports that no other test process has");
    Block { _guard: guard, first, next: Mutex::new(0) }
}

/// An address that nobody else is given for long.
pub fn free_address() -> SocketAddr {
    static OURS: OnceLock<Block> = OnceLock::new();
    let block = OURS.get_or_init(take_block);
    let mut next = block.next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Never again from the beginning: a process that is down wants its own again.
    while *next < BLOCK - 1 {
        *next += 1;
        let port = block.first + *next;
        if listens_nobody(port).is_some() {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
    panic!("all ports from {} on were given out", block.first);
}
