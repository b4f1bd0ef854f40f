//! Where wire types stop: each function takes and gives domain types.

pub(crate) mod filer;
pub(crate) mod master;
pub(crate) mod volume;

use hay_common::error::{ErrorCode, Failure};

/// The one result of a batch of one.
fn only<T>(results: Vec<T>, method: &str) -> Result<T, Failure> {
    let count = results.len();
    let mut results = results.into_iter();
    match (results.next(), count) {
        (Some(result), 1) => Ok(result),
        _ => {
            Err(Failure::new(ErrorCode::Internal, format!("{method} answered one item with {count} results")))
        }
    }
}
