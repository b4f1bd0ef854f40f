//! Masters: volume map, write leases, node registry
