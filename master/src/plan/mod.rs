//! What the leader should do next, and what it may lease: functions of the state and of what heartbeats say.

mod confirm;
mod copies;
mod decide;
mod growth;
mod lease;
mod placement;
mod repair;
mod survey;

#[cfg(test)]
mod tests;

pub use confirm::confirm;
pub use decide::{Plan, decide};
pub use growth::{Excluded, excluded};
pub use lease::{Shortage, covers_all, select, shortage};
pub use repair::{Cancelled, Irreparable, Repair, RepairStep, repair};
pub use survey::{Survey, survey};

use hay_common::ids::VolumeId;
use hay_common::limits;
use hay_common::model::{SizeClass, VolumeState};
use std::time::Duration;

use crate::live::Live;
use crate::state::{State, Volume};

/// The classes that writers need at any time.
pub const SIZES: [SizeClass; 2] = [SizeClass::Small, SizeClass::Large];

/// The numbers that plans go by. [`Policy::default`] takes them from the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Volumes of one class that a server should have ready.
    pub active_per_class: usize,
    /// … and the most, with those that nobody can write to.
    pub active_per_class_max: usize,
    /// Bytes of a full volume.
    pub volume_bytes_max: u64,
    /// Above this share a volume gets a successor, in percent.
    pub grow_percent: u64,
    /// Above this share a volume is full, in percent.
    pub full_percent: u64,
    /// Free bytes above its own reserve below which a server gets no further volume.
    pub free_bytes_min: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            active_per_class: limits::ACTIVE_VOLUMES_PER_CLASS,
            active_per_class_max: limits::ACTIVE_VOLUMES_PER_CLASS_MAX,
            volume_bytes_max: limits::VOLUME_BYTES_MAX,
            grow_percent: limits::VOLUME_GROW_PERCENT,
            full_percent: limits::VOLUME_FULL_PERCENT,
            free_bytes_min: limits::VOLUME_ROOM_BYTES,
        }
    }
}

/// State, reports and time: all that a plan looks at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What the masters agree on.
    pub state: &'a State,
    /// What heartbeats say.
    pub live: &'a Live,
    /// The leader's monotonic time.
    pub now: Duration,
    /// The numbers.
    pub policy: &'a Policy,
}

/// How far a volume is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fill {
    Roomy,
    NearlyFull,
    Full,
}

impl View<'_> {
    /// Whether all members report the volume writable in the map's epoch.
    fn writable(&self, id: VolumeId, volume: &Volume) -> bool {
        volume.state == VolumeState::Writable
            && self.state.sealing(id).is_none()
            && volume.members.iter().all(|member| {
                self.live.report(member.node, id, self.now).is_some_and(|report| {
                    report.state == VolumeState::Writable
                        && !report.filling
                        && report.epoch == volume.epoch
                        && report.read_only_reason.is_none()
                })
            })
    }

    fn fill(&self, id: VolumeId, volume: &Volume) -> Fill {
        let reports = volume.members.iter().filter_map(|member| self.live.report(member.node, id, self.now));
        let size = u128::from(reports.map(|report| report.size_bytes).max().unwrap_or(0)) * 100;
        let share = |percent: u64| u128::from(self.policy.volume_bytes_max) * u128::from(percent);
        if size >= share(self.policy.full_percent) {
            Fill::Full
        } else if size >= share(self.policy.grow_percent) {
            Fill::NearlyFull
        } else {
            Fill::Roomy
        }
    }
}
