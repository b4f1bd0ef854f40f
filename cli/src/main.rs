//! The `hay` binary: a thin start around [`hay_cli::main`].
//!
//! The system's allocator, on purpose: with mimalloc the server held two to four times the memory for the same work
//! (docs/benchmarks.md), and no operation was faster. [`hay_cli::main`] sets it up.

use std::process::ExitCode;

fn main() -> ExitCode {
    hay_cli::main()
}
