//! The HTTP API of the gateway, as a client sees it.

mod answer;
mod body;
mod client;
mod error;
mod fetch;
mod routes;
#[cfg(test)]
pub(crate) mod scripted;
mod servers;
#[cfg(test)]
mod tests;

pub use answer::{Entry, EntryType, Listing, Stat};
pub use body::{PIECES_WAITING, Piece, PieceBody};
pub use client::{Client, PutBody, Stored};
pub use error::ApiError;
pub use fetch::{Fetched, PIECES_IN_FLIGHT};
