//! Floors in processes of their own: started again from this binary, told what to do on stdin, answering on stdout,
//! gone when stdin closes.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use hay_common::clock::Clock;
use hay_common::random::SystemRandom;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::content::Contents;
use super::sync::{SyncFloor, SyncSlice};
use super::{grpc, http, procfs};
use crate::flags::{FloorArgs, FloorKind};

/// Why a floor is not there.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The process can't be started or talked to.
    #[error("the {0} floor: {1}")]
    Io(&'static str, io::Error),
    /// It ended, or said something else.
    #[error("the {0} floor ended without an answer")]
    Ended(&'static str),
}

/// The first line of a floor: it is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    address: Option<SocketAddr>,
}

/// A running floor.
pub struct Floor {
    kind: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: Option<SocketAddr>,
}

fn name(kind: FloorKind) -> &'static str {
    match kind {
        FloorKind::Http => "http",
        FloorKind::Grpc => "grpc",
        FloorKind::Sync => "sync",
    }
}

impl Floor {
    /// Starts a floor and waits until it is ready.
    pub fn start(args: &FloorArgs) -> Result<Self, FloorError> {
        let kind = name(args.kind);
        let wrong = |error| FloorError::Io(kind, error);
        // Not current_exe: the file may have been replaced since this process started.
        let mut command = Command::new("/proc/self/exe");
        command.args(["bench-floor", kind]);
        command.args(["--size", &args.size.to_string(), "--seed", &args.seed.to_string()]);
        command.args(["--threads", &args.threads.to_string(), "--writers", &args.writers.to_string()]);
        if let Some(dir) = &args.dir {
            command.arg("--dir").arg(dir);
        }
        // It needs none of these, and what a process does not have it can't leak.
        command.env_remove("HAY_TOKEN").env_remove("HAY_CREDENTIALS").env_remove("HAY_SERVER");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(wrong)?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            return Err(FloorError::Ended(kind));
        };
        let mut floor = Self { kind, child, stdin, stdout: BufReader::new(stdout), address: None };
        floor.address = floor.answer::<Ready>()?.address;
        Ok(floor)
    }

    /// Where a server floor listens.
    pub fn address(&self) -> Result<SocketAddr, FloorError> {
        self.address.ok_or(FloorError::Ended(self.kind))
    }

    /// CPU seconds that it has used.
    pub fn cpu_seconds(&self) -> Option<f64> {
        procfs::cpu_seconds(self.child.id())
    }

    /// Lets a sync floor run for `time`.
    pub fn run(&mut self, time: Duration) -> Result<SyncSlice, FloorError> {
        let stdin = self.stdin.as_mut().ok_or(FloorError::Ended(self.kind))?;
        writeln!(stdin, "{}", time.as_millis()).map_err(|error| FloorError::Io(self.kind, error))?;
        self.answer()
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, FloorError> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(|error| FloorError::Io(self.kind, error))?;
        serde_json::from_str(&line).map_err(|_| FloorError::Ended(self.kind))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself; nothing is left to do where it can't be waited for.
        let _ = self.child.wait();
    }
}

fn say(value: &impl Serialize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, value)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// The other side: plays the floor until stdin closes.
pub fn play(args: &FloorArgs, clock: &dyn Clock) -> io::Result<()> {
    match args.kind {
        FloorKind::Sync => play_sync(args, clock),
        FloorKind::Http | FloorKind::Grpc => play_server(args),
    }
}

fn play_sync(args: &FloorArgs, clock: &dyn Clock) -> io::Result<()> {
    let directory = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let data = Contents::new(args.seed, args.size).whole(0);
    let floor = SyncFloor::prepare(&directory, data, args.writers.get(), SystemRandom::shared()?.as_ref())?;
    say(&Ready { address: None })?;
    for line in io::stdin().lock().lines() {
        let ms: u64 = line?.trim().parse().map_err(io::Error::other)?;
        say(&floor.run(Duration::from_millis(ms), clock)?)?;
    }
    Ok(())
}

fn play_server(args: &FloorArgs) -> io::Result<()> {
    let mut runtime = match args.threads.get() {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let runtime = runtime.enable_all().build()?;
    let object = Contents::new(args.seed, args.size).whole(0);
    let kind = args.kind;
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        say(&Ready { address: Some(listener.local_addr()?) })?;
        let closed = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
        let served = async {
            if kind == FloorKind::Grpc {
                grpc::serve(listener, object).await
            } else {
                http::serve(listener, object).await
            }
        };
        tokio::select! {
            served = served => served,
            _ = closed => Ok(()),
        }
    })
}
