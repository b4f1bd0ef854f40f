//! What openraft is told of the types that a group uses.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotDir;

openraft::declare_raft_types!(
    /// One entry carries a batch of commands and is answered by a batch of replies.
    pub(crate) Types:
        D = Batch,
        R = Replies,
        SnapshotData = SnapshotDir,
);

pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type Membership = openraft::StoredMembership<u64, openraft::BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type Raft = openraft::Raft<Types>;

/// The commands of one log entry, in order.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Batch(
    #[serde(with = "byte_strings")] pub(crate) Vec<Bytes>,
    #[serde(skip)] pub(crate) Appended,
);

impl Batch {
    pub(crate) fn new(commands: Vec<Bytes>) -> Self {
        Self(commands, Appended::default())
    }
}

/// Tells the proposer whether its entry reached a log. The library gives one answer where nothing was done and where an
/// entry was written and then replaced; only the former may be called undone, for another member may still hold it.
#[derive(Clone, Default)]
pub(crate) struct Appended(Option<Arc<AtomicBool>>);

impl Appended {
    pub(crate) fn watched() -> Self {
        Self(Some(Arc::default()))
    }

    pub(crate) fn set(&self) {
        if let Some(flag) = &self.0 {
            flag.store(true, Ordering::Release);
        }
    }

    pub(crate) fn get(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

/// No part of what the batch is.
impl PartialEq for Appended {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Appended {}

/// One reply for each command of the entry; none for entries that carry no commands.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Replies(#[serde(with = "byte_strings")] pub(crate) Vec<Bytes>);

/// openraft wants its types to be serialisable. The log has an encoding of its own ([`crate::log`]).
mod byte_strings {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(strings: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(strings.iter().map(AsRef::<[u8]>::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
        let strings = Vec::<Vec<u8>>::deserialize(deserializer)?;
        Ok(strings.into_iter().map(Bytes::from).collect())
    }
}

// Commands may hold what must not stand in a log line: only their number is shown.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replies", self.0.len())
    }
}
