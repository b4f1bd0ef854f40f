//! Files on their way out: located, read, verified by the volume servers, streamed with bounded read-ahead.

pub(crate) mod needle;
pub(crate) mod plan;
pub(crate) mod pump;
