//! How the cluster is, as one master knows it.

use std::time::Duration;

use hay_common::ids::NodeId;
use hay_common::limits::{HEARTBEAT_GONE, SURVEY_KEPT};
use hay_common::model::VolumeState;
use hay_consensus::GroupStatus;

use crate::core::MasterCore;
use crate::error::describe;
use crate::info::{ClusterStatus, NodeInfo};
use crate::plan::{Excluded, Survey, View, excluded, select, shortage, survey};

impl MasterCore {
    /// Whether it does its part in the group: leads it, or follows somebody. What the cluster as a whole can do is said by
    /// [`MasterCore::ready`].
    ///
    /// # Errors
    /// The reason, for people.
    pub fn serves(&self) -> Result<(), String> {
        let status = self.group.status();
        if let Some(problem) = status.problem() {
            return Err(problem);
        }
        if status.leading || is_led_by_another(&status) {
            return Ok(());
        }
        Err(without_leader(&status))
    }

    /// Whether it leads and could lease a volume of every class; else why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        if !self.leads() {
            let status = self.group.status();
            return Err(match status.problem() {
                Some(problem) => format!("this master does not lead: {problem}"),
                None if is_led_by_another(&status) => "this master does not lead".to_owned(),
                None => without_leader(&status),
            });
        }
        let (state, live) = (self.shared.state.read(), self.live.lock());
        let view = self.view(&state, &live);
        match shortage(&view, &select(&view, &[], 0)) {
            None => Ok(()),
            Some(shortage) => Err(describe(&shortage)),
        }
    }

    /// Whether another master is the one to ask how the cluster is. Where none is known, what is known here has to do.
    pub(crate) fn is_led_by_another(&self) -> bool {
        !self.leads() && is_led_by_another(&self.group.status())
    }

    /// The cluster as this master knows it.
    pub fn status(&self) -> ClusterStatus {
        let not_ready = self.ready().err();
        let group = self.group.status();
        let replaced = *self.replaced.lock();
        let (state, live) = (self.shared.state.read(), self.live.lock());
        let view = self.view(&state, &live);
        // What one that does not lead has heard of servers is old, or nothing.
        let servers_unknown = !group.leading;
        let nodes = state.nodes.iter().map(|(id, info)| {
            let known = live.node(*id).filter(|_| !servers_unknown);
            NodeInfo {
                id: *id,
                info: info.clone(),
                alive: !servers_unknown && live.alive(*id, view.now),
                heard_ago: known.map(|node| view.now.saturating_sub(node.heard)),
                free_bytes: known.map_or(0, |node| node.disk_free_bytes),
                reserve_bytes: known.map_or(0, |node| node.reserve_bytes),
                total_bytes: known.map_or(0, |node| node.total_bytes),
                volumes: known.map_or(0, |node| node.volumes.len()),
                no_new_volumes: excluded(&view, *id)
                    .filter(|_| !servers_unknown)
                    .map(|why| in_words(&view, *id, why)),
            }
        });
        let (mut creating, mut writable) = (0, 0);
        for (_, volume) in state.open_volumes() {
            match volume.state {
                VolumeState::Creating => creating += 1,
                VolumeState::Writable | VolumeState::Sealed => writable += 1,
            }
        }
        let all = u32::try_from(state.volumes.len()).unwrap_or(u32::MAX);
        let survey = if servers_unknown { Survey::default() } else { self.surveyed(&view) };
        ClusterStatus {
            cluster: self.key.cluster(),
            nodes: nodes.collect(),
            volumes: (creating, writable, all - creating - writable),
            durability: self.durability,
            not_ready,
            servers_unknown,
            replicas: state.configuration.replicas,
            warnings: warnings(&view, &group, replaced, &survey),
            survey,
            group,
        }
    }

    /// Gateways ask for the status several times a second; the volumes are not looked at each time.
    fn surveyed(&self, view: &View<'_>) -> Survey {
        let mut kept = self.surveyed.lock();
        match &*kept {
            Some((at, survey)) if view.now.saturating_sub(*at) < SURVEY_KEPT => survey.clone(),
            _ => {
                let fresh = survey(view);
                *kept = Some((view.now, fresh.clone()));
                fresh
            }
        }
    }

    /// Says that what is stored stands on one server each, where it needn't.
    pub(crate) fn warn_of_replicas(&self) {
        let state = self.shared.state.read();
        if let Some(warning) = one_copy(state.configuration.replicas, state.nodes.len()) {
            tracing::warn!("{warning}");
        }
    }
}

/// Whether a master that does not lead knows who does. A leader that no majority answers still names itself.
fn is_led_by_another(status: &GroupStatus) -> bool {
    status.leader.is_some_and(|leader| leader != status.member) && !status.leader_address.is_empty()
}

/// Why nobody leads, as far as one master knows.
fn without_leader(status: &GroupStatus) -> String {
    let voters = || status.members.iter().filter(|member| member.voter);
    let answers = |heard_ago: Option<Duration>| heard_ago.is_some_and(|ago| ago < HEARTBEAT_GONE);
    let answering = voters().filter(|m| m.id == status.member || answers(m.heard_ago)).count();
    let all = voters().count();
    if answering * 2 > all {
        return format!("no master leads yet: {answering} of {all} masters answer");
    }
    format!(
        "no majority: {answering} of {all} masters answer. What is stored is read, and written to volumes that are leased; \
         nothing new is made until more masters are back"
    )
}

fn in_words(view: &View<'_>, node: NodeId, why: Excluded) -> String {
    match why {
        Excluded::Silent => "it is not heard".to_owned(),
        Excluded::NoRoom => "its disk is full up to its free-space reserve, or nearly".to_owned(),
        Excluded::Broken(volumes) => format!(
            "{volumes} volumes have failed there by its own fault: look at its log and its disk, and start it again; what \
             is damaged then too, repair (`hay volume repair`)"
        ),
        Excluded::Suspected => match view.live.accusation(node) {
            Some(said) => {
                let ago = view.now.saturating_sub(said.at).as_secs();
                format!("{ago} s ago {} said: {}", view.state.peer(said.by).address, said.reason)
            }
            None => "it failed as a replica".to_owned(),
        },
    }
}

fn one_copy(replicas: u8, servers: usize) -> Option<String> {
    (replicas == 1 && servers > 1).then(|| {
        format!(
            "a new volume is kept on one server only, of {servers}: what a disk loses is lost. Give all masters --replicas 2"
        )
    })
}

/// What an operator should look at though everything may work.
fn warnings(view: &View<'_>, group: &GroupStatus, replaced: Option<u8>, survey: &Survey) -> Vec<String> {
    let replicas = view.state.configuration.replicas;
    let problem = group.problem().filter(|_| group.leading);
    let replaced = replaced.filter(|before| *before != replicas);
    let crowded = (survey.crowded > 0).then(|| {
        format!(
            "{} volumes have copies that share a zone or a rack though there are servers elsewhere",
            survey.crowded
        )
    });
    [
        problem.map(|problem| format!("the leading master: {problem}")),
        one_copy(replicas, view.state.nodes.len()),
        replaced.map(|before| {
            format!(
                "a new volume is kept on {replicas} servers since this master leads, and was on {before} before: if nobody \
                 changed that, --replicas is not the same for all masters"
            )
        }),
        crowded,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Live;
    use crate::plan::Policy;
    use crate::state::{Node, State};
    use hay_common::ids::MemberId;
    use hay_consensus::{GroupCounters, GroupMember};

    /// Member 1 of three, which heard of the others so long ago.
    fn group(leader: Option<u64>, heard: [Option<u64>; 2]) -> GroupStatus {
        let member = |(at, ago): (usize, Option<u64>)| GroupMember {
            id: MemberId(at as u64 + 1),
            address: format!("master-{at}"),
            voter: true,
            lag: None,
            heard_ago: ago.map(Duration::from_secs),
            problem: None,
        };
        let address = leader.map(|id| format!("master-{}", id - 1));
        GroupStatus {
            member: MemberId(1),
            leading: false,
            leader: leader.map(MemberId),
            leader_address: address.unwrap_or_default(),
            formation: None,
            forming: None,
            full: false,
            term: 3,
            applied: None,
            last_log_index: None,
            snapshot: None,
            members: [None, heard[0], heard[1]].into_iter().enumerate().map(member).collect(),
            stopped: None,
            counters: GroupCounters::default(),
        }
    }

    #[test]
    fn a_leader_that_is_left_alone_does_not_send_to_itself_and_says_what_is_missing() {
        let alone = group(Some(1), [Some(60), None]);
        assert!(!is_led_by_another(&alone), "it still names itself");
        assert!(without_leader(&alone).starts_with("no majority: 1 of 3 masters answer"));
        assert!(is_led_by_another(&group(Some(2), [Some(0), None])));
        assert!(!is_led_by_another(&group(None, [None, None])));
        assert_eq!(
            without_leader(&group(None, [Some(1), None])),
            "no master leads yet: 2 of 3 masters answer"
        );
    }

    #[test]
    fn what_an_operator_should_look_at_is_said_though_it_works() {
        fn told(state: &State, group: &GroupStatus, replaced: Option<u8>, survey: &Survey) -> Vec<String> {
            let (live, policy) = (Live::default(), Policy::default());
            warnings(
                &View { state, live: &live, now: Duration::ZERO, policy: &policy },
                group,
                replaced,
                survey,
            )
        }
        let mut state = State::default();
        let leading = GroupStatus { leading: true, ..group(Some(1), [Some(0), Some(0)]) };
        assert_eq!(told(&state, &leading, None, &Survey::default()), Vec::<String>::new());
        for n in 0..2 {
            let info = Node { address: format!("server-{n}"), ..Node::default() };
            state.nodes.insert(NodeId::from_random(n), info);
        }
        let full = GroupStatus { full: true, ..leading };
        let survey = Survey { crowded: 3, ..Survey::default() };
        let told = told(&state, &full, Some(2), &survey);
        let expected = ["its disk is full", "--replicas 2", "was on 2 before", "3 volumes have copies"];
        assert_eq!(told.len(), expected.len());
        assert!(told.iter().zip(expected).all(|(told, part)| told.contains(part)), "{told:?}");
    }
}
