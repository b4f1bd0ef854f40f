//! How a sealed volume comes back to its number of copies.

use hay_common::ids::{NodeId, VolumeId};
use hay_common::model::VolumeState;

use super::View;
use super::growth::{shares, usable};
use crate::state::{Part, Volume};

/// One server to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairStep {
    /// Who.
    pub target: NodeId,
    /// The member whose place it takes.
    pub replaces: Option<NodeId>,
    /// Whether it is under way already.
    pub running: bool,
}

/// What a repair does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Fills whose targets are gone: given up first.
    pub cancel: Vec<NodeId>,
    /// Who is filled.
    pub steps: Vec<RepairStep>,
    /// Whole copies now.
    pub whole: usize,
    /// How many there should be.
    pub wanted: usize,
    /// Whether all copies that are there may lack needles.
    pub unsure: bool,
}

/// Why a volume can't be repaired now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Irreparable {
    /// There is no such volume.
    #[error("there is no such volume")]
    Unknown,
    /// It takes appends, or is about to be sealed.
    #[error("the volume is not sealed; it is sealed by itself when one of its servers fails")]
    NotSealed,
    /// Nobody that holds it is there.
    #[error("no server that holds the volume is there: bring one back first")]
    NoSource,
    /// Nobody could take it.
    #[error("no other volume server has room for another copy of the volume")]
    NoTarget,
}

#[derive(PartialEq)]
enum Health {
    Whole,
    /// It has missed a seal, and nothing else: it is told again and again, and no source until it has taken it.
    Behind,
    /// There, but it may lack needles.
    Lacking,
    /// Dead, or the volume can't be used there.
    Lost,
}

/// What would bring a volume back to its number of copies.
///
/// # Errors
/// See [`Irreparable`].
pub fn repair(view: &View<'_>, id: VolumeId) -> Result<Repair, Irreparable> {
    let volume = view.state.volumes.get(&id).ok_or(Irreparable::Unknown)?;
    if volume.state != VolumeState::Sealed {
        return Err(Irreparable::NotSealed);
    }
    let mut plan = Repair { wanted: usize::from(volume.class.replicas), ..Repair::default() };
    for (target, replaces) in view.state.fills(id) {
        match view.live.speaks(target, view.now) {
            true => plan.steps.push(RepairStep { target, replaces, running: true }),
            false => plan.cancel.push(target),
        }
    }
    let replicas: Vec<(NodeId, Health)> = volume
        .members
        .iter()
        .filter(|member| member.part == Part::Replica)
        .map(|member| (member.node, health(view, id, volume, member.node)))
        .collect();
    let count = |wanted: Health| replicas.iter().filter(|(_, health)| *health == wanted).count();
    plan.whole = count(Health::Whole);
    let sound = plan.whole + count(Health::Behind);
    let there = sound + count(Health::Lacking);
    if there == 0 {
        return Err(Irreparable::NoSource);
    }
    plan.unsure = sound == 0;
    if sound > 0 {
        // Nothing is lost with what such a target holds: a sound replica has it all.
        give_up_failing(view, id, &mut plan);
    }
    let lacking = replicas.iter().filter(|(_, health)| *health == Health::Lacking).map(|(node, _)| *node);
    let in_place = |target| RepairStep { target, replaces: None, running: false };
    if sound > 0 {
        plan.steps.extend(lacking.map(in_place));
    } else if there >= 2 && plan.steps.is_empty() {
        // They complete each other one at a time: who is being filled is nobody's source. The one that holds least first,
        // so that it is the other's turn when all of that has been copied. None can tell what all have lost.
        let needles =
            |node: &NodeId| view.live.report(*node, id, view.now).map_or(0, |report| report.needles);
        plan.steps.extend(lacking.min_by_key(needles).map(in_place));
    }
    let coming = plan.steps.iter().filter(|step| step.running || step.replaces.is_some()).count();
    let missing = plan.wanted.saturating_sub(there + coming);
    let claimed: Vec<NodeId> = plan.steps.iter().filter_map(|step| step.replaces).collect();
    let mut lost = replicas.iter().filter(|(node, h)| *h == Health::Lost && !claimed.contains(node));
    for _ in 0..missing {
        let replaces = lost.next().map(|(node, _)| *node);
        let Some(target) = target(view, id, volume, &plan, replaces) else {
            return if plan.steps.is_empty() { Err(Irreparable::NoTarget) } else { Ok(plan) };
        };
        plan.steps.push(RepairStep { target, replaces, running: false });
    }
    Ok(plan)
}

/// Those that are being filled and say that they can't be, now or ever: others may do.
fn give_up_failing(view: &View<'_>, id: VolumeId, plan: &mut Repair) {
    let fails = |step: &RepairStep| {
        let report = view.live.report(step.target, id, view.now);
        report.is_some_and(|report| report.read_only_reason.is_some())
    };
    let (failing, running) = std::mem::take(&mut plan.steps).into_iter().partition(fails);
    plan.steps = running;
    let failing: Vec<RepairStep> = failing;
    plan.cancel.extend(failing.iter().map(|step| step.target));
}

fn health(view: &View<'_>, id: VolumeId, volume: &Volume, node: NodeId) -> Health {
    match view.live.report(node, id, view.now) {
        None => Health::Lost,
        Some(report) if report.read_only_reason.is_some() => Health::Lost,
        Some(report) if report.incomplete || report.filling => Health::Lacking,
        Some(report) if report.epoch < volume.epoch || report.state != VolumeState::Sealed => Health::Behind,
        Some(_) => Health::Whole,
    }
}

/// A server that has no part of the volume, away from those that have.
fn target(
    view: &View<'_>,
    id: VolumeId,
    volume: &Volume,
    plan: &Repair,
    replaces: Option<NodeId>,
) -> Option<NodeId> {
    let size = volume.members.iter().filter_map(|m| view.live.report(m.node, id, view.now));
    let size = size.map(|report| report.size_bytes).max().unwrap_or(0);
    let stay = volume.members.iter().map(|m| m.node).filter(|node| Some(*node) != replaces);
    let stay: Vec<_> = stay.chain(plan.steps.iter().map(|step| step.target)).collect();
    let infos = stay.iter().filter_map(|node| view.state.nodes.get(node));
    let is_new = |node: &NodeId| {
        !volume.members.iter().any(|m| m.node == *node) && !plan.steps.iter().any(|step| step.target == *node)
    };
    let candidates = view.live.nodes().filter(|(node, _)| is_new(node) && usable(view, *node));
    let ranked = candidates.filter_map(|(node, live)| {
        let info = view.state.nodes.get(&node).filter(|info| info.tier == volume.class.tier)?;
        let room = live.free_bytes.checked_sub(view.policy.free_bytes_min.saturating_add(size))?;
        Some((shares(info, infos.clone()), std::cmp::Reverse(room), node))
    });
    ranked.min().map(|(_, _, node)| node)
}
