//! The `hay` binary: every server role, the file and admin commands (through the gateway), and `hay bench`.
//!
//! Raw flags ([`flags`]) become a resolved configuration ([`config`]), which an action runs on. Actions return
//! an exit code or a [`stop::Stop`]; nothing else ends the process.

mod admin;
mod allocator;
mod api;
mod ask;
mod bench;
mod config;
mod files;
mod flags;
mod output;
mod remote;
mod roles;
mod run;
mod server;
mod stop;
mod units;

use std::process::ExitCode;

/// Parses the command line, runs the command, and says how it went.
pub fn main() -> ExitCode {
    allocator::tune();
    run::main()
}
