//! The servers that hold a volume, as far as a client knows.

use std::sync::Arc;

/// Where a volume can be read. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    addresses: Arc<[String]>,
    /// The first so many are of servers that live, for all that is known.
    living: usize,
}

impl Places {
    /// At the `living`, and at the `dead`: those that the masters have not heard of lately. They may answer all the same.
    pub fn new(living: Vec<String>, dead: Vec<String>) -> Self {
        let count = living.len();
        Self { addresses: living.into_iter().chain(dead).collect(), living: count }
    }

    /// All addresses, the likeliest first.
    pub fn all(&self) -> &[String] {
        &self.addresses
    }

    /// Those of servers that live, and those of servers that are taken for dead.
    pub fn by_life(&self) -> (&[String], &[String]) {
        self.addresses.split_at_checked(self.living).unwrap_or((&self.addresses, &[]))
    }

    /// Whether no server is known.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

impl From<&Places> for Places {
    fn from(places: &Places) -> Self {
        places.clone()
    }
}

/// Of servers of which nothing bad is known.
impl From<&[String]> for Places {
    fn from(addresses: &[String]) -> Self {
        Self { addresses: addresses.into(), living: addresses.len() }
    }
}

impl From<&Vec<String>> for Places {
    fn from(addresses: &Vec<String>) -> Self {
        addresses.as_slice().into()
    }
}

impl<const N: usize> From<&[String; N]> for Places {
    fn from(addresses: &[String; N]) -> Self {
        addresses.as_slice().into()
    }
}
