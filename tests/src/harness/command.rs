//! The `hay` commands as a user types them.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The binary beside the test executable: `target/release/hay`; or what `HAY_BINARY` names.
pub fn hay_binary() -> PathBuf {
    if let Some(named) = std::env::var_os("HAY_BINARY") {
        return PathBuf::from(named);
    }
    let here = std::env::current_exe().unwrap();
    let release = here.parent().and_then(|deps| deps.parent()).expect("the tests lie in target/release/deps");
    let binary = release.join("hay");
    assert!(
        binary.is_file(),
        "{} is missing: build it first with `cargo build --release -p hay-cli`",
        binary.display()
    );
    binary
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Ran {
    pub shown: String,
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its stdout, which must be one JSON value and nothing else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| {
            panic!("{}: stdout is not one JSON value ({e}): {:?}", self.shown, self.text())
        })
    }

    /// Its stdout as one JSON value a line.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{} failed:\n{}\n{}", self.shown, self.text(), self.stderr);
        self
    }

    /// Fails the test unless the command failed in an orderly way and named all of `words` on stderr.
    #[track_caller]
    pub fn fails_naming(self, words: &[&str]) -> Self {
        let code = self.code.unwrap_or_else(|| panic!("{} died of a signal: {}", self.shown, self.stderr));
        assert!((1..100).contains(&code), "{} ended with {code}:\n{}", self.shown, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{} does not name {word:?}:\n{}", self.shown, self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{} panicked:\n{}", self.shown, self.stderr);
        self
    }
}

/// Runs `hay` with these arguments; kills it and fails the test when it has not ended `within` that.
#[track_caller]
pub fn hay_within(within: Duration, args: &[&str]) -> Ran {
    let timer = format!("{}s", within.as_secs());
    let mut timed = vec!["-s", "KILL", timer.as_str()];
    let binary = hay_binary();
    timed.push(binary.to_str().expect("the binary's path is text"));
    timed.extend(args);
    let output = Command::new("timeout")
        .args(&timed)
        .env_remove("HAY_SERVER")
        .env_remove("HAY_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = format!("hay {}", args.join(" "));
    let ran = Ran { shown, code: output.status.code(), stdout: output.stdout, stderr };
    // `timeout` is killed with what it kills, or says so.
    assert!(
        !matches!(ran.code, None | Some(137)),
        "{} was still running after {within:?}: {}",
        ran.shown,
        ran.text()
    );
    ran
}

/// Runs `hay` with these arguments and environment, without anything on stdin.
pub fn hay(args: &[&str], env: &[(&str, &str)]) -> Ran {
    hay_with_input(args, env, b"")
}

/// Runs `hay` with `input` on stdin.
pub fn hay_with_input(args: &[&str], env: &[(&str, &str)], input: &[u8]) -> Ran {
    let mut child = Command::new(hay_binary())
        .args(args)
        .env_remove("HAY_SERVER")
        .env_remove("HAY_TOKEN")
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that does not read its input closes the pipe early: that is its right.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Ran {
        shown: format!("hay {}", args.join(" ")),
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
