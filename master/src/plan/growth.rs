//! New volumes before they are needed, and on which servers.

use std::collections::BTreeMap;

use hay_common::ids::NodeId;
use hay_common::limits::{GIB, NODE_FAILED_VOLUMES_MAX};
use hay_common::model::{SizeClass, VolumeState};

use super::{Fill, SIZES, View};
use crate::state::{Class, NewVolume, Node};

/// Ready and existing volumes of one class on one primary.
#[derive(Default, Clone, Copy)]
struct Count {
    ready: usize,
    all: usize,
}

/// Where the volumes are that writers can use, and those that will be.
#[derive(Default)]
struct Census {
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
    fn pairs(&self, primary: NodeId, other: NodeId, size: SizeClass) -> usize {
        let shared = |(_, nodes): &&(SizeClass, Vec<NodeId>)| {
            nodes.first() == Some(&primary) && nodes.contains(&other)
        };
        self.ready.iter().filter(|(class, _)| *class == size).filter(shared).count()
    }

    /// Ready volumes of a class on a server.
    fn load(&self, node: NodeId, size: SizeClass) -> usize {
        self.ready.iter().filter(|(class, nodes)| *class == size && nodes.contains(&node)).count()
    }

    /// Whether writers of a class can do without a server.
    fn can_do_without(&self, node: NodeId, size: SizeClass) -> bool {
        self.ready.iter().any(|(class, nodes)| *class == size && !nodes.contains(&node))
    }
}

/// Growth before need: every server with room has its volumes of each class ready, and successors for those that are
/// nearly full or that writers can't use. Whichever server fails, writers have a volume of each class without it, where
/// there are servers enough. Where too few are above suspicion the others that speak must do: a suspicion is a guess, and
/// without volumes nothing is written for sure.
pub(super) fn growth(view: &View<'_>) -> Vec<NewVolume> {
    let well: Vec<NodeId> = candidates(view).filter(|node| view.live.is_well(*node, view.now)).collect();
    let is_enough = well.len() >= usize::from(view.state.configuration.replicas);
    let (census, usable) = match is_enough {
        true => (Census::of(view, |node| view.live.is_well(node, view.now)), well),
        false => (Census::of(view, |node| view.live.stands(node, view.now)), candidates(view).collect()),
    };
    grow(view, census, &usable)
}

fn grow(view: &View<'_>, mut census: Census, usable: &[NodeId]) -> Vec<NewVolume> {
    let mut new = Vec::new();
    for node in usable {
        for size in SIZES {
            let count = census.count(*node, size);
            let wanted = view.policy.active_per_class.saturating_sub(count.ready);
            let allowed = view.policy.active_per_class_max.saturating_sub(count.all);
            for _ in 0..wanted.min(allowed) {
                let Some(placed) = placement(view, &census, *node, size, usable) else { break };
                census.add(size, &placed.nodes);
                new.push(new_volume(view, size, placed.nodes));
            }
        }
    }
    for node in usable {
        for size in SIZES {
            if census.can_do_without(*node, size) {
                continue;
            }
            if let Some(nodes) = without(view, &census, *node, size, usable) {
                census.add(size, &nodes);
                new.push(new_volume(view, size, nodes));
            }
        }
    }
    new
}

/// The servers of a volume that does without one of them; not at the price of racks or zones that are shared.
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
    let placed = placement(view, census, primary, size, &others)?;
    let usual = placement(view, census, primary, size, usable)?;
    (placed.shared <= usual.shared).then_some(placed.nodes)
}

fn new_volume(view: &View<'_>, size: SizeClass, nodes: Vec<NodeId>) -> NewVolume {
    let tier = nodes.first().and_then(|primary| view.state.nodes.get(primary)).map(|info| info.tier.clone());
    let replicas = view.state.configuration.replicas;
    NewVolume {
        class: Class { size, replicas, tier: tier.unwrap_or_default(), collection: String::new() },
        nodes,
    }
}

/// Whether new volumes may be put on a server: it is registered, connected, has said what it holds, has room, and has not
/// failed lately.
pub(super) fn usable(view: &View<'_>, node: NodeId) -> bool {
    view.live.is_well(node, view.now) && is_candidate(view, node)
}

/// The same of servers that others may have met a failure of.
fn candidates(view: &View<'_>) -> impl Iterator<Item = NodeId> {
    let stands = |node: &NodeId| view.live.stands(*node, view.now) && is_candidate(view, *node);
    view.live.nodes().map(|(id, _)| id).filter(stands)
}

fn is_candidate(view: &View<'_>, node: NodeId) -> bool {
    view.state.nodes.contains_key(&node)
        && view.live.node(node).is_some_and(|live| live.free_bytes >= view.policy.free_bytes_min)
        && view.live.failed_volumes(node) < NODE_FAILED_VOLUMES_MAX
}

struct Placed {
    nodes: Vec<NodeId>,
    /// How often a server shares its zone or rack with one before it.
    shared: (usize, usize),
}

/// Whether a server shares its zone, and its rack, with one of `others`. A rack's name means one within a zone.
pub(super) fn shares<'a>(info: &Node, others: impl Iterator<Item = &'a Node> + Clone) -> (bool, bool) {
    let same_zone = |other: &&Node| other.zone == info.zone;
    (others.clone().any(|o| same_zone(&o)), others.clone().any(|o| same_zone(&o) && o.rack == info.rack))
}

/// The primary and the other replicas: of the same tier; the least suspicious; in zones, then in racks of their own where
/// that is possible; with other partners than the primary's other volumes have; where there is least; where there is room.
/// `None` where there are too few servers.
fn placement(
    view: &View<'_>,
    census: &Census,
    primary: NodeId,
    size: SizeClass,
    usable: &[NodeId],
) -> Option<Placed> {
    let nodes = &view.state.nodes;
    let tier = &nodes.get(&primary)?.tier;
    let mut placed = Placed { nodes: vec![primary], shared: (0, 0) };
    for _ in 1..view.state.configuration.replicas {
        let chosen = placed.nodes.iter().filter_map(|node| nodes.get(node));
        let candidates = usable.iter().filter(|node| !placed.nodes.contains(*node)).filter_map(|node| {
            let info = nodes.get(node).filter(|info| info.tier == *tier)?;
            let room = view.live.node(*node).map_or(0, |live| live.free_bytes / GIB);
            let (zone, rack) = shares(info, chosen.clone());
            let (pairs, load) = (census.pairs(primary, *node, size), census.load(*node, size));
            let suspicion = view.live.suspicion(*node, view.now);
            Some((suspicion, zone, rack, pairs, load, std::cmp::Reverse(room), *node))
        });
        let (_, zone, rack, _, _, _, next) = candidates.min()?;
        placed.shared.0 += usize::from(zone);
        placed.shared.1 += usize::from(rack);
        placed.nodes.push(next);
    }
    Some(placed)
}
