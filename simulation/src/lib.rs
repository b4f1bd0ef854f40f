//! The simulated cluster: real masters, real volume servers and their real clients in one thread, over a simulated network
//! (turmoil), clock and disk. A seed decides everything that is left to chance; the same seed gives the same history.
//!
//! Fault model. A machine's process is killed (its files keep everything), or its power fails (of what was not synced any
//! part is lost: blocks, names, lengths); most of them in the middle of a change of its disk: of a write any first part is
//! done, of anything else all or nothing. It starts again after a while on what is left, and may die again as it does. A
//! killed process's connections end; of a machine without power nobody hears anything until it starts again. Once in a run
//! a server may lose its disk and come back with an empty one. A link between two machines loses everything in one direction
//! or both, or holds everything back and delivers it later, or is slow. A lost message breaks its connection for good, as
//! nothing is sent again: the connections must be given up and made anew. A disk is slow, or a server's is full. The wall
//! clock of a machine is an hour off. A process is told to stop.
//!
//! Not simulated: damaged blocks and failing syncs (tests of their own crates have them), bytes changed on the way, full
//! disks of masters, masters that lose their disks (a group's members never change), snapshots of the masters' log; a process
//! that stands still and goes on (all machines have one monotonic time); threads (what a volume's own threads do beside its
//! appender is done in between: checkpoints, zeroing, gathering); durability async; a needle sent twice under one name. A
//! cut link refuses new connections at once, which a real one does not.
//!
//! What must hold whatever happens stands in `cluster/judge.rs`, `cluster/compare.rs`, `cluster/writers.rs` and
//! `cluster/grants.rs`.

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
