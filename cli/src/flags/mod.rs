//! The command line as it is typed. Nothing here acts.

mod admin;
mod bench;
mod files;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use admin::{ClusterCommand, CompletionsArgs, VolumeCommand, WaitArgs};
pub use bench::{BenchArgs, FloorArgs, FloorKind, Mode};
pub use files::{CatArgs, DiffArgs, GetArgs, LsArgs, MkdirArgs, PutArgs, RmArgs, StatArgs};

use crate::{roles, server};

const AFTER_HELP: &str = "\
Start a server, and use it from the same directory:
  hay server --dir ./data
  hay put README.md /docs/readme.md
  hay put -r ~/photos /photos
  hay ls -l /photos
  hay get -r /photos ./copy
  hay cluster status

Server and token come from --server and --token, from HAY_SERVER and HAY_TOKEN, or from the file that the first
start of `hay server --dir DIR` writes: DIR/credentials.toml, named by --credentials or HAY_CREDENTIALS; without
any of these ./data/credentials.toml is taken. Better not --token: others on the machine see command lines.

Exit codes:
  0  all was done
  1  it failed, or a comparison found a difference
  2  the command line or the credentials can't be used
  3  nothing is at that path
  4  no token, a wrong one, or one that may not do this
  5  the server can't be reached, or the connection broke for good
  6  some of it was done, some failed";

/// Haystore: files and objects, each distinct content kept once.
#[derive(Debug, Parser)]
#[command(name = "hay", version, about, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of all commands.
#[derive(Clone, Args)]
pub struct Global {
    /// The server, as in http://127.0.0.1:8080; several gateways of one cluster with commas: where one fails the next is asked
    #[arg(long, global = true, env = "HAY_SERVER", value_name = "URL", help_heading = "Connection")]
    pub server: Option<String>,
    /// The bearer token. Better in HAY_TOKEN or a credentials file: others see command lines
    #[arg(
        long,
        global = true,
        env = "HAY_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub token: Option<String>,
    /// The file with server and token that the first start of `hay server` wrote
    #[arg(long, global = true, env = "HAY_CREDENTIALS", value_name = "FILE", help_heading = "Connection")]
    pub credentials: Option<PathBuf>,
    /// Print JSON, and nothing else, on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

impl std::fmt::Debug for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token.
        f.debug_struct("Global")
            .field("server", &self.server)
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole Haystore in this process
    Server(server::Args),
    /// Run a master: the volume map and write leases of a cluster
    Master(roles::MasterArgs),
    /// Run a volume server: keeps the bytes
    VolumeServer(roles::VolumeServerArgs),
    /// Run a filer: keeps paths and references
    Filer(roles::FilerArgs),
    /// Run a gateway: speaks HTTP with clients
    Gateway(roles::GatewayArgs),
    /// Store a file, or with -r a folder
    Put(PutArgs),
    /// Fetch a file, or with -r a folder, and verify it
    Get(GetArgs),
    /// Print a stored file on stdout, and verify it
    Cat(CatArgs),
    /// List a directory
    Ls(LsArgs),
    /// Show what is known of a path
    Stat(StatArgs),
    /// Remove a file, or with -r a directory with all that is in it
    Rm(RmArgs),
    /// Make a directory, and those above it
    Mkdir(MkdirArgs),
    /// Compare a local folder with a stored one, byte for byte
    Diff(DiffArgs),
    /// Show how much the tenant stores
    Usage,
    /// Look at the cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Look at volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Wait until the server can do its work
    Wait(WaitArgs),
    /// Measure the server against what the machine can do
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// One side of a benchmark's floor, in a process of its own
    #[command(hide = true)]
    BenchFloor(FloorArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_teaches_by_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
                if sub.has_subcommands() {
                    check(sub);
                } else {
                    let examples = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    let taught = examples.contains("hay ") || matches!(sub.get_name(), "usage" | "server");
                    assert!(taught, "{} has no example", sub.get_name());
                }
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn a_parsed_token_is_not_shown() {
        let cli = Cli::parse_from(["hay", "usage", "--token", "hay_secret"]);
        assert_eq!(cli.global.token.as_deref(), Some("hay_secret"));
        assert!(!format!("{cli:?}").contains("hay_secret"));
    }
}
