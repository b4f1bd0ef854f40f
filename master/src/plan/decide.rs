//! What the leader should propose, and what should go down to the volume servers.

use hay_common::ids::{Epoch, NodeId, VolumeId};
use hay_common::limits::{HEARTBEAT_VOLUMES_MAX, VOLUME_CREATE_PATIENCE};
use hay_common::model::VolumeState;

use super::growth::growth;
use super::{Fill, View, confirm};
use crate::live::{Down, VolumeReport};
use crate::state::{Command, Job, Part, Volume};

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
    for job in view.state.jobs.values() {
        match job {
            Job::Seal { volume, epoch } => sealing(view, *volume, *epoch, &mut plan),
            Job::Fill { volume, target, replaces } => filling(view, *volume, *target, *replaces, &mut plan),
        }
    }
    for (node, mut news) in confirm::changes(view) {
        while !news.is_empty() {
            let rest = news.split_off(news.len().min(HEARTBEAT_VOLUMES_MAX));
            plan.down.push((node, Down::Confirm(std::mem::replace(&mut news, rest))));
        }
    }
    let new = growth(view);
    if !new.is_empty() {
        plan.commands.push(Command::Create(new));
    }
    plan
}

/// A volume opens once every member has it; members that don't are told again. Where one is dead, or lives and can't make
/// it, the volume is given up: no writer knows of it yet, and another one costs nothing.
fn creating(view: &View<'_>, id: VolumeId, volume: &Volume, plan: &mut Plan) {
    if volume.members.iter().any(|member| cannot_create(view, id, member.node)) {
        plan.commands.push(Command::Abandon { volume: id, epoch: volume.epoch });
        return;
    }
    let mut everywhere = true;
    for member in &volume.members {
        let report = view.live.report(member.node, id, view.now);
        if report.is_some_and(|r| r.epoch == volume.epoch && r.state == VolumeState::Writable) {
            continue;
        }
        everywhere = false;
        if report.is_none() && view.live.due(member.node, id, volume.epoch, view.now) {
            let members = view.state.peers(volume);
            let class = volume.class.size;
            plan.down.push((member.node, Down::Create { volume: id, epoch: volume.epoch, class, members }));
        }
    }
    if everywhere {
        plan.commands.push(Command::Opened { volume: id, epoch: volume.epoch });
    }
}

fn cannot_create(view: &View<'_>, id: VolumeId, node: NodeId) -> bool {
    let asked = view.live.asked_to_create(node, id);
    let is_late = asked.is_some_and(|at| view.now.saturating_sub(at) >= VOLUME_CREATE_PATIENCE);
    view.live.report(node, id, view.now).is_none() && (!view.live.alive(node, view.now) || is_late)
}

/// A full volume is sealed, and one that a member took out of service for good. So is one of several replicas of which one
/// can't be written to, or has lost the end of what it had: only sealed volumes are compared and repaired.
fn writable(view: &View<'_>, id: VolumeId, volume: &Volume, plan: &mut Plan) {
    if view.state.sealing(id).is_some() {
        return;
    }
    let reports = || volume.members.iter().filter_map(|member| view.live.report(member.node, id, view.now));
    let passed = reports().any(|report| report.state == VolumeState::Sealed || report.epoch > volume.epoch);
    let lacks = volume.members.len() > 1 && reports().any(|report| report.incomplete);
    if passed || lacks || has_lost_a_replica(view, id, volume) || view.fill(id, volume) == Fill::Full {
        let fence = reports().map(|report| report.epoch).max().unwrap_or(Epoch(0));
        plan.commands.push(Command::Seal { volume: id, epoch: volume.epoch, fence });
    }
}

fn has_lost_a_replica(view: &View<'_>, id: VolumeId, volume: &Volume) -> bool {
    if volume.members.len() < 2 {
        return false;
    }
    let report = |node| view.live.report(node, id, view.now);
    let is_lost = |node| match report(node) {
        Some(report) => report.read_only_reason.is_some(),
        None => !view.live.alive(node, view.now) || view.live.speaks(node, view.now),
    };
    // Without a survivor there is nobody to fence it, and nobody to write to it either: they may all come back.
    let has_survivor = volume.members.iter().any(|member| report(member.node).is_some());
    has_survivor && volume.members.iter().any(|member| is_lost(member.node))
}

/// Whether a member has durably taken a seal.
fn has_sealed(report: &VolumeReport, epoch: Epoch) -> bool {
    report.epoch >= epoch && report.state == VolumeState::Sealed && !report.filling
}

/// A volume is sealed once a member has durably taken the higher epoch: an append needs all of them, so one is enough
/// to fence it, and none is too few. Members that live should all have answered, so that the map does not say less than
/// they know. Not waited for is one that others could not reach, which hears of it when it comes back, and one whose own
/// disk has failed: it may never be able to answer.
fn sealing(view: &View<'_>, id: VolumeId, epoch: Epoch, plan: &mut Plan) {
    let Some(volume) = view.state.volumes.get(&id) else { return };
    let (mut answered, mut waited_for) = (0, 0);
    for member in &volume.members {
        match view.live.report(member.node, id, view.now) {
            Some(report) if has_sealed(report, epoch) => answered += 1,
            Some(report) => {
                let has_failed = report.read_only_reason.is_some() && report.failed_replica.is_none();
                waited_for += usize::from(!has_failed && !view.live.failed(member.node, view.now));
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

/// A server is told to fill itself until it reports the volume sealed in the epoch of the repair. Only one that is whole then
/// takes another one's place.
fn filling(view: &View<'_>, id: VolumeId, target: NodeId, replaces: Option<NodeId>, plan: &mut Plan) {
    let Some(volume) = view.state.volumes.get(&id) else { return };
    let report = view.live.report(target, id, view.now);
    if let Some(report) = report.filter(|r| has_sealed(r, volume.epoch) && r.read_only_reason.is_none()) {
        let epoch = volume.epoch;
        plan.commands.push(match report.incomplete {
            false => Command::Filled { volume: id, epoch, target },
            true => Command::FilledInPart { volume: id, epoch, target },
        });
        return;
    }
    let is_source = |node: NodeId| node != target && view.live.report(node, id, view.now).is_some();
    let replicas = volume.members.iter().filter(|member| member.part == Part::Replica);
    let sources: Vec<_> =
        replicas.filter(|m| is_source(m.node)).map(|member| view.state.peer(member.node)).collect();
    // One whose file can't be written to is written anew, from what can be read of it where nobody else has it.
    let has_own = report.is_some_and(|report| report.read_only_reason.is_some());
    if sources.is_empty() && !has_own || !view.live.due(target, id, volume.epoch, view.now) {
        return;
    }
    let members = volume.members.iter().filter(|member| Some(member.node) != replaces);
    let members = members.map(|member| view.state.peer(member.node)).collect();
    let (epoch, class) = (volume.epoch, volume.class.size);
    plan.down.push((target, Down::Fill { volume: id, epoch, class, sources, members }));
}
