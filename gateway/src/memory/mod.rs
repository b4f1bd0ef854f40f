//! The memory that bodies take, in both directions: bounded, counted, and never held against those who work.

pub(crate) mod aside;
pub(crate) mod buffer;
pub(crate) mod downloads;
pub(crate) mod gauge;
pub(crate) mod ledger;
pub(crate) mod rate;
pub(crate) mod uploads;
