//! Which volumes a writer gets.

use std::collections::BTreeMap;
use std::time::Duration;

use hay_common::ids::{NodeId, VolumeId};
use hay_common::limits::WRITE_LEASE_VOLUMES_MAX;
use hay_common::model::{LeasedVolume, SizeClass};

use super::growth::{Excluded, excluded};
use super::placement::Places;
use super::{Fill, SIZES, View};

/// Why a lease does not cover every class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// No volume server has reported yet.
    NoServers,
    /// In no tier there are as many volume servers as a new volume needs.
    TooFew {
        /// The tier that has most.
        tier: String,
        /// How many it has that can take a volume, if there is room.
        there: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// There would be enough, if they had room above their reserves.
    NoRoom {
        /// How many have.
        roomy: usize,
        /// How many there must be.
        wanted: usize,
    },
    /// New volumes were lost to their first appends.
    Failing {
        /// Which contents can't be written.
        size: SizeClass,
        /// When the next are made.
        wait: Duration,
        /// What was said last of a server that failed.
        reason: String,
    },
    /// Volumes are being made, or all are avoided.
    NotYet(SizeClass),
}

/// Up to [`WRITE_LEASE_VOLUMES_MAX`] writable volumes: as many of each class, spread over primaries. `turn` moves the
/// start, so that not all writers use the same. Whichever one server fails, there is a volume of each class without it,
/// where the cluster has one; it stands as far in front as can be, for that is where a writer goes on.
pub fn select(view: &View<'_>, avoid: &[VolumeId], turn: usize) -> Vec<LeasedVolume> {
    let mut chosen = Vec::new();
    let places = Places::by_tier(view);
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
                let places = places.get(volume.class.tier.as_str());
                let rank = if !nodes.iter().all(|node| takes_more(view, *node)) {
                    Rank::Doubtful
                } else if places.is_some_and(|places| places.crowd(view, &nodes)) {
                    Rank::Crowded
                } else {
                    Rank::Good
                };
                by_primary.entry(primary.node).or_default().push(Candidate { leased, nodes, rank });
            }
        }
        let mut candidates = spread(by_primary, turn);
        let best = candidates.iter().map(|candidate| candidate.rank).min();
        candidates.retain(|candidate| Some(candidate.rank) == best);
        chosen.extend(covering(candidates, WRITE_LEASE_VOLUMES_MAX / SIZES.len()));
    }
    chosen
}

struct Candidate {
    leased: LeasedVolume,
    nodes: Vec<NodeId>,
    rank: Rank,
}

/// What is not good is leased only where there is nothing better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    /// Its servers stand closer together than they must: made while one elsewhere was under suspicion.
    Crowded,
    /// A server of it is full, has just gone or has just failed.
    Doubtful,
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
    let wanted = usize::from(view.state.configuration.replicas);
    let mut tiers: BTreeMap<&str, Tier> = BTreeMap::new();
    for (node, info) in view.state.nodes.iter().filter(|(node, _)| view.live.speaks(**node, view.now)) {
        let why = excluded(view, *node);
        let tier = tiers.entry(&info.tier).or_default();
        tier.there += usize::from(!matches!(why, Some(Excluded::Broken(_))));
        tier.roomy += usize::from(!matches!(why, Some(Excluded::Broken(_) | Excluded::NoRoom)));
    }
    let Some((name, most)) = tiers.iter().max_by_key(|(_, tier)| tier.there) else {
        return Some(Shortage::NoServers);
    };
    if most.there < wanted {
        return Some(Shortage::TooFew { tier: (*name).to_owned(), there: most.there, wanted });
    }
    let roomy = tiers.values().map(|tier| tier.roomy).max().unwrap_or(0);
    if roomy < wanted {
        return Some(Shortage::NoRoom { roomy, wanted });
    }
    let paused = tiers.iter().filter(|(_, tier)| tier.roomy >= wanted);
    match paused.map(|(name, _)| view.live.growth_pause(name, missing, view.now)).min().flatten() {
        Some(wait) => Some(Shortage::Failing { size: missing, wait, reason: last_failure(view) }),
        None => Some(Shortage::NotYet(missing)),
    }
}

/// Servers of a tier that can take volumes, but for their disks; and those of them that have room.
#[derive(Default)]
struct Tier {
    there: usize,
    roomy: usize,
}

/// In the words of the server that met it.
fn last_failure(view: &View<'_>) -> String {
    let said = view.state.nodes.keys().filter_map(|node| view.live.accusation(*node));
    let last = said.max_by_key(|accusation| accusation.at);
    let by = |node: NodeId| view.state.peer(node).address;
    last.map(|said| format!("{} says: {}", by(said.by), said.reason)).unwrap_or_default()
}
