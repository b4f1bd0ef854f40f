//! One role as a process: its command line, its life, its log.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{eventually, hay_binary};

/// SHUTDOWN_GRACE and some.
const STOP_WITHIN: Duration = Duration::from_secs(45);

/// A process that can be ended and started again with the same command line.
pub struct Process {
    pub name: String,
    args: Vec<String>,
    /// Where it says how it is.
    pub operations: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub fn new(name: &str, args: Vec<String>, operations: SocketAddr, log: PathBuf) -> Self {
        Self { name: name.to_owned(), args, operations, log, child: None }
    }

    /// Starts it; returns its process id.
    pub fn start(&mut self) -> u32 {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = || File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(hay_binary())
            .args(&self.args)
            .env_clear()
            .envs(std::env::var("HAY_LOG").map(|filter| ("HAY_LOG", filter)))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        let pid = child.id();
        self.child = Some(child);
        pid
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGKILL without waiting: for many at once.
    pub fn kill_at_once(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let name = self.name.clone();
        eventually(&format!("{name} ends"), STOP_WITHIN, || match child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("still running".to_owned()),
        })
    }

    /// Fails the test when it has ended by itself.
    pub fn check(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
        if let Some(status) = ended {
            panic!("{} ended by itself, with {status}", self.name);
        }
    }

    /// Where it writes what it says.
    pub fn log_file(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
