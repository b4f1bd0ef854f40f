//! What a new member does next, given what its peers say. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{Description, FormationId};

/// What a new member knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Me {
    pub(crate) member: u64,
    pub(crate) address: String,
    /// Whether it has voted in a formation that came to nothing.
    pub(crate) voted: bool,
}

/// What it does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Looks again later; why, for people.
    Wait(String),
    /// Forms the group with these members: all of them are new, and this one has the lowest id of those that can.
    Form(BTreeMap<u64, String>),
    /// Takes the group's messages from now on: it is one of its members already.
    Enter(FormationId),
    /// Takes the group's messages, and asks whoever is at that address to take it in.
    Join(FormationId, String),
}

/// `peers`: for each other address of the static list, what is there; `None` where nobody answered.
pub(crate) fn decide(me: &Me, listed: bool, peers: &BTreeMap<String, Option<Description>>) -> Step {
    let answers: Vec<(&String, &Description)> =
        peers.iter().filter_map(|(address, said)| said.as_ref().map(|said| (address, said))).collect();
    let formed: Vec<_> = answers.iter().filter(|(_, said)| said.initialised).collect();
    let formations: BTreeSet<_> = formed.iter().filter_map(|(_, said)| said.formation).collect();
    if formations.len() > 1 {
        let all: Vec<_> = formed.iter().map(|(address, _)| address.as_str()).collect();
        return Step::Wait(format!(
            "{} belong to different groups: one of them was started on its own or has another's directory",
            all.join(" and ")
        ));
    }
    match (formations.first(), formed.first()) {
        (Some(formation), Some((address, _))) => {
            return enter_or_join(me, *formation, address, formed.iter().map(|(_, said)| *said));
        }
        // A log without a formation is being given one.
        (None, Some((address, _))) => return Step::Wait(format!("{address} is not ready yet")),
        (_, None) => {}
    }
    if let Some(clash) = same_id(me, &answers) {
        return Step::Wait(clash);
    }
    if let Some((silent, _)) = peers.iter().find(|(_, said)| said.is_none()) {
        return Step::Wait(format!("{silent} does not answer; a group is formed only when every peer does"));
    }
    if !listed {
        return Step::Wait(format!(
            "no group is there yet, and {} is not in the list of peers: it can only join",
            me.address
        ));
    }
    let before = |said: &Description| !said.voted && (said.member < me.member || me.voted);
    match answers.iter().find(|(_, said)| before(said)) {
        Some((address, _)) => Step::Wait(format!("{address} forms the group")),
        None if me.voted => Step::Wait("all have voted in a formation that came to nothing".to_owned()),
        None => {
            let others = answers.iter().map(|(address, said)| (said.member, (*address).clone()));
            Step::Form(others.chain([(me.member, me.address.clone())]).collect())
        }
    }
}

fn enter_or_join<'a>(
    me: &Me,
    formation: FormationId,
    any: &str,
    formed: impl Iterator<Item = &'a Description> + Clone,
) -> Step {
    if formed.clone().any(|said| said.members.contains_key(&me.member)) {
        return Step::Enter(formation);
    }
    let leader = formed.filter_map(|said| said.leader.as_ref()).map(|(_, address)| address.clone()).next();
    Step::Join(formation, leader.filter(|address| !address.is_empty()).unwrap_or_else(|| any.to_owned()))
}

fn same_id(me: &Me, answers: &[(&String, &Description)]) -> Option<String> {
    let mut seen = BTreeMap::from([(me.member, me.address.as_str())]);
    answers.iter().find_map(|(address, said)| {
        seen.insert(said.member, address).map(|other| {
            format!(
                "{address} and {other} are both member {}: one has a copy of the other's directory",
                said.member
            )
        })
    })
}
