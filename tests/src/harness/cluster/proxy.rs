//! The network between the processes of a cluster: a TCP proxy before every port, which knows who calls whom.
//!
//! A caller is known by its socket: the kernel says which process holds it. So all processes can use the same addresses,
//! and each pair of them still has a link of its own.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes that are moved at a time.
const PIECE: usize = 64 << 10;
/// Pieces on their way in one direction of a connection.
const UNDER_WAY: usize = 128;

/// What a link does to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// They pass.
    #[default]
    Open,
    /// They are held until the link is mended, as in a network that drops everything.
    Cut,
    /// Everything comes later by so much, and as much of it as ever.
    Delayed(Duration),
    /// So many bytes a second.
    Slow(u64),
}

/// The link from one process to another: what it sends, and what comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    pub there: Way,
    pub back: Way,
}

impl Link {
    /// Nothing passes.
    pub const CUT: Self = Self { there: Way::Cut, back: Way::Cut };
    /// Requests arrive, answers don't.
    pub const NO_ANSWERS: Self = Self { there: Way::Open, back: Way::Cut };

    /// The same in both directions.
    pub fn both(way: Way) -> Self {
        Self { there: way, back: way }
    }
}

/// The links that are not simply open, by the names of caller and called.
type Links = HashMap<(String, String), Link>;

/// All links of a cluster.
pub struct Network {
    links: watch::Sender<Links>,
    /// Who runs under which process id.
    processes: Arc<Mutex<HashMap<u32, String>>>,
    runtime: Option<Runtime>,
}

impl Network {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .unwrap();
        Self { links: watch::Sender::default(), processes: Arc::default(), runtime: Some(runtime) }
    }

    /// Puts a port before `target`, the one of the process `name`. It is there whether the process runs or not.
    pub fn port(&self, name: &str, target: SocketAddr) -> SocketAddr {
        let runtime = self.runtime.as_ref().expect("the network is up");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        let (links, processes, name) = (self.links.subscribe(), self.processes.clone(), name.to_owned());
        runtime.spawn(async move {
            while let Ok((caller, from)) = listener.accept().await {
                let who = caller_of(from, address, &processes).unwrap_or_default();
                tokio::spawn(relay(caller, target, (who, name.clone()), links.clone()));
            }
        });
        address
    }

    /// The process `name` runs as `pid` from now on.
    pub fn runs(&self, name: &str, pid: u32) {
        let mut processes = self.processes.lock().unwrap();
        processes.retain(|_, known| known != name);
        processes.insert(pid, name.to_owned());
    }

    /// What the link from `from` to `to` does from now on, to what is under way too.
    pub fn set(&self, from: &str, to: &str, link: Link) {
        self.links.send_modify(|links| {
            links.insert((from.to_owned(), to.to_owned()), link);
        });
    }

    /// All links are open again.
    pub fn heal(&self) {
        self.links.send_modify(Links::clear);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Not waited for: it may be dropped inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn relay(caller: TcpStream, target: SocketAddr, pair: (String, String), links: watch::Receiver<Links>) {
    // A call over a cut link does not even arrive.
    if pass(&pair, &mut links.clone(), |link| link.there, 0).await.is_err() {
        return;
    }
    // Dropping the caller's side tells it that nobody is there, as a port without a listener would.
    let Ok(called) = TcpStream::connect(target).await else { return };
    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_called, to_called) = called.into_split();
    let (mut there, mut back) = (links.clone(), links);
    let there = copy(from_caller, to_called, &pair, &mut there, |link| link.there);
    let back = copy(from_called, to_caller, &pair, &mut back, |link| link.back);
    // When one side is gone, so is the connection.
    tokio::select! {
        _ = there => {}
        _ = back => {}
    }
}

/// A piece, and when it may arrive at the earliest.
type Piece = (Instant, Vec<u8>);

async fn copy(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    pair: &(String, String),
    links: &mut watch::Receiver<Links>,
    way: impl Fn(&Link) -> Way,
) -> io::Result<()> {
    // A long way holds much at once: a delay must not make it narrow.
    let (pieces, under_way) = mpsc::channel(UNDER_WAY);
    let taken = take(from, pieces, pair, links.clone(), &way);
    let brought = bring(to, under_way, pair, links, &way);
    tokio::try_join!(taken, brought).map(drop)
}

async fn take(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<Piece>,
    pair: &(String, String),
    links: watch::Receiver<Links>,
    way: impl Fn(&Link) -> Way,
) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let len = from.read_buf(&mut piece).await?;
        let delay = match links.borrow().get(pair).map(&way) {
            Some(Way::Delayed(time)) => time,
            _ => Duration::ZERO,
        };
        if len == 0 || pieces.send((Instant::now() + delay, piece)).await.is_err() {
            return Ok(());
        }
    }
}

async fn bring(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<Piece>,
    pair: &(String, String),
    links: &mut watch::Receiver<Links>,
    way: impl Fn(&Link) -> Way,
) -> io::Result<()> {
    while let Some((arrives, piece)) = pieces.recv().await {
        tokio::time::sleep_until(arrives).await;
        pass(pair, links, &way, piece.len() as u64).await?;
        to.write_all(&piece).await?;
    }
    // The end of the bytes passes as they do.
    pass(pair, links, &way, 0).await
}

/// Waits until `len` bytes may go on.
async fn pass(
    pair: &(String, String),
    links: &mut watch::Receiver<Links>,
    way: impl Fn(&Link) -> Way,
    len: u64,
) -> io::Result<()> {
    loop {
        let now = links.borrow_and_update().get(pair).map(&way).unwrap_or_default();
        match now {
            Way::Open | Way::Delayed(_) => return Ok(()),
            Way::Slow(bytes_per_s) => {
                tokio::time::sleep(Duration::from_secs_f64(len as f64 / bytes_per_s as f64)).await;
                return Ok(());
            }
            Way::Cut => links.changed().await.map_err(io::Error::other)?,
        }
    }
}

/// Which process holds the socket at `from` that is connected to `to`.
fn caller_of(from: SocketAddr, to: SocketAddr, processes: &Mutex<HashMap<u32, String>>) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        let inode = fields.nth(6)?;
        (local == hex(from) && remote == hex(to)).then(|| format!("socket:[{inode}]"))
    })?;
    let processes: Vec<_> = processes.lock().unwrap().iter().map(|(p, n)| (*p, n.clone())).collect();
    processes.into_iter().find(|(pid, _)| holds(*pid, &inode)).map(|(_, name)| name)
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == socket))
}

/// An IPv4 address as in /proc/net/tcp.
fn hex(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { return String::new() };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}
