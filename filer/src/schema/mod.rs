//! What the filer keeps: keys, values, and nothing of how they come about.

pub mod keys;
pub mod values;

#[cfg(test)]
mod tests;
