//! Clients of the inner services, the same over both bindings: domain types in, domain types out.

pub mod filer;
pub mod group;
mod grpc;
mod hedges;
pub mod master;
mod peers;
mod places;
pub mod volume;
pub mod writer;

pub use filer::FilerClient;
pub use master::MasterClient;
pub use peers::Peers;
pub use places::Places;
pub use volume::VolumeClient;
pub use writer::Writer;

#[cfg(test)]
mod testing;
