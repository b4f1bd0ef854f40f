//! `hay bench`: the server against what the machine can do, in alternating slices of one run.

mod connection;
mod content;
mod floor;
mod grpc;
mod http;
mod load;
mod metrics;
mod pairs;
mod procfs;
mod report;
mod run;
mod stats;
mod sync;

pub use run::{run, run_floor};
