//! Connections: accepted, served, ended.

pub(crate) mod accept;
pub(crate) mod request_id;
pub(crate) mod service;
pub(crate) mod stall;
pub(crate) mod usage;
