//! Asking before something is done that can't be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::stop::Stop;

/// Whether the answer to `question` is yes. Where there is no terminal to ask on, says `unasked`.
///
/// # Errors
/// No terminal, or one that can't be read.
pub fn is_confirmed(question: &str, unasked: &str) -> Result<bool, Stop> {
    if !io::stdin().is_terminal() {
        return Err(Stop::usage(unasked));
    }
    // The question goes to stderr: stdout may be a file.
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
