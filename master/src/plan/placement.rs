//! On which servers a new volume goes.

use std::collections::{BTreeMap, BTreeSet};

use hay_common::ids::NodeId;
use hay_common::limits::GIB;
use hay_common::model::SizeClass;

use super::View;
use super::growth::Census;
use crate::state::Node;

/// Whether a server shares its zone, and its rack, with one of `others`. A rack's name means one within a zone.
pub(super) fn shares<'a>(info: &Node, others: impl Iterator<Item = &'a Node> + Clone) -> (bool, bool) {
    let same_zone = |other: &&Node| other.zone == info.zone;
    (others.clone().any(|o| same_zone(&o)), others.clone().any(|o| same_zone(&o) && o.rack == info.rack))
}

/// How many zones and racks there are among servers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    zones: usize,
    racks: usize,
}

impl Places {
    pub fn of(view: &View<'_>, servers: impl Iterator<Item = NodeId>) -> Self {
        let infos: Vec<&Node> = servers.filter_map(|node| view.state.nodes.get(&node)).collect();
        let zones: BTreeSet<&str> = infos.iter().map(|info| info.zone.as_str()).collect();
        let racks: BTreeSet<(&str, &str)> =
            infos.iter().map(|info| (info.zone.as_str(), info.rack.as_str())).collect();
        Self { zones: zones.len(), racks: racks.len() }
    }

    /// Those of each tier's servers that are there.
    pub fn by_tier<'a>(view: &View<'a>) -> BTreeMap<&'a str, Self> {
        let mut tiers: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for (node, info) in view.state.nodes.iter().filter(|(node, _)| view.live.stands(**node, view.now)) {
            tiers.entry(&info.tier).or_default().push(*node);
        }
        tiers.into_iter().map(|(tier, nodes)| (tier, Self::of(view, nodes.into_iter()))).collect()
    }

    /// Whether these servers stand closer together than they need to among servers of such places.
    pub fn crowd(&self, view: &View<'_>, nodes: &[NodeId]) -> bool {
        if self.zones <= 1 && self.racks <= 1 {
            return false;
        }
        let own = Self::of(view, nodes.iter().copied());
        own.zones < self.zones.min(nodes.len()) || own.racks < self.racks.min(nodes.len())
    }
}

/// The primary and the other replicas: of the same tier; that did not fail each other; the least suspicious; in zones, then in racks of their own where
/// that is possible; with other partners than the primary's other volumes have; where there is least; where there is room.
/// `None` where there are too few servers.
pub(super) fn placement(
    view: &View<'_>,
    census: &Census,
    primary: NodeId,
    size: SizeClass,
    usable: &[NodeId],
) -> Option<Vec<NodeId>> {
    let nodes = &view.state.nodes;
    let tier = &nodes.get(&primary)?.tier;
    let mut placed = vec![primary];
    for _ in 1..view.state.configuration.replicas {
        let chosen = placed.iter().filter_map(|node| nodes.get(node));
        let candidates = usable.iter().filter(|node| !placed.contains(*node)).filter_map(|node| {
            let info = nodes.get(node).filter(|info| info.tier == *tier)?;
            let room = view.live.node(*node).map_or(0, |live| live.free_bytes / GIB);
            let shared = shares(info, chosen.clone());
            let (pairs, load) = (census.pairs(primary, *node, size), census.load(*node, size));
            let apart = placed.iter().filter(|chosen| view.live.are_apart(**chosen, *node, view.now)).count();
            let doubts = (apart, doubt(view, *node));
            Some((doubts, shared, pairs, load, std::cmp::Reverse(room), *node))
        });
        let (_, _, _, _, _, next) = candidates.min()?;
        placed.push(next);
    }
    Some(placed)
}

/// How little a server is to be counted on. What is said of one that is well nevertheless is not believed.
fn doubt(view: &View<'_>, node: NodeId) -> usize {
    if view.live.is_well(node, view.now) { 0 } else { 1 + view.live.suspicion(node, view.now) }
}
