//! The messages of the inner services, their two bindings (a direct call, a tonic channel) and the one wrapper that
//! both cross.

pub mod convert;
pub mod rpc;

/// The generated messages and service traits. They stop at a crate's `grpc` module.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::large_futures,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("haystore.v1");
}
