//! Volume servers: needles on disk, group commit, recovery, heartbeat

pub mod store;
