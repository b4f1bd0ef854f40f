//! What servers are told of the volumes that they have: whether they are still members, and of what. A replica of several is
//! nothing until it has heard so.

use std::collections::BTreeMap;

use hay_common::ids::{NodeId, VolumeId};
use hay_common::model::VolumeState;

use super::View;
use crate::live::Confirmed;

/// What the map says of volumes to a server that has reported them; those that it was told already are left out.
pub fn confirm(view: &View<'_>, node: NodeId, volumes: impl IntoIterator<Item = VolumeId>) -> Vec<Confirmed> {
    volumes.into_iter().filter_map(|id| confirmed(view, node, id)).collect()
}

fn confirmed(view: &View<'_>, node: NodeId, id: VolumeId) -> Option<Confirmed> {
    let Some(volume) = view.state.volumes.get(&id) else {
        let unknown = Confirmed {
            volume: id,
            epoch: hay_common::ids::Epoch(0),
            state: VolumeState::Sealed,
            part: None,
            members: Vec::new(),
            changed: view.state.version,
        };
        return (!view.live.was_told(node, id, 0)).then_some(unknown);
    };
    if view.live.was_told(node, id, volume.changed) {
        return None;
    }
    Some(Confirmed {
        volume: id,
        epoch: volume.epoch,
        state: volume.state,
        part: volume.members.iter().find(|member| member.node == node).map(|member| member.part),
        members: view.state.peers(volume),
        changed: volume.changed,
    })
}

/// What has changed in the map since it was told last, for those that have the volumes.
pub(super) fn changes(view: &View<'_>) -> Vec<(NodeId, Vec<Confirmed>)> {
    let mut news: BTreeMap<NodeId, Vec<Confirmed>> = BTreeMap::new();
    for (id, _) in view.state.changed_after(view.live.told()) {
        for (node, _) in view.live.nodes() {
            // Also one that is silent: it may only be paused, and what it has not heard by then it would never hear.
            if view.live.holds(node, id)
                && let Some(confirmed) = confirmed(view, node, id)
            {
                news.entry(node).or_default().push(confirmed);
            }
        }
    }
    news.into_iter().collect()
}
