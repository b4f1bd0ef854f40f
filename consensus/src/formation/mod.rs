//! How a group comes to be: which formation this member belongs to, and the way there.
//!
//! A group is formed once, by the member of its static list that has the lowest id, after **every** peer has answered that
//! it is new and has promised, durably, to belong to that formation alone. Each formation has a random id that all
//! messages carry: what belongs to another formation is refused, so that two of them can never share a vote. A new
//! member that meets a formed group joins it as a learner. A member that has a log never changes its formation.
//!
//! One that has only voted may: the member that it voted for has the formation's log, or has lost it with its directory.
//! In the first case that member refuses to promise anything, and nothing else is formed. In the second nothing was ever
//! acknowledged, or a third member has the log too, and refuses likewise.
//!
//! File `formation` in the group's directory; a directory made by a program that knew one member only has none and gets one.

pub(crate) mod decide;
mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hay_common::disk::SharedDisk;
use hay_common::work;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard};

use crate::envelope::Kind;
use crate::error::{Refusal, StartError};
use crate::log::LogHandle;

pub(crate) use run::Forming;

const KIND: Kind = Kind { magic: *b"hayForm.", version: 1 };

/// Which forming of a group: drawn at random when it is formed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FormationId(pub u128);

impl fmt::Display for FormationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for FormationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A formation: what a promise is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Formation {
    pub(crate) id: FormationId,
    /// The voters it begins with and their addresses; none where this member joined later.
    pub(crate) members: BTreeMap<u64, String>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) member: u64,
    /// Where it says that it is reached.
    pub(crate) address: String,
    /// Whether it has a log.
    pub(crate) initialised: bool,
    /// Whether it has voted: then it can't begin a log of its own.
    pub(crate) voted: bool,
    pub(crate) formation: Option<FormationId>,
    /// Who leads, and where.
    pub(crate) leader: Option<(u64, String)>,
    /// All members that it knows of, learners too.
    pub(crate) members: BTreeMap<u64, String>,
}

/// This member stays in its formation as long as this is held.
pub(crate) struct Held(
    #[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<Option<Formation>>,
);

/// The formation that this member belongs to.
pub(crate) struct Formed {
    disk: SharedDisk,
    path: PathBuf,
    log: LogHandle,
    /// Held for reading by each message while it is taken in, so that no message of one formation is on its way into
    /// the log while this member changes to another.
    record: Arc<RwLock<Option<Formation>>>,
    id: Mutex<Option<FormationId>>,
}

impl Formed {
    /// Reads what is recorded. Blocks.
    pub(crate) fn open(disk: SharedDisk, dir: &std::path::Path, log: LogHandle) -> Result<Self, StartError> {
        let path = dir.join("formation");
        let record: Option<Formation> = KIND.read(disk.as_ref(), &path)?;
        let id = Mutex::new(record.as_ref().map(|record| record.id));
        Ok(Self { disk, path, log, record: Arc::new(RwLock::new(record)), id })
    }

    /// The formation in the messages that this member sends.
    pub(crate) fn id(&self) -> Option<FormationId> {
        *self.id.lock()
    }

    /// Whether this member has no log: whatever it promised, it has acknowledged nothing.
    pub(crate) fn pristine(&self) -> bool {
        let index = self.log.shared.index.lock();
        index.last().is_none() && index.purged.is_none()
    }

    /// Whether this member has voted.
    pub(crate) fn voted(&self) -> bool {
        self.log.shared.vote.lock().is_some()
    }

    /// Leave to take in a message of `theirs`: this member stays in that formation as long as it is held.
    pub(crate) async fn hold(&self, theirs: Option<FormationId>) -> Result<Held, Refusal> {
        let record = self.record.clone().read_owned().await;
        let ours = record.as_ref().map(|record| record.id);
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => Ok(Held(record)),
            (None, _) => Err(Refusal::NotFormed),
            (Some(_), _) => Err(Refusal::OtherFormation),
        }
    }

    /// Nothing else is taken in meanwhile.
    pub(crate) async fn lock(&self) -> RwLockWriteGuard<'_, Option<Formation>> {
        self.record.write().await
    }

    /// Belongs to `formation` from now on, durably; refused once this member has a log. Must not be dropped half way: the file
    /// would still be written, beside that of the next promise.
    pub(crate) async fn enter(&self, formation: Formation) -> Result<(), Refusal> {
        let mut record = self.record.write().await;
        if record.as_ref() == Some(&formation) {
            return Ok(());
        }
        if !self.pristine() {
            return Err(Refusal::Initialised);
        }
        self.keep(&mut record, formation).await
    }

    /// Records `formation` for a member that has formed it alone: nobody else can have.
    pub(crate) async fn keep(
        &self,
        record: &mut Option<Formation>,
        formation: Formation,
    ) -> Result<(), Refusal> {
        let (disk, path, body) = (self.disk.clone(), self.path.clone(), formation.clone());
        let on = disk.clone();
        let written = work::blocking(on.as_ref(), move || KIND.publish(disk.as_ref(), &path, &body)).await;
        let written = written.map_err(std::io::Error::other).and_then(|written| written);
        written.map_err(|error| Refusal::Disk(format!("{}: {error}", self.path.display())))?;
        *self.id.lock() = Some(formation.id);
        *record = Some(formation);
        Ok(())
    }
}
