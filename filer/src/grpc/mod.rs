//! The wire's `Filer` service over [`Filer`](crate::server::Filer). Generated types stop here.

mod inbound;
mod outbound;
mod service;
