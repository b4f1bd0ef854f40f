//! The `hay` binary.
fn main() {}
