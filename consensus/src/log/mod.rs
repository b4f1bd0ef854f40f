//! The log on disk: segments written ahead and used again, one writer thread, an index in memory.
//!
//! Directory `log/`:
//! - `log-GENERATION`: a segment (see [`segment`]). The one with the greatest generation that holds records is
//!   appended to; one after it is prepared for the next.
//! - `spare-GENERATION`: an emptied segment, to be used again under a new generation.
//! - `state`: vote, purged position, and a truncation that was begun (see [`hard_state`]).
//!
//! A record is written once, with the number of bytes of its segment that were durable before it. What is damaged
//! below such a number was acknowledged: that is corruption, and the log refuses to open. What is damaged above every
//! such number was never acknowledged: a torn tail, which is zeroed.

mod hard_state;
mod index;
pub(crate) mod payload;
mod prepare;
mod record;
mod recover;
mod segment;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use recover::open;
pub(crate) use store::LogStore;
pub(crate) use writer::{LogConfig, LogHandle, Request};
