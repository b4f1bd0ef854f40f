//! New volumes before they are needed, and on which servers.

use std::collections::BTreeMap;

use hay_common::ids::{NodeId, VolumeId};
use hay_common::limits::NODE_FAILED_VOLUMES_MAX;
use hay_common::model::{SizeClass, VolumeState};

pub(super) use super::placement::shares;
use super::placement::{Places, placement};
use super::{Fill, SIZES, View};
use crate::state::{Class, NewVolume};

/// Ready and existing volumes of one class on one primary.
#[derive(Default, Clone, Copy)]
struct Count {
    ready: usize,
    all: usize,
}

/// Where the volumes are that writers can use, and those that will be.
#[derive(Default)]
pub(super) struct Census {
    counts: BTreeMap<(NodeId, SizeClass), Count>,
    /// The servers of each ready volume, the primary first.
    ready: Vec<(SizeClass, Vec<NodeId>)>,
}

impl Census {
    /// `stands`: whether a server may be counted on.
    fn of(view: &View<'_>, stands: impl Fn(NodeId) -> bool) -> Self {
        let mut census = Self::default();
        for (id, volume) in view.state.open_volumes() {
            let Some(primary) = volume.members.first() else { continue };
            let nodes: Vec<NodeId> = volume.members.iter().map(|member| member.node).collect();
            let fill = view.fill(id, volume);
            let are_alive = nodes.iter().all(|node| view.live.alive(*node, view.now));
            let are_there = nodes.iter().all(|node| stands(*node));
            let is_there = match volume.state {
                VolumeState::Creating => are_there,
                VolumeState::Writable | VolumeState::Sealed => view.writable(id, volume) && are_there,
            };
            let is_ready = is_there && fill == Fill::Roomy && !view.live.suspected(id, view.now);
            let count = census.counts.entry((primary.node, volume.class.size)).or_default();
            count.ready += usize::from(is_ready);
            // One that waits for a server that is dead comes back with it, and must not keep others from being made.
            count.all += usize::from(fill != Fill::Full && view.state.sealing(id).is_none() && are_alive);
            if is_ready {
                census.ready.push((volume.class.size, nodes));
            }
        }
        census
    }

    fn add(&mut self, size: SizeClass, nodes: &[NodeId]) {
        if let Some(primary) = nodes.first() {
            let count = self.counts.entry((*primary, size)).or_default();
            count.ready += 1;
            count.all += 1;
        }
        self.ready.push((size, nodes.to_vec()));
    }

    fn count(&self, node: NodeId, size: SizeClass) -> Count {
        self.counts.get(&(node, size)).copied().unwrap_or_default()
    }

    /// Ready volumes of a class with that primary that the other server has too.
    pub fn pairs(&self, primary: NodeId, other: NodeId, size: SizeClass) -> usize {
        let shared = |(_, nodes): &&(SizeClass, Vec<NodeId>)| {
            nodes.first() == Some(&primary) && nodes.contains(&other)
        };
        self.ready.iter().filter(|(class, _)| *class == size).filter(shared).count()
    }

    /// Ready volumes of a class on a server.
    pub fn load(&self, node: NodeId, size: SizeClass) -> usize {
        self.ready.iter().filter(|(class, nodes)| *class == size && nodes.contains(&node)).count()
    }

    /// Whether writers of a class can do without a server.
    fn can_do_without(&self, node: NodeId, size: SizeClass) -> bool {
        self.ready.iter().any(|(class, nodes)| *class == size && !nodes.contains(&node))
    }

    /// Whether writers of a class have a volume on some of these servers.
    fn has_any(&self, size: SizeClass, servers: &[NodeId]) -> bool {
        let is_there = |nodes: &[NodeId]| nodes.first().is_some_and(|primary| servers.contains(primary));
        self.ready.iter().any(|(class, nodes)| *class == size && is_there(nodes))
    }
}

/// Growth before need, in each tier: every server with room has its volumes of each class ready, and successors for those
/// that are nearly full or that writers can't use. Whichever server fails, writers have a volume of each class without it,
/// where there are servers enough. Servers that have failed each other get no volumes together.
///
/// Where too few are above suspicion the others that speak must do: a suspicion is a guess, and without volumes nothing is
/// written for sure. But then only what writers need is made, and when the last ones have failed, after a pause that grows:
/// where servers fail each other indeed, every volume is lost to its first append.
pub(super) fn growth(view: &View<'_>) -> Vec<NewVolume> {
    let mut tiers: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for node in candidates(view) {
        if let Some(info) = view.state.nodes.get(&node) {
            tiers.entry(&info.tier).or_default().push(node);
        }
    }
    tiers.iter().flat_map(|(tier, there)| in_tier(view, tier, there)).collect()
}

fn in_tier(view: &View<'_>, tier: &str, there: &[NodeId]) -> Vec<NewVolume> {
    let well: Vec<NodeId> = there.iter().copied().filter(|node| view.live.is_well(*node, view.now)).collect();
    let is_enough = well.len() >= usize::from(view.state.configuration.replicas);
    let mut census = Census::of(view, |node| match is_enough {
        true => view.live.is_well(node, view.now),
        false => view.live.stands(node, view.now),
    });
    let mut new = Vec::new();
    for size in SIZES {
        if is_enough {
            grow(view, &mut census, size, (&well, there), &mut new);
        }
        tide_over(view, &mut census, (tier, size), there, &mut new);
    }
    new
}

/// On servers that are `well`, of those that are `there`. Volumes that stand closer together than they must, because a server
/// elsewhere is under suspicion, only as writers need them: a volume keeps its places for good.
fn grow(
    view: &View<'_>,
    census: &mut Census,
    size: SizeClass,
    (well, there): (&[NodeId], &[NodeId]),
    new: &mut Vec<NewVolume>,
) {
    let places = Places::of(view, there.iter().copied());
    let is_good = |nodes: &Vec<NodeId>| !view.live.any_apart(nodes, view.now);
    for node in well {
        let count = census.count(*node, size);
        let wanted = view.policy.active_per_class.saturating_sub(count.ready);
        let allowed = view.policy.active_per_class_max.saturating_sub(count.all);
        for _ in 0..wanted.min(allowed) {
            let Some(nodes) = placement(view, census, *node, size, well).filter(is_good) else { break };
            if places.crowd(view, &nodes) && census.has_any(size, there) {
                break;
            }
            census.add(size, &nodes);
            new.push(new_volume(view, size, nodes));
        }
    }
    for node in well {
        if census.can_do_without(*node, size) {
            continue;
        }
        let nodes = without(view, census, *node, size, well).filter(is_good);
        if let Some(nodes) = nodes.filter(|nodes| !places.crowd(view, nodes)) {
            census.add(size, &nodes);
            new.push(new_volume(view, size, nodes));
        }
    }
}

/// The servers of a volume that does without one of them.
fn without(
    view: &View<'_>,
    census: &Census,
    node: NodeId,
    size: SizeClass,
    usable: &[NodeId],
) -> Option<Vec<NodeId>> {
    let others: Vec<NodeId> = usable.iter().copied().filter(|other| *other != node).collect();
    let allowed = |primary: &&NodeId| census.count(**primary, size).all < view.policy.active_per_class_max;
    let primary = *others.iter().filter(allowed).min_by_key(|other| census.count(**other, size).ready)?;
    placement(view, census, primary, size, &others)
}

/// What writers need, on whoever speaks: where they have nothing, one volume of each server, since some may do.
fn tide_over(
    view: &View<'_>,
    census: &mut Census,
    (tier, size): (&str, SizeClass),
    there: &[NodeId],
    new: &mut Vec<NewVolume>,
) {
    if census.has_any(size, there) {
        return;
    }
    let is_paused = view.live.growth_pause(tier, size, view.now).is_some();
    let may_be = |nodes: &Vec<NodeId>| !is_paused || !view.live.is_doubtful(nodes, view.now);
    for node in there {
        if census.count(*node, size).all < view.policy.active_per_class_max
            && let Some(nodes) = placement(view, census, *node, size, there).filter(may_be)
        {
            census.add(size, &nodes);
            new.push(new_volume(view, size, nodes));
        }
    }
}

fn new_volume(view: &View<'_>, size: SizeClass, nodes: Vec<NodeId>) -> NewVolume {
    let tier = nodes.first().and_then(|primary| view.state.nodes.get(primary)).map(|info| info.tier.clone());
    let replicas = view.state.configuration.replicas;
    NewVolume {
        class: Class { size, replicas, tier: tier.unwrap_or_default(), collection: String::new() },
        nodes,
    }
}

/// Why a server gets no new volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// It is not heard, or has not said yet all that it has.
    Silent,
    /// Its disk is full up to its reserve, or nearly.
    NoRoom,
    /// So many volumes of which it is a member have failed there, by its own fault.
    Broken(usize),
    /// Others have met a failure of it, lately.
    Suspected,
}

/// Why a server gets no new volumes, where it gets none.
pub fn excluded(view: &View<'_>, node: NodeId) -> Option<Excluded> {
    let Some(live) = view.live.node(node).filter(|_| view.live.stands(node, view.now)) else {
        return Some(Excluded::Silent);
    };
    // Not those that a repair has taken elsewhere.
    let is_member = |id: &VolumeId| {
        let volume = view.state.volumes.get(id);
        volume.is_some_and(|volume| volume.members.iter().any(|member| member.node == node))
    };
    let failed = view.live.failed_volumes(node).filter(is_member).count();
    if failed >= NODE_FAILED_VOLUMES_MAX {
        Some(Excluded::Broken(failed))
    } else if live.free_bytes < view.policy.free_bytes_min {
        Some(Excluded::NoRoom)
    } else {
        view.live.failed(node, view.now).then_some(Excluded::Suspected)
    }
}

/// Whether new volumes may be put on a server: it is registered, connected, has said what it holds, has room, and has not
/// failed lately.
pub(super) fn usable(view: &View<'_>, node: NodeId) -> bool {
    view.state.nodes.contains_key(&node) && excluded(view, node).is_none()
}

/// The same of servers that others may have met a failure of.
pub(super) fn candidates(view: &View<'_>) -> impl Iterator<Item = NodeId> {
    let does = |node: &NodeId| matches!(excluded(view, *node), None | Some(Excluded::Suspected));
    view.state.nodes.keys().copied().filter(does)
}
