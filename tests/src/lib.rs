//! Tests of the whole: the real `hay` binary as a process, driven over HTTP and by its own commands, and the
//! rules that the source tree keeps.
//!
//! Every test drives `target/release/hay`, which `make test` builds first. `docs/testing.md` says which test
//! shows what.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod rules;

#[cfg(test)]
mod cli;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod dedup;
#[cfg(test)]
mod files;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod http;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod ops;
