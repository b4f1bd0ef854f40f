//! The commands that look at the cluster, through the gateway.

mod cluster;
mod fields;
mod usage;
mod volume;
mod wait;

pub use cluster::cluster_status;
pub use usage::usage;
pub use volume::{volume_list, volume_repair, volume_show};
pub use wait::wait;
