//! The hay binary
