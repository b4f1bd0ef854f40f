//! The filer: path index, manifests, contents and references, as a state machine behind a replicated log.
//!
//! `namespace` decides (pure), `schema` is what is kept, `store` keeps it in RocksDB, `server` runs it, `grpc` speaks
//! the wire's messages.

mod grpc;
pub mod namespace;
pub mod schema;
pub mod server;
pub mod store;

pub use namespace::command::{Bootstrapped, TokenHash};
pub use server::{Filer, FilerConfig, FilerDeps, PathIndexMode, StartError};
