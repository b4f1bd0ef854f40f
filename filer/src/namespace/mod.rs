//! What the metadata means: rules of paths, commands, queries. Pure: rows in, rows and answers out. Time, ids and
//! randomness come with the command; the rows may lie in RocksDB or in a `BTreeMap`.

pub mod apply;
pub mod command;
mod content;
mod delete;
mod directory;
mod manifest;
pub mod path;
mod put;
pub mod query;
pub mod rows;
mod session;
mod sweep;

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
