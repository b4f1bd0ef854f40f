//! Raft behind a thin seam: log store, snapshots, batching proposer
