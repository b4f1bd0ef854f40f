//! What an operator should look at, counted over all volumes.

use hay_common::ids::{NodeId, VolumeId};
use hay_common::limits::STATUS_VOLUMES_MAX;
use hay_common::model::VolumeState;

use super::View;
use super::placement::Places;
use crate::state::{Part, Volume};

/// Volumes that are not as they should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Sealed ones with fewer good copies than they should have.
    pub lacking: usize,
    /// The first of them.
    pub lacking_first: Vec<VolumeId>,
    /// Those whose copies stand closer together than they need to, as far as the servers go that are there.
    pub crowded: usize,
}

/// Looks at every volume: for people, not for each heartbeat.
pub fn survey(view: &View<'_>) -> Survey {
    let places = Places::by_tier(view);
    let mut survey = Survey::default();
    for (id, volume) in &view.state.volumes {
        if volume.state == VolumeState::Sealed
            && good_copies(view, *id, volume) < volume.class.replicas.into()
        {
            survey.lacking += 1;
            if survey.lacking_first.len() < STATUS_VOLUMES_MAX {
                survey.lacking_first.push(*id);
            }
        }
        let nodes: Vec<NodeId> = volume.members.iter().map(|member| member.node).collect();
        let places = places.get(volume.class.tier.as_str());
        survey.crowded += usize::from(places.is_some_and(|places| places.crowd(view, &nodes)));
    }
    survey
}

/// A server that lives and has not said all it has yet is given the benefit of the doubt.
fn good_copies(view: &View<'_>, id: VolumeId, volume: &Volume) -> usize {
    let is_good = |node: NodeId| match view.live.speaks(node, view.now) {
        true => view
            .live
            .report(node, id, view.now)
            .is_some_and(|report| !report.incomplete && !report.filling && report.read_only_reason.is_none()),
        false => view.live.alive(node, view.now),
    };
    volume.members.iter().filter(|member| member.part == Part::Replica && is_good(member.node)).count()
}
