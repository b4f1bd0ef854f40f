//! `hay server` as a process of its own, on a directory that outlives it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Api, Endpoint, Metrics, RawAnswer, eventually, failure, hay_binary};

/// A start may have to replay a log; on a busy machine of two cores it still takes seconds, not minutes.
const START_WITHIN: Duration = Duration::from_secs(60);
/// SHUTDOWN_GRACE and some.
const STOP_WITHIN: Duration = Duration::from_secs(45);

static STARTS: AtomicU32 = AtomicU32::new(0);

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The directory; a fresh one where it is missing, gone with the server.
    pub dir: Option<PathBuf>,
    /// Further arguments of `hay server`.
    pub args: Vec<String>,
    /// Don't wait for `/readyz`, only for the port: a full disk need not be ready.
    pub port_only: bool,
}

/// A running server, killed when it is dropped.
pub struct Server {
    start: Start,
    dir: PathBuf,
    temporary: Option<tempfile::TempDir>,
    child: Option<Child>,
    http: SocketAddr,
    token: String,
    log: PathBuf,
}

impl Server {
    /// On a directory of its own, ready.
    pub fn start() -> Self {
        Self::start_with(Start::default())
    }

    /// As `start` says.
    pub fn start_with(start: Start) -> Self {
        failure::remember_why();
        let temporary =
            start.dir.is_none().then(|| tempfile::Builder::new().prefix("hay-test-").tempdir().unwrap());
        let dir = match (&start.dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path().join("data"),
            (None, None) => unreachable!(),
        };
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("hay-test-{}-{number}.log", std::process::id()));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { start, dir, temporary, child: None, http: nowhere, token: String::new(), log };
        server.launch();
        server
    }

    fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut child = spawn(&self.dir, &self.start.args, &self.log);
        let addresses = watch_stdout(&mut child);
        self.child = Some(child);
        self.http = eventually("the server prints its address", START_WITHIN, || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("the server ended while starting, with {status}");
            }
            addresses.try_recv().map_err(|e| e.to_string())
        });
        self.token = read_credential(&self.dir, "token");
        if !self.start.port_only {
            self.wait_ready();
        }
    }

    /// Waits until every role can do its work.
    pub fn wait_ready(&mut self) {
        eventually("GET /readyz answers 200", START_WITHIN, || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("the server ended before it was ready, with {status}");
            }
            let answer = self.raw_get("/readyz").map_err(|e| e.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
        });
    }

    /// Ends it like a power cut of the process: SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks it to end (SIGTERM) without waiting.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = eventually("the server ends", STOP_WITHIN, || match child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("still running".to_owned()),
        });
        child.wait().unwrap();
        status
    }

    /// SIGTERM and the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait_end()
    }

    /// Starts it again on the same directory.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Starts it on the same directory and kills it `after` that, however far it has come.
    pub fn start_and_kill(&mut self, after: Duration) {
        self.kill();
        let mut child = spawn(&self.dir, &self.start.args, &self.log);
        let _addresses = watch_stdout(&mut child);
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a server as `start` says and kills it `after` that: a first start that is cut off.
    pub fn cut_first_start(start: &Start, after: Duration) {
        let dir = start.dir.as_deref().expect("the directory outlives the start");
        let log = dir.with_extension("first-start.log");
        let mut child = spawn(dir, &start.args, &log);
        let _addresses = watch_stdout(&mut child);
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    pub fn address(&self) -> SocketAddr {
        self.http
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn credentials(&self) -> PathBuf {
        self.dir.join("credentials.toml")
    }

    /// Everything that it has written to stderr, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A client with the administrator's token.
    pub fn api(&self) -> Api {
        Api::new(&self.url(), Some(&self.token))
    }

    /// How it is reached, as of a gateway of a cluster.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { http: self.http, token: self.token.clone(), pid: self.pid() }
    }

    /// See [`Endpoint::raw`].
    pub fn raw(&self, head: &str, body: &[u8]) -> std::io::Result<RawAnswer> {
        self.endpoint().raw(head, body)
    }

    /// See [`Endpoint::request`].
    pub fn request(&self, head: &str, body: &[u8]) -> Vec<u8> {
        self.endpoint().request(head, body)
    }

    fn raw_get(&self, path: &str) -> std::io::Result<RawAnswer> {
        self.raw(&format!("GET {path} HTTP/1.1"), b"")
    }

    /// See [`Endpoint::metrics`].
    pub fn metrics(&self) -> Metrics {
        self.endpoint().metrics()
    }

    /// See [`Endpoint::memory_bytes`].
    pub fn memory_bytes(&self, field: &str) -> u64 {
        self.endpoint().memory_bytes(field)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            failure::show([("the server", self.log.as_path())]);
            if std::env::var_os("HAY_KEEP").is_some() {
                if let Some(temporary) = self.temporary.take() {
                    println!("---- its directory was kept: {}", temporary.keep().display());
                }
                return;
            }
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// One server for all tests that leave others alone: each keeps to a directory of its own. It lives as long as one
/// of them holds it.
pub fn shared_server() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start());
    *shared = Arc::downgrade(&server);
    server
}

fn spawn(dir: &Path, args: &[String], log: &Path) -> Child {
    let stderr = File::options().create(true).append(true).open(log).unwrap();
    let http = if args.iter().any(|a| a == "--http") { &[][..] } else { &["--http", "127.0.0.1:0"][..] };
    Command::new(hay_binary())
        .arg("server")
        .arg("--dir")
        .arg(dir)
        .args(http)
        .args(args)
        .env_remove("HAY_SERVER")
        .env_remove("HAY_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Reads stdout to its end, so that the server never blocks on it, and gives the addresses that it names.
fn watch_stdout(child: &mut Child) -> Receiver<SocketAddr> {
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let (found, addresses) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let named = line.split_once("listening on http://").and_then(|(_, rest)| {
                let end = rest.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(rest.len());
                rest[..end].parse().ok()
            });
            if let Some(address) = named {
                let _ = found.send(address);
            }
        }
    });
    addresses
}

/// A `name = "value"` of DIR/credentials.toml.
fn read_credential(dir: &Path, name: &str) -> String {
    let path = dir.join("credentials.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter_map(|l| l.split_once('='))
        .find(|(n, _)| n.trim() == name)
        .map(|(_, v)| v.trim().trim_matches('"').to_owned())
        .unwrap_or_else(|| panic!("{} has no {name}", path.display()))
}
