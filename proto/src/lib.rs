//! The gRPC messages.
