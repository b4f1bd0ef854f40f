//! What every other crate stands on: ids, limits, checksums, errors, clock, randomness, disk.
//!
//! Nothing here knows of a service, a wire format or a file layout.

pub mod clock;
pub mod disk;
pub mod error;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod model;
pub mod process;
pub mod random;
pub mod retry;
pub mod telemetry;
pub mod work;
