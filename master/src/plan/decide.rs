//! What the leader should propose, and what should go down to the volume servers.

use std::collections::BTreeMap;

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::model::{SizeClass, VolumeState};

use super::{Fill, SIZES, View};
use crate::live::Down;
use crate::state::{Class, Command, Job, NewVolume, Volume};

/// What to do next. Deciding again after it is done decides nothing new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be proposed.
    pub commands: Vec<Command>,
    /// To be sent.
    pub down: Vec<(NodeId, Down)>,
}

/// What to do next.
pub fn decide(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    for (id, volume) in view.state.open_volumes() {
        match volume.state {
            VolumeState::Creating => creating(view, id, volume, &mut plan),
            VolumeState::Writable => writable(view, id, volume, &mut plan),
            VolumeState::Sealed => {}
        }
    }
    for Job::Seal { volume, epoch } in view.state.jobs.values() {
        sealing(view, *volume, *epoch, &mut plan);
    }
    let new = growth(view);
    if !new.is_empty() {
        plan.commands.push(Command::Create(new));
    }
    plan
}

/// A volume opens once every member has it; members that don't are told again.
fn creating(view: &View<'_>, id: VolumeId, volume: &Volume, plan: &mut Plan) {
    let mut everywhere = true;
    for member in &volume.members {
        let report = view.live.report(member.node, id, view.now);
        if report.is_some_and(|r| r.epoch == volume.epoch && r.state == VolumeState::Writable) {
            continue;
        }
        everywhere = false;
        if report.is_none() && view.live.due(member.node, id, volume.epoch, view.now) {
            let replicas = view.state.addresses(volume);
            let class = volume.class.size;
            plan.down.push((member.node, Down::Create { volume: id, epoch: volume.epoch, class, replicas }));
        }
    }
    if everywhere {
        plan.commands.push(Command::Opened { volume: id, epoch: volume.epoch });
    }
}

/// A full volume is sealed, and one that a member took out of service for good.
fn writable(view: &View<'_>, id: VolumeId, volume: &Volume, plan: &mut Plan) {
    if view.state.sealing(id).is_some() {
        return;
    }
    let reports = || volume.members.iter().filter_map(|member| view.live.report(member.node, id, view.now));
    let passed = reports().any(|report| report.state == VolumeState::Sealed || report.epoch > volume.epoch);
    if passed || view.fill(id, volume) == Fill::Full {
        let fence = reports().map(|report| report.epoch).max().unwrap_or(Epoch(0));
        plan.commands.push(Command::Seal { volume: id, epoch: volume.epoch, fence });
    }
}

/// A volume is sealed once a member has durably taken the higher epoch: an append needs all of them, so one is enough
/// to fence it. Members that live must all have answered, so that the map never says less than they know.
fn sealing(view: &View<'_>, id: VolumeId, epoch: Epoch, plan: &mut Plan) {
    let Some(volume) = view.state.volumes.get(&id) else { return };
    let (mut answered, mut waited_for) = (0, 0);
    for member in &volume.members {
        match view.live.report(member.node, id, view.now) {
            Some(report) if report.epoch >= epoch && report.state == VolumeState::Sealed => answered += 1,
            Some(_) => {
                waited_for += 1;
                if view.live.due(member.node, id, epoch, view.now) {
                    plan.down.push((member.node, Down::Seal { volume: id, epoch }));
                }
            }
            // Gone, or it has lost the volume: it can't acknowledge appends either.
            None => {}
        }
    }
    if answered > 0 && waited_for == 0 {
        plan.commands.push(Command::Sealed { volume: id, epoch });
    }
}

/// Ready and existing volumes of one class on one primary.
#[derive(Default, Clone, Copy)]
struct Count {
    ready: usize,
    all: usize,
}

/// Growth before need: every server with room has its volumes of each class ready, and successors for those that are
/// nearly full or that writers can't use.
fn growth(view: &View<'_>) -> Vec<NewVolume> {
    let mut counts: BTreeMap<(NodeId, SizeClass), Count> = BTreeMap::new();
    for (id, volume) in view.state.open_volumes() {
        let Some(primary) = volume.members.first() else { continue };
        let fill = view.fill(id, volume);
        let count = counts.entry((primary.node, volume.class.size)).or_default();
        let is_ready = volume.state == VolumeState::Creating || view.writable(id, volume);
        count.ready += usize::from(is_ready && fill == Fill::Roomy && !view.live.suspected(id, view.now));
        count.all += usize::from(fill != Fill::Full && view.state.sealing(id).is_none());
    }
    let mut new = Vec::new();
    for (node, live) in view.live.nodes() {
        if live.free_bytes < view.policy.free_bytes_min || !usable(view, node) {
            continue;
        }
        for size in SIZES {
            let count = counts.get(&(node, size)).copied().unwrap_or_default();
            let wanted = view.policy.active_per_class.saturating_sub(count.ready);
            let allowed = view.policy.active_per_class_max.saturating_sub(count.all);
            if let Some(nodes) = placement(view, node) {
                let replicas = view.state.configuration.replicas;
                let tier = view.state.nodes.get(&node).map(|info| info.tier.clone()).unwrap_or_default();
                let class = Class { size, replicas, tier, collection: String::new() };
                let volume = NewVolume { class, nodes };
                new.extend(std::iter::repeat_n(volume, wanted.min(allowed)));
            }
        }
    }
    new
}

/// Whether a server can be told to create volumes: it is registered, connected and has said what it holds.
fn usable(view: &View<'_>, node: NodeId) -> bool {
    view.live.speaks(node, view.now) && view.state.nodes.contains_key(&node)
}

/// The primary and the other replicas: of the same tier, in racks of their own where that is possible, those with the
/// most room first. `None` where there are too few servers.
fn placement(view: &View<'_>, primary: NodeId) -> Option<Vec<NodeId>> {
    let others_wanted = usize::from(view.state.configuration.replicas).checked_sub(1)?;
    let info = view.state.nodes.get(&primary)?;
    let mut others: Vec<_> = view
        .live
        .nodes()
        .filter(|(node, live)| {
            *node != primary && live.free_bytes >= view.policy.free_bytes_min && usable(view, *node)
        })
        .filter_map(|(node, live)| view.state.nodes.get(&node).map(|other| (node, live, other)))
        .filter(|(_, _, other)| other.tier == info.tier)
        .map(|(node, live, other)| (other.rack == info.rack, std::cmp::Reverse(live.free_bytes), node))
        .collect();
    others.sort_unstable();
    let chosen: Vec<NodeId> = others.iter().take(others_wanted).map(|(_, _, node)| *node).collect();
    (chosen.len() == others_wanted).then(|| std::iter::once(primary).chain(chosen).collect())
}
