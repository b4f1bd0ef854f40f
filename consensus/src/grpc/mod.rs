//! Groups over gRPC: the `Raft` service of `hay_proto` on both ends.

mod convert;
mod endpoint;
mod transport;

pub use endpoint::RaftEndpoint;
pub use transport::GrpcTransport;
