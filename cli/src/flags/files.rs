//! Flags of the commands that move, list and remove files.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

const JOBS: &str = "8";

/// `hay put`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  hay put notes.txt /docs/notes.txt      as exactly this path
  hay put notes.txt /docs/               into a directory, under its own name
  tar c src | hay put - /backup/src.tar  from stdin
  hay put -r ./photos /photos            what is in ./photos lands in /photos

With -r symlinks and special files are skipped and counted; empty directories are kept. A file that changes while
it is read, or whose name is not UTF-8, is named as an error; the others are stored, and the exit code is 6.")]
pub struct PutArgs {
    /// A local file, `-` for stdin, or with -r a folder
    pub source: PathBuf,
    /// The path to store it at. With a slash at the end: the directory to store it in
    pub target: String,
    /// Store what is in the folder SOURCE, with all below it
    #[arg(short, long)]
    pub recursive: bool,
    /// With -r: store what symlinks point to, instead of skipping them
    #[arg(long, requires = "recursive")]
    pub follow: bool,
    /// Files in transfer at once
    #[arg(short, long, default_value = JOBS, value_name = "N")]
    pub jobs: NonZeroUsize,
    /// The Content-Type to keep with a single file
    #[arg(long, value_name = "TYPE", conflicts_with = "recursive")]
    pub content_type: Option<String>,
}

/// `hay get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  hay get /docs/notes.txt                into the current directory
  hay get /docs/notes.txt copy.txt       as exactly this file
  hay get -r /photos ./copy              what is in /photos lands in ./copy

Every file is verified by its content hash before it appears under its name; a file that is there is replaced
whole or not at all. With -r no stored name can lead outside TARGET: one that would is named as an error.")]
pub struct GetArgs {
    /// The stored file, or with -r the stored directory
    pub source: String,
    /// A local file or directory; `-` for stdout
    #[arg(default_value = ".")]
    pub target: PathBuf,
    /// Fetch what is in the directory SOURCE, with all below it
    #[arg(short, long)]
    pub recursive: bool,
    /// Files in transfer at once
    #[arg(short, long, default_value = JOBS, value_name = "N")]
    pub jobs: NonZeroUsize,
}

/// `hay cat`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  hay cat /docs/notes.txt | less

The content hash is verified while the bytes pass: if they are wrong, the exit code says so at the end.")]
pub struct CatArgs {
    /// Stored files, one after the other
    #[arg(required = true)]
    pub paths: Vec<String>,
}

/// `hay ls`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  hay ls                 the root
  hay ls -l /photos      with size, time and content hash
  hay ls -r /photos      with all below it
  hay ls --json / | jq '.entries[].path'")]
pub struct LsArgs {
    /// The directory, or a file
    #[arg(default_value = "/")]
    pub path: String,
    /// With all below it
    #[arg(short, long)]
    pub recursive: bool,
    /// With size, time and content hash
    #[arg(short, long)]
    pub long: bool,
}

/// `hay stat`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  hay stat /docs/notes.txt")]
pub struct StatArgs {
    /// The file or directory
    pub path: String,
}

/// `hay rm`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  hay rm /docs/notes.txt
  hay rm -r --dry-run /photos    list what would go
  hay rm -r /photos              asks first
  hay rm -r --yes /photos        does not ask

Without a terminal to ask on, -r needs --yes.")]
pub struct RmArgs {
    /// Files, or with -r directories too
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Remove directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only list what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `hay mkdir`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  hay mkdir /docs/drafts         makes /docs too; a directory that is there is fine")]
pub struct MkdirArgs {
    /// The directories
    #[arg(required = true)]
    pub paths: Vec<String>,
}

/// `hay diff`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  hay diff -r ./photos /photos       every file byte for byte, and names that only one side has
  hay diff notes.txt /docs/notes.txt

Symlinks and special files are skipped and counted, as in `hay put -r`. The exit code is 0 when all is the same, 1 when
something differs.")]
pub struct DiffArgs {
    /// The local file or folder
    pub local: PathBuf,
    /// The stored file or directory
    pub remote: String,
    /// Compare folders with all below them
    #[arg(short, long)]
    pub recursive: bool,
    /// Look at what symlinks point to, instead of skipping them
    #[arg(long, requires = "recursive")]
    pub follow: bool,
    /// Files in comparison at once
    #[arg(short, long, default_value = JOBS, value_name = "N")]
    pub jobs: NonZeroUsize,
}
