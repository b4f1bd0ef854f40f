//! Volume servers: needles on disk, group commit, recovery, heartbeat.
//!
//! `store` keeps the volumes of one directory and knows nothing of the network; `server` is the core that the service
//! trait is implemented for; `heartbeat` reports to the masters and `orders` does what they say; wire types stop in `grpc`.

mod grpc;
mod heartbeat;
mod orders;
mod replicate;
mod server;
pub mod store;

pub use server::{Deps, StartError, VolumeServer, VolumeServerConfig};
