//! What goes to stdout and stderr. With `--json` stdout holds JSON and nothing else.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// Where a command speaks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Speaks JSON on stdout if `json`.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether stdout is for programs.
    pub fn json(self) -> bool {
        self.json
    }

    /// A line for people on stdout.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn line(self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// A JSON document on stdout, on one line.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn value(self, value: &impl Serialize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, value)?;
        out.write_all(b"\n")
    }

    /// A remark on stderr. That stderr is closed is nobody's trouble.
    pub fn note(self, text: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// A stored or local name as a terminal may show it: control characters are spelled out, so that no name can
/// steer the terminal.
pub fn shown(name: &str) -> String {
    if name.chars().any(char::is_control) {
        return name.chars().flat_map(spell).collect();
    }
    name.to_owned()
}

fn spell(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_steers_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("größe"), "größe");
    }
}
