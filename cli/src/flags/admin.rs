//! Flags of the commands that look at the cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::units::parse_duration;

/// `hay cluster …`.
#[derive(Debug, Clone, Subcommand)]
pub enum ClusterCommand {
    /// Masters, volume servers and metadata at a glance
    #[command(after_help = "Examples:\n  hay cluster status\n  hay cluster status --json | jq .nodes")]
    Status,
    /// Make the key that all processes of a new cluster share
    #[command(after_help = "\
Example:
  hay cluster new-key ./cluster.key

Whoever has this file can act as any part of the cluster: mode 0600, and a backup in a safe place.")]
    NewKey {
        /// Where; nothing may be there yet
        file: PathBuf,
    },
}

/// `hay volume …`.
#[derive(Debug, Clone, Subcommand)]
pub enum VolumeCommand {
    /// All volumes
    #[command(after_help = "Example:\n  hay volume list")]
    List,
    /// One volume
    #[command(after_help = "Example:\n  hay volume show 3")]
    Show {
        /// Its number
        id: u32,
    },
    /// Bring a sealed volume back to its number of copies: copies it, whole, to another server
    #[command(after_help = "\
Examples:
  hay volume repair 3 --dry-run
  hay volume repair 3 && hay volume show 3

It goes on in the background; `hay volume show` says which member is being filled. Asked again, it says what runs.")]
    Repair {
        /// Its number
        id: u32,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// `hay wait`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  hay server --dir ./data & hay wait --timeout 60s --pid $!

Waits for the credentials file too, where the server is at its first start.")]
pub struct WaitArgs {
    /// Give up after this time
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Give up at once when this process is gone
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// `hay completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  hay completions bash > ~/.local/share/bash-completion/completions/hay")]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: clap_complete::Shell,
}
