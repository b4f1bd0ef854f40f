//! What the copies of a sealed volume are worth.

use hay_common::ids::{NodeId, VolumeId};
use hay_common::model::VolumeState;

use super::View;
use crate::live::VolumeReport;
use crate::state::{Part, Volume};

/// One server that has, or should have, a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    pub node: NodeId,
    pub worth: Worth,
    /// Its file can't be written to: it can only be written anew.
    pub unfit: bool,
    /// Needles that it has.
    pub needles: u64,
}

/// What is known of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    Whole,
    /// It has missed a seal, and nothing else: it is told again and again, and no source until it has taken it.
    Behind,
    /// It knows of every needle, and can't be written to; some may be damaged.
    Damaged,
    /// There, but it may lack needles.
    Lacking,
    /// Its server is there without it.
    Gone,
    /// Nothing is known of its server.
    Lost,
}

impl Copy {
    fn of(view: &View<'_>, id: VolumeId, volume: &Volume, node: NodeId) -> Self {
        let report = view.live.report(node, id, view.now);
        let worth = match report {
            None if view.live.speaks(node, view.now) => Worth::Gone,
            None => Worth::Lost,
            Some(report) if report.incomplete || report.filling => Worth::Lacking,
            Some(report) if report.read_only_reason.is_some() => Worth::Damaged,
            Some(report) if is_behind(report, volume) => Worth::Behind,
            Some(_) => Worth::Whole,
        };
        let unfit = report.is_some_and(|report| report.read_only_reason.is_some());
        Self { node, worth, unfit, needles: report.map_or(0, |report| report.needles) }
    }

    /// Every needle that was acknowledged can be read there.
    pub fn is_sound(&self) -> bool {
        matches!(self.worth, Worth::Whole | Worth::Behind)
    }

    /// Nothing is unknown of what it lacks.
    pub fn knows_all(&self) -> bool {
        self.is_sound() || self.worth == Worth::Damaged
    }

    /// Something can be read there.
    pub fn is_there(&self) -> bool {
        !matches!(self.worth, Worth::Gone | Worth::Lost)
    }

    /// It counts as one of the copies that there should be.
    pub fn counts(&self) -> bool {
        self.is_sound() || self.worth == Worth::Lacking && !self.unfit
    }

    /// It can only be replaced, or written anew where it is.
    pub fn must_be_rebuilt(&self) -> bool {
        self.worth == Worth::Gone || self.is_there() && self.unfit
    }
}

fn is_behind(report: &VolumeReport, volume: &Volume) -> bool {
    report.epoch < volume.epoch || report.state != VolumeState::Sealed
}

/// Those of a volume; a server that is being filled for the first time has none.
pub(super) fn copies(view: &View<'_>, id: VolumeId, volume: &Volume) -> Vec<Copy> {
    let members = volume.members.iter().filter(|member| member.part.is_copy());
    members.map(|member| Copy::of(view, id, volume, member.node)).collect()
}

/// The parts of a volume that are being completed, by their servers.
pub(super) fn is_completing(volume: &Volume, node: NodeId) -> bool {
    volume.members.iter().any(|member| member.node == node && member.part == Part::Completing)
}
