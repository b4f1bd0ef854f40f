//! How a sealed volume comes back to its number of copies.
//!
//! No copy is dropped that may be the only one of a needle: a member gives way only to a copy that is whole, and as long as
//! every copy that is there may lack needles, copies are added and completed and none is replaced.

use hay_common::ids::{NodeId, VolumeId};
use hay_common::limits::{FILL_FAILURES_MAX, REPLICAS_MAX};
use hay_common::model::VolumeState;

use super::View;
use super::copies::{Copy, Worth, copies, is_completing};
use super::growth::{shares, usable};
use crate::state::Volume;

/// One server to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairStep {
    /// Who.
    pub target: NodeId,
    /// The member whose place it takes.
    pub replaces: Option<NodeId>,
    /// It has a copy, or should have: that is completed, or written anew.
    pub in_place: bool,
    /// Whether it is under way already.
    pub running: bool,
    /// What has kept it from its end so far.
    pub problem: Option<String>,
}

/// A fill that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// Whose.
    pub target: NodeId,
    /// Why, for people.
    pub reason: String,
    /// Its copy stays one of the volume's: it was one before.
    pub stays: bool,
}

/// What a repair does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Fills that are given up first.
    pub cancel: Vec<Cancelled>,
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
    /// It is not there everywhere yet.
    #[error("the volume is still being made; nothing was written to it")]
    NotOpened,
    /// It takes appends, or is about to be sealed.
    #[error(
        "the volume is not sealed; it is sealed by itself when one of its servers fails, or one of its copies may lack needles"
    )]
    NotSealed,
    /// Nobody that holds it is there.
    #[error("no server that holds the volume is there: bring one back first")]
    NoSource,
    /// Nobody could take it.
    #[error("no other volume server has room for another copy of the volume")]
    NoTarget,
}

/// What would bring a volume back to its number of copies.
///
/// # Errors
/// See [`Irreparable`].
pub fn repair(view: &View<'_>, id: VolumeId) -> Result<Repair, Irreparable> {
    let volume = view.state.volumes.get(&id).ok_or(Irreparable::Unknown)?;
    match volume.state {
        VolumeState::Creating => return Err(Irreparable::NotOpened),
        VolumeState::Writable => return Err(Irreparable::NotSealed),
        VolumeState::Sealed => {}
    }
    let copies = copies(view, id, volume);
    if !copies.iter().any(Copy::is_there) {
        return Err(Irreparable::NoSource);
    }
    let plan = Repair {
        wanted: usize::from(volume.class.replicas),
        whole: copies.iter().filter(|copy| copy.worth == Worth::Whole).count(),
        unsure: !copies.iter().any(Copy::knows_all),
        ..Repair::default()
    };
    let mut planner = Planner { view, id, volume, copies, plan };
    planner.go_on();
    planner.complete();
    planner.add();
    let Planner { plan, .. } = planner;
    let is_idle = plan.steps.is_empty() && plan.cancel.is_empty();
    let counted = planner.copies.iter().filter(|copy| copy.counts()).count();
    if is_idle && counted < plan.wanted { Err(Irreparable::NoTarget) } else { Ok(plan) }
}

struct Planner<'a> {
    view: &'a View<'a>,
    id: VolumeId,
    volume: &'a Volume,
    copies: Vec<Copy>,
    plan: Repair,
}

impl Planner<'_> {
    fn is_sound(&self) -> bool {
        self.copies.iter().any(Copy::is_sound)
    }

    /// What is under way goes on, unless there is nobody left to copy from, or it gets nowhere and another server can take
    /// over. What a target holds already is given up only where a sound copy has it all.
    fn go_on(&mut self) {
        for (target, replaces) in self.view.state.fills(self.id).collect::<Vec<_>>() {
            let report = self.view.live.report(target, self.id, self.view.now);
            let is_away = !self.view.live.speaks(target, self.view.now);
            let problem = match is_away {
                true => Some("its server does not answer".to_owned()),
                false => report.and_then(|report| report.fill_problem.clone()),
            };
            let fails = report.is_some_and(|report| report.fill_failures >= FILL_FAILURES_MAX);
            let own = self.copies.iter().find(|copy| copy.node == target).copied();
            let in_place = own.is_some();
            if own.is_some_and(|own| own.is_there() && !own.unfit && !self.has_another(target)) {
                let reason = "nobody is left to copy from".to_owned();
                self.plan.cancel.push(Cancelled { target, reason, stays: true });
                continue;
            }
            let replaced = if in_place { Some(target) } else { replaces };
            let instead = match (is_away || fails) && self.is_sound() {
                true => self.target(replaced),
                false => None,
            };
            match instead {
                Some(other) => {
                    let reason = problem.unwrap_or_else(|| "it can't be filled".to_owned());
                    self.plan.cancel.push(Cancelled { target, reason, stays: in_place });
                    self.step(other, replaced, false);
                }
                None => {
                    self.plan.steps.push(RepairStep { target, replaces, in_place, running: true, problem });
                }
            }
        }
    }

    /// Copies that lack needles get them where they are. Where none is sound they complete each other one at a time: who is
    /// being completed is nobody's source. The one that holds least first, so that it is the other's turn when all of that has
    /// been copied. None can tell what all have lost.
    fn complete(&mut self) {
        let lacking: Vec<Copy> =
            self.idle().filter(|copy| copy.worth == Worth::Lacking && !copy.unfit).collect();
        if self.is_sound() {
            lacking.into_iter().for_each(|copy| self.step(copy.node, None, true));
        } else if self.plan.steps.is_empty()
            && let Some(least) = lacking.iter().min_by_key(|copy| copy.needles)
            && self.has_another(least.node)
        {
            self.step(least.node, None, true);
        }
    }

    /// Further copies, in the places of those that are lost; and where no other server can take one, written anew at a server
    /// that is there and has none that is of use.
    fn add(&mut self) {
        let mut replaceable: Vec<Copy> = self.idle().filter(|copy| !copy.counts()).collect();
        replaceable.sort_by_key(Copy::must_be_rebuilt);
        let may_replace = !self.plan.unsure;
        for copy in replaceable {
            if self.missing() == 0 {
                return;
            }
            // The last one is copied from, and stays.
            let has_another = self.copies.iter().any(|other| other.node != copy.node);
            let replaces = (may_replace && has_another).then_some(copy.node);
            match self.target(replaces) {
                Some(target) => self.step(target, replaces, false),
                // Its sources, and it may be one of them, must not be taken away from others.
                None if copy.must_be_rebuilt() && (self.is_sound() || self.plan.steps.is_empty()) => {
                    self.step(copy.node, None, true);
                }
                None => {}
            }
        }
        while self.missing() > 0 {
            let Some(target) = self.target(None) else { return };
            self.step(target, None, false);
        }
    }

    fn step(&mut self, target: NodeId, replaces: Option<NodeId>, in_place: bool) {
        self.plan.steps.push(RepairStep { target, replaces, in_place, running: false, problem: None });
    }

    /// Copies that no step is about, and that were not given up just now for want of a source.
    fn idle(&self) -> impl Iterator<Item = Copy> {
        let steps = &self.plan.steps;
        let is_busy =
            |node: NodeId| steps.iter().any(|step| step.target == node || step.replaces == Some(node));
        let cancelled = |node| self.plan.cancel.iter().any(|cancelled| cancelled.target == node);
        self.copies.iter().copied().filter(move |copy| !is_busy(copy.node) && !cancelled(copy.node))
    }

    /// Whether another copy can be copied from.
    fn has_another(&self, node: NodeId) -> bool {
        self.copies
            .iter()
            .any(|copy| copy.node != node && copy.is_there() && !is_completing(self.volume, copy.node))
    }

    /// Copies that nobody has yet, and that no step will bring.
    fn missing(&self) -> usize {
        let steps = &self.plan.steps;
        let leaves = |copy: &Copy| steps.iter().any(|step| step.replaces == Some(copy.node));
        let stay = self.copies.iter().filter(|copy| copy.counts() && !leaves(copy));
        let counts = |node: NodeId| self.copies.iter().any(|copy| copy.node == node && copy.counts());
        let coming = steps.iter().filter(|step| !step.in_place || !counts(step.target));
        self.plan.wanted.saturating_sub(stay.count() + coming.count())
    }

    /// A server that has no part of the volume, away from those that have.
    fn target(&self, replaces: Option<NodeId>) -> Option<NodeId> {
        let Self { view, id, volume, plan, .. } = self;
        let new = plan.steps.iter().filter(|step| !step.in_place && !step.running).count();
        if volume.members.len() + new >= REPLICAS_MAX {
            return None;
        }
        let size = volume.members.iter().filter_map(|m| view.live.report(m.node, *id, view.now));
        let size = size.map(|report| report.size_bytes).max().unwrap_or(0);
        let stay = volume.members.iter().map(|m| m.node).filter(|node| Some(*node) != replaces);
        let stay: Vec<_> = stay.chain(plan.steps.iter().map(|step| step.target)).collect();
        let infos = stay.iter().filter_map(|node| view.state.nodes.get(node));
        let is_new = |node: &NodeId| {
            !volume.members.iter().any(|m| m.node == *node)
                && !plan.steps.iter().any(|step| step.target == *node)
        };
        let candidates = view.live.nodes().filter(|(node, _)| is_new(node) && usable(view, *node));
        let ranked = candidates.filter_map(|(node, live)| {
            let info = view.state.nodes.get(&node).filter(|info| info.tier == volume.class.tier)?;
            let room = live.free_bytes.checked_sub(view.policy.free_bytes_min.saturating_add(size))?;
            Some((shares(info, infos.clone()), std::cmp::Reverse(room), node))
        });
        ranked.min().map(|(_, _, node)| node)
    }
}
