//! Sealed volumes brought back to their number of copies.

use super::*;
use crate::plan::{Irreparable, RepairStep, repair};
use crate::state::Part;

fn server(node: NodeId) -> u8 {
    (0..20).find(|n| id(*n) == node).unwrap()
}

/// A volume of three servers, sealed because the second of its two members died.
fn with_a_dead_member(servers: u8) -> (World, VolumeId, NodeId, NodeId) {
    let mut world = World::new(servers, 2);
    let (volume, members) = {
        let (id, volume) = world.state.volumes.iter().next().unwrap();
        (*id, volume.members.clone())
    };
    let (left, dead) = (members[0].node, members[1].node);
    world.paused.insert(server(dead));
    world.now += HEARTBEAT_TIMEOUT;
    for n in (0..servers).filter(|n| id(*n) != dead) {
        world.report(n);
    }
    world.settle();
    assert_eq!(world.state.volumes[&volume].state, VolumeState::Sealed);
    (world, volume, left, dead)
}

#[test]
fn a_dead_members_place_is_taken_once_the_copy_is_whole() {
    let (mut world, volume, left, dead) = with_a_dead_member(3);
    let plan = repair(&world.view(), volume).unwrap();
    assert_eq!((plan.whole, plan.wanted, plan.steps.len()), (1, 2, 1));
    let step = plan.steps[0];
    assert_eq!((step.replaces, step.running), (Some(dead), false));
    assert!(step.target != left && step.target != dead);
    let epoch = world.state.volumes[&volume].epoch;
    let command = Command::Repair { volume, epoch, target: step.target, replaces: step.replaces };
    assert_eq!(world.state.apply(command.clone()), Outcome::Done);
    assert!(matches!(world.state.apply(command), Outcome::Refused(_)), "once");
    let filling = &world.state.volumes[&volume];
    assert_eq!(filling.members.len(), 3);
    assert_eq!(world.state.addresses(filling), [left, dead].map(|n| format!("server-{}", server(n))));
    let running = repair(&world.view(), volume).unwrap();
    assert_eq!(running.steps, [RepairStep { running: true, ..step }]);

    // Told where to copy from: from who is there.
    let plan = decide(&world.view());
    let fill = plan.down.iter().find_map(|(node, down)| match down {
        Down::Fill { sources, members, epoch, .. } => Some((*node, sources.clone(), members.clone(), *epoch)),
        _ => None,
    });
    let (node, sources, members, epoch) = fill.unwrap();
    assert_eq!((node, epoch), (step.target, filling.epoch));
    assert_eq!(sources.iter().map(|peer| peer.node).collect::<Vec<_>>(), [left]);
    assert_eq!(members.iter().map(|peer| peer.node).collect::<Vec<_>>(), [left, step.target]);
    // A volume that is not whole yet, or is of an older epoch, ends nothing.
    let class = filling.class.size;
    for (epoch, filling) in [(epoch, true), (Epoch(epoch.0 - 1), false)] {
        let report = VolumeReport { state: VolumeState::Sealed, filling, ..fresh(volume, epoch, class) };
        world.servers.get_mut(&server(step.target)).unwrap().volumes.insert(volume, report);
        world.report(server(step.target));
        assert!(!decide(&world.view()).commands.iter().any(|c| matches!(c, Command::Filled { .. })));
    }
    world.change(server(step.target), volume, |report| report.epoch = epoch);
    world.settle();
    let done = &world.state.volumes[&volume];
    let nodes: Vec<NodeId> = done.members.iter().map(|m| m.node).collect();
    assert_eq!(nodes, [left, step.target]);
    assert!(done.members.iter().all(|m| m.part == Part::Replica) && world.state.jobs.is_empty());
    assert_eq!(repair(&world.view(), volume).unwrap().steps, []);
    // Whoever was replaced is a stranger when it comes back.
    let had = world.servers[&server(dead)].volumes.clone();
    world.connect(server(dead), had);
    let told = confirm(&world.view(), dead, [volume]);
    assert_eq!(told[0].part, None);
}

#[test]
fn a_target_that_dies_gives_way_to_another() {
    let (mut world, volume, _, dead) = with_a_dead_member(5);
    let first = repair(&world.view(), volume).unwrap().steps[0];
    let epoch = world.state.volumes[&volume].epoch;
    world.state.apply(Command::Repair { volume, epoch, target: first.target, replaces: Some(dead) });
    world.now += HEARTBEAT_TIMEOUT;
    for n in (0..5).filter(|n| ![dead, first.target].contains(&id(*n))) {
        world.report(n);
    }
    let again = repair(&world.view(), volume).unwrap();
    assert_eq!(again.cancel, [first.target]);
    assert!(again.steps[0].target != first.target && !again.steps[0].running);
    assert_eq!(world.state.apply(Command::CancelFill { volume, target: first.target }), Outcome::Done);
    assert_eq!(world.state.volumes[&volume].members.len(), 2);
}

#[test]
fn what_lacks_needles_is_completed_where_it_is() {
    let mut world = World::new(3, 2);
    let (volume, members) = {
        let (id, volume) = world.state.volumes.iter().next().unwrap();
        (*id, volume.members.clone())
    };
    world.change(server(members[0].node), volume, |report| report.state = VolumeState::Sealed);
    world.settle();
    world.change(server(members[1].node), volume, |report| report.incomplete = true);
    let plan = repair(&world.view(), volume).unwrap();
    assert_eq!(plan.steps, [RepairStep { target: members[1].node, replaces: None, running: false }]);
    let epoch = world.state.volumes[&volume].epoch;
    world.state.apply(Command::Repair { volume, epoch, target: members[1].node, replaces: None });
    let now = &world.state.volumes[&volume];
    assert_eq!(now.epoch, Epoch(epoch.0 + 1));
    assert!(
        !decide(&world.view()).commands.iter().any(|c| matches!(c, Command::Filled { .. })),
        "the old report"
    );
    assert_eq!(world.state.addresses(now).len(), 1);
    world.settle();
    assert_eq!(world.state.volumes[&volume].members.len(), 2);
    assert!(world.state.jobs.is_empty());
}

#[test]
fn what_can_not_be_repaired_says_why() {
    let (mut world, volume, left, _) = with_a_dead_member(2);
    assert_eq!(repair(&world.view(), volume), Err(Irreparable::NoTarget));
    assert_eq!(repair(&world.view(), VolumeId(9999)), Err(Irreparable::Unknown));
    world.now += HEARTBEAT_TIMEOUT;
    assert_eq!(repair(&world.view(), volume), Err(Irreparable::NoSource));
    let whole = World::new(3, 2);
    let open = *whole.state.volumes.keys().next().unwrap();
    assert_eq!(repair(&whole.view(), open), Err(Irreparable::NotSealed));
    // The state machine minds the last copy, whoever planned.
    let epoch = world.state.volumes[&volume].epoch;
    let refused = world.state.apply(Command::Repair { volume, epoch, target: left, replaces: None });
    assert_eq!(refused, Outcome::Done, "the dead one counts as a source that may come back");
    let other = world.state.volumes[&volume].members.iter().find(|m| m.node != left).unwrap().node;
    let epoch = world.state.volumes[&volume].epoch;
    let refused = world.state.apply(Command::Repair { volume, epoch, target: other, replaces: None });
    assert!(matches!(refused, Outcome::Refused(_)), "nobody would be left to copy from");
}

#[test]
fn a_replica_that_has_missed_a_seal_is_told_and_not_filled() {
    let (mut world, volume, left, dead) = with_a_dead_member(3);
    // It comes back with its old epoch, and nobody has told it yet.
    let had = world.servers[&server(dead)].volumes.clone();
    world.connect(server(dead), had);
    let plan = repair(&world.view(), volume).unwrap();
    assert_eq!((plan.whole, plan.steps.len()), (1, 0), "no source yet, and nothing to copy either");
    let told = confirm(&world.view(), dead, [volume]);
    assert_eq!(
        (told[0].epoch, told[0].state, told[0].part),
        (Epoch(2), VolumeState::Sealed, Some(Part::Replica))
    );
    // Alone it is a copy to wait for, not one that is lost.
    world.now += HEARTBEAT_TIMEOUT;
    world.report(server(dead));
    let plan = repair(&world.view(), volume);
    assert_eq!(plan.map(|plan| plan.steps.len()), Err(Irreparable::NoTarget), "{left} is gone");
}

#[test]
fn a_target_that_can_not_be_filled_gives_way_to_another() {
    let (mut world, volume, _, dead) = with_a_dead_member(5);
    let first = repair(&world.view(), volume).unwrap().steps[0];
    let epoch = world.state.volumes[&volume].epoch;
    world.state.apply(Command::Repair { volume, epoch, target: first.target, replaces: Some(dead) });
    let filling = VolumeReport { filling: true, ..fresh(volume, Epoch(epoch.0 + 1), SizeClass::Small) };
    world.servers.get_mut(&server(first.target)).unwrap().volumes.insert(volume, filling);
    world.report(server(first.target));
    let running = repair(&world.view(), volume).unwrap();
    assert!(running.cancel.is_empty() && running.steps == [RepairStep { running: true, ..first }]);
    world.change(server(first.target), volume, |report| {
        report.read_only_reason = Some("it could not be filled yet: a write failed".to_owned());
    });
    let again = repair(&world.view(), volume).unwrap();
    assert!(!again.unsure, "a copy is sound");
    assert_eq!((&again.cancel[..], again.steps.len()), (&[first.target][..], 1));
    assert!(again.steps[0].target != first.target && again.steps[0].replaces == Some(dead));
    // Where the only copies lack needles, what the target holds may be nowhere else.
    let left = world.state.volumes[&volume].members[0].node;
    world.change(server(left), volume, |report| report.incomplete = true);
    assert!(repair(&world.view(), volume).unwrap().cancel.is_empty());
}

/// What an operator who repairs a volume does to it; the needles of `from` and of the target are both at the target then.
fn repair_once(world: &mut World, volume: VolumeId, held: &mut BTreeMap<NodeId, BTreeSet<u64>>) -> NodeId {
    let plan = repair(&world.view(), volume).unwrap();
    assert_eq!((plan.whole, plan.unsure, plan.steps.len()), (0, true, 1), "one at a time");
    let target = plan.steps[0].target;
    for step in plan.steps {
        let epoch = world.state.volumes[&volume].epoch;
        let (target, replaces) = (step.target, step.replaces);
        let done = world.state.apply(Command::Repair { volume, epoch, target, replaces });
        assert_eq!(done, Outcome::Done, "what is planned can be done");
    }
    world.settle();
    assert!(world.state.jobs.is_empty());
    let all: BTreeSet<u64> = held.values().flatten().copied().collect();
    held.insert(target, all.clone());
    world.change(server(target), volume, |report| {
        (report.incomplete, report.needles) = (true, all.len() as u64);
    });
    target
}

#[test]
fn two_replicas_that_lack_needles_complete_each_other() {
    let mut world = World::new(3, 2);
    let (volume, members) = {
        let (id, volume) = world.state.volumes.iter().next().unwrap();
        (*id, volume.members.clone())
    };
    world.change(server(members[0].node), volume, |report| report.state = VolumeState::Sealed);
    world.settle();
    // The torn tails of both are cut: each lacks what the other has.
    let mut held = BTreeMap::new();
    for (member, needles) in members.iter().zip([BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])]) {
        world.change(server(member.node), volume, |report| {
            (report.incomplete, report.needles) = (true, needles.len() as u64);
        });
        held.insert(member.node, needles);
    }
    let first = repair_once(&mut world, volume, &mut held);
    let second = repair_once(&mut world, volume, &mut held);
    assert_ne!(first, second);
    assert!(held.values().all(|needles| needles.len() == 4), "{held:?}");
    assert_eq!(world.state.volumes[&volume].members.len(), 2);
}
