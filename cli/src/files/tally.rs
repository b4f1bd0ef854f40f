//! What a recursive command did, and what it could not do.

use serde::Serialize;

use super::progress::Progress;
use crate::output::Output;
use crate::stop::{Exit, Stop};
use crate::units::counted;

/// Failures that are kept by name; all are counted, and all are written to stderr as they happen.
const FAILURES_KEPT: usize = 1_000;

/// One thing that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Which file or directory.
    pub path: String,
    /// A stable word.
    pub code: String,
    /// Why.
    pub message: String,
}

/// What was passed over on purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Symlinks.
    pub symlinks: u64,
    /// Sockets, pipes and devices.
    pub special: u64,
}

/// The counts of a recursive command.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Files done.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories made on their own.
    pub directories: u64,
    /// What was passed over.
    pub skipped: Skipped,
    /// How many failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failed>,
}

impl Tally {
    /// A file is done.
    pub fn file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// Something failed: it is said at once, and counted.
    pub fn fail(&mut self, path: &str, stop: &Stop, out: Output, progress: &Progress) {
        let path = crate::output::shown(path);
        progress.say(|| out.note(format_args!("hay: {path}: {}", stop.message)));
        self.count(path, stop);
    }

    fn count(&mut self, path: String, stop: &Stop) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(Failed { path, code: stop.code.clone(), message: stop.message.clone() });
        }
    }

    /// The exit code that the counts amount to.
    pub fn exit(&self) -> Exit {
        match (self.failed, self.files + self.directories) {
            (0, _) => Exit::Ok,
            (_, 0) => Exit::Failed,
            _ => Exit::Partial,
        }
    }

    /// The remarks behind a summary line: what was skipped and what failed.
    pub fn remarks(&self) -> String {
        let mut text = String::new();
        for (count, one, many) in [
            (self.skipped.symlinks, "symlink skipped", "symlinks skipped"),
            (self.skipped.special, "special file skipped", "special files skipped"),
            (self.failed, "failed", "failed"),
        ] {
            if count > 0 {
                text.push_str(", ");
                text.push_str(&counted(count, one, many));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_all_from_some_from_none() {
        let mut tally = Tally::default();
        assert_eq!(tally.exit(), Exit::Ok);
        tally.count("a".into(), &Stop::local("x"));
        assert_eq!(tally.exit(), Exit::Failed);
        tally.file(3);
        assert_eq!(tally.exit(), Exit::Partial);
        assert_eq!(tally.remarks(), ", 1 failed");
    }

    #[test]
    fn failures_are_all_counted_but_not_all_kept() {
        let mut tally = Tally::default();
        for _ in 0..FAILURES_KEPT + 5 {
            tally.count("a".into(), &Stop::local("x"));
        }
        assert_eq!((tally.failed, tally.failures.len()), (FAILURES_KEPT as u64 + 5, FAILURES_KEPT));
    }
}
