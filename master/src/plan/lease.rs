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
/// start, so that not all writers use the same. Whichever one server fails, there is a volume of each class without it,
/// where the cluster has one; it stands as far in front as can be, for that is where a writer goes on.
pub fn select(view: &View<'_>, avoid: &[VolumeId], turn: usize) -> Vec<LeasedVolume> {
    let mut chosen = Vec::new();
    for size in SIZES {
        let mut by_primary: BTreeMap<NodeId, Vec<Candidate>> = BTreeMap::new();
        for (id, volume) in view.state.open_volumes() {
            let Some(primary) = volume.members.first() else { continue };
            let leasable = volume.class.size == size
                && !avoid.contains(&id)
                && view.writable(id, volume)
                && view.fill(id, volume) != Fill::Full;
            if leasable {
                let replicas = view.state.addresses(volume);
                let leased = LeasedVolume { volume: id, epoch: volume.epoch, class: size, replicas };
                let nodes: Vec<NodeId> = volume.members.iter().map(|member| member.node).collect();
                let is_good = nodes.iter().all(|node| takes_more(view, *node));
                by_primary.entry(primary.node).or_default().push(Candidate { leased, nodes, is_good });
            }
        }
        let mut candidates = spread(by_primary, turn);
        // Servers that are full, have just gone or have just failed: only where there is nothing else.
        if candidates.iter().any(|candidate| candidate.is_good) {
            candidates.retain(|candidate| candidate.is_good);
        }
        chosen.extend(covering(candidates, WRITE_LEASE_VOLUMES_MAX / SIZES.len()));
    }
    chosen
}

struct Candidate {
    leased: LeasedVolume,
    nodes: Vec<NodeId>,
    is_good: bool,
}

/// Whether a server of a volume is well and has room above its reserve; one that only just has none refuses by itself.
fn takes_more(view: &View<'_>, node: NodeId) -> bool {
    let has_room = |live: &crate::live::LiveNode| live.free_bytes >= view.policy.free_bytes_min;
    view.live.is_well(node, view.now) && view.live.node(node).is_some_and(has_room)
}

/// One of each primary in turn.
fn spread(by_primary: BTreeMap<NodeId, Vec<Candidate>>, turn: usize) -> Vec<Candidate> {
    let mut lists: Vec<_> = by_primary.into_values().map(Vec::into_iter).collect();
    let count = lists.len().max(1);
    lists.rotate_left(turn.checked_rem(count).unwrap_or(0));
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(lists.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// The first; then those that leave fewest servers that all chosen ones need; then by their order.
fn covering(mut candidates: Vec<Candidate>, most: usize) -> Vec<LeasedVolume> {
    let mut chosen = Vec::new();
    let mut needed: Option<Vec<NodeId>> = None;
    while chosen.len() < most && !candidates.is_empty() {
        let still = |c: &Candidate| {
            needed.as_ref().map_or(0, |needed| needed.iter().filter(|node| c.nodes.contains(node)).count())
        };
        let Some(place) =
            (0..candidates.len()).min_by_key(|at| candidates.get(*at).map_or(usize::MAX, still))
        else {
            break;
        };
        let next = candidates.remove(place);
        needed = Some(match needed {
            None => next.nodes,
            Some(needed) => needed.into_iter().filter(|node| next.nodes.contains(node)).collect(),
        });
        chosen.push(next.leased);
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
