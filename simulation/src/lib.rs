//! The simulated cluster: real masters, real volume servers and their real clients in one thread, over a simulated network
//! (turmoil), clock and disk. A seed decides everything that is left to chance; the same seed gives the same history.
//!
//! Fault model. A machine's process is killed (its files keep everything), or its power fails (of what was not synced any
//! part is lost: blocks, names, lengths); it starts again after a while on what is left. A link between two machines loses
//! everything in one direction or both, or holds everything back and delivers it later, or is slow. A lost message breaks
//! its connection for good, as nothing is sent again: the connections must be given up and made anew. A disk is slow. The
//! wall clock of a machine is an hour off. Not simulated: damaged blocks, full disks, failing syncs, snapshots of the
//! masters' log; those have tests of their own crates.
//!
//! What must hold whatever happens stands in `cluster/judge.rs` and `cluster/grants.rs`.

#[cfg(test)]
mod clock;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod entropy;
#[cfg(test)]
mod net;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace;
