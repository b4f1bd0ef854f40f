//! The commands that look at the cluster, through the gateway, and those that prepare one.

mod cluster;
mod fields;
mod masters;
mod new_key;
mod usage;
mod volume;
mod wait;

pub use cluster::cluster_status;
pub use masters::{add_master, cluster_members, remove_master};
pub use new_key::new_cluster_key;
pub use usage::usage;
pub use volume::{volume_list, volume_repair, volume_show};
pub use wait::wait;
