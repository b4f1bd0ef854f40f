//! What a request says, parsed and checked: pure, each part with a table of cases.

pub(crate) mod attributes;
pub(crate) mod conditions;
pub(crate) mod digest;
pub(crate) mod idempotency;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod range;
