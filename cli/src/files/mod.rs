//! The commands that move, list and remove files.

mod cat;
mod diff;
mod download;
mod get;
mod hashing;
mod list;
mod local;
mod mkdir;
mod progress;
mod put;
mod remove;
mod source;
mod stat;
mod tally;
mod upload;
mod walk;

pub use cat::cat;
pub use diff::diff;
pub use get::get;
#[cfg(test)]
pub use hashing::content_hash;
pub use list::list;
pub use mkdir::make_directory;
pub use put::put;
pub use remove::remove;
pub use stat::stat;
