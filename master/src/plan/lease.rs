//! Which volumes a writer gets.

use std::collections::BTreeMap;

use hay_common::ids::{NodeId, VolumeId};
use hay_common::limits::WRITE_LEASE_VOLUMES_MAX;
use hay_common::model::{LeasedVolume, SizeClass};

use super::{Fill, SIZES, View};

/// Why a lease does not cover every class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// No volume server has reported yet.
    NoServers,
    /// No living volume server has room.
    NoRoom,
    /// Volumes are being made, or all are avoided.
    NotYet(SizeClass),
}

/// Up to [`WRITE_LEASE_VOLUMES_MAX`] writable volumes: as many of each class, spread over primaries. `turn` moves the
/// start, so that not all writers use the same. What nearly every writer would avoid comes last.
pub fn select(view: &View<'_>, avoid: &[VolumeId], turn: usize) -> Vec<LeasedVolume> {
    let mut chosen = Vec::new();
    for size in SIZES {
        let mut by_primary: BTreeMap<NodeId, Vec<LeasedVolume>> = BTreeMap::new();
        for (id, volume) in view.state.open_volumes() {
            let Some(primary) = volume.members.first() else { continue };
            let leasable = volume.class.size == size
                && !avoid.contains(&id)
                && view.writable(id, volume)
                && view.fill(id, volume) != Fill::Full;
            if leasable {
                let replicas = view.state.addresses(volume);
                let leased = LeasedVolume { volume: id, epoch: volume.epoch, class: size, replicas };
                by_primary.entry(primary.node).or_default().push(leased);
            }
        }
        chosen.extend(spread(by_primary, turn, WRITE_LEASE_VOLUMES_MAX / SIZES.len()));
    }
    chosen
}

/// One of each primary in turn, until there are enough.
fn spread(by_primary: BTreeMap<NodeId, Vec<LeasedVolume>>, turn: usize, most: usize) -> Vec<LeasedVolume> {
    let mut lists: Vec<Vec<LeasedVolume>> = by_primary.into_values().collect();
    let count = lists.len().max(1);
    lists.rotate_left(turn.checked_rem(count).unwrap_or(0));
    let mut chosen = Vec::new();
    while chosen.len() < most && lists.iter().any(|list| !list.is_empty()) {
        for list in &mut lists {
            if chosen.len() < most && !list.is_empty() {
                chosen.push(list.remove(0));
            }
        }
    }
    chosen
}

/// Whether a lease has a volume for every class.
pub fn covers_all(volumes: &[LeasedVolume]) -> bool {
    SIZES.iter().all(|size| volumes.iter().any(|volume| volume.class == *size))
}

/// Why `volumes` do not cover every class; `None` where they do.
pub fn shortage(view: &View<'_>, volumes: &[LeasedVolume]) -> Option<Shortage> {
    let missing = SIZES.into_iter().find(|size| volumes.iter().all(|volume| volume.class != *size))?;
    let mut speaking = view.live.nodes().filter(|(node, _)| view.live.speaks(*node, view.now)).peekable();
    if speaking.peek().is_none() {
        return Some(Shortage::NoServers);
    }
    if speaking.all(|(_, live)| live.free_bytes < view.policy.free_bytes_min) {
        return Some(Shortage::NoRoom);
    }
    Some(Shortage::NotYet(missing))
}
