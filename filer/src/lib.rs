//! The filer: path index, manifests, contents and references, as a state machine behind a replicated log.
//!
//! `namespace` decides (pure), `schema` is what is kept, `store` keeps it in RocksDB, `server` runs it, `grpc` speaks
//! the wire's messages.

pub mod namespace;
pub mod schema;
