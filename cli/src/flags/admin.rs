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
    /// The masters: who leads, who votes, who follows
    #[command(
        after_help = "Examples:\n  hay cluster members\n  hay cluster members --json | jq '.masters[] | select(.voter)'"
    )]
    Members,
    /// Give a master that follows a vote
    #[command(after_help = "\
Examples:
  hay master --dir /srv/master --cluster-key /etc/haystore/cluster.key --insecure-no-tls --listen 10.0.0.4:7001 \\
      --replicas 2 --peers 10.0.0.1:7001,10.0.0.2:7001,10.0.0.3:7001,10.0.0.4:7001
  hay cluster add-master 10.0.0.4:7001

Give all other processes the new list of masters first. A new master, or one that comes back with an empty directory, joins
by itself and follows: it counts for nothing until it is added. It must have caught up first: `hay cluster members` says
what it lacks.")]
    AddMaster {
        /// Its id, or its address
        master: String,
        /// Only say whether it could be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a master out of the cluster, for good
    #[command(after_help = "\
Examples:
  hay cluster remove-master 10.0.0.2:7001 --dry-run
  hay cluster remove-master 5410963128433151716 --yes

Not done where those that are left would have no majority that answers. Add its successor first. What is removed must not
be started again with its directory; with an empty one it joins as a new master.")]
    RemoveMaster {
        /// Its id, or its address
        master: String,
        /// Only say whether it could be done
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
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
    /// Bring a sealed volume back to its number of copies: copies it to another server, or completes a copy where it is
    #[command(after_help = "\
Examples:
  hay volume repair 3 --dry-run
  hay volume repair 3 && hay volume show 3

It goes on in the background; `hay volume show` says which member is being filled or completed, and what keeps it from its
end. Asked again, it says what runs; what gets nowhere is then given up where another server can take over, and it says so.
No copy is given up that may be the only one of some content.")]
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
