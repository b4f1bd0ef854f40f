//! Sealed volumes brought back to their number of copies.

use hay_common::limits::{FILL_FAILURES_MAX, VOLUME_CREATE_PATIENCE};

use super::*;
use crate::plan::{Cancelled, Irreparable, Repair, RepairStep, repair};
use crate::state::{Part, Volume};

fn cancelled(plan: &Repair) -> Vec<(NodeId, bool)> {
    plan.cancel.iter().map(|cancelled| (cancelled.target, cancelled.stays)).collect()
}

fn in_place(target: NodeId) -> RepairStep {
    RepairStep { target, replaces: None, in_place: true, running: false, problem: None }
}

fn other_copy(target: NodeId, replaces: Option<NodeId>) -> RepairStep {
    RepairStep { replaces, in_place: false, ..in_place(target) }
}

impl World {
    /// Does what a repair of a volume says.
    fn repair(&mut self, volume: VolumeId) -> Repair {
        let plan = repair(&self.view(), volume).unwrap();
        for Cancelled { target, .. } in &plan.cancel {
            assert_eq!(self.state.apply(Command::CancelFill { volume, target: *target }), Outcome::Done);
        }
        for step in plan.steps.iter().filter(|step| !step.running) {
            let (epoch, target) = (self.state.volumes[&volume].epoch, step.target);
            let done = self.state.apply(match step.in_place {
                true => Command::Complete { volume, epoch, target },
                false => Command::Repair { volume, epoch, target, replaces: step.replaces },
            });
            assert_eq!(done, Outcome::Done, "what is planned can be done: {step:?}");
        }
        plan
    }

    /// A server says of a volume in its present epoch what `change` makes of a sealed and whole one.
    fn says(&mut self, node: NodeId, volume: VolumeId, change: impl FnOnce(&mut VolumeReport)) {
        let Volume { epoch, class, .. } = &self.state.volumes[&volume];
        let mut report = VolumeReport { state: VolumeState::Sealed, ..fresh(volume, *epoch, class.size) };
        change(&mut report);
        self.servers.get_mut(&server(node)).unwrap().volumes.insert(volume, report);
        self.report(server(node));
    }

    /// Time passes until all but these count as dead.
    fn die(&mut self, living: &[NodeId]) {
        self.now += HEARTBEAT_TIMEOUT;
        self.paused.extend(self.servers.keys().copied().filter(|n| !living.contains(&id(*n))));
        living.iter().for_each(|node| self.report(server(*node)));
    }

    fn members(&self, volume: VolumeId) -> BTreeSet<NodeId> {
        self.state.volumes[&volume].members.iter().map(|member| member.node).collect()
    }

    /// From whom a server is told to copy.
    fn sources(&self, target: NodeId) -> Option<Vec<NodeId>> {
        decide(&self.view()).down.into_iter().find_map(|(node, down)| match down {
            Down::Fill { sources, .. } if node == target => {
                Some(sources.into_iter().map(|peer| peer.node).collect())
            }
            _ => None,
        })
    }
}

/// A sealed volume with two whole copies, and their servers; the other servers hold nothing of it.
fn sealed(servers: u8) -> (World, VolumeId, NodeId, NodeId, Vec<NodeId>) {
    let mut world = World::new(servers, 2);
    let (volume, members) = {
        let (id, volume) = world.state.volumes.iter().next().unwrap();
        (*id, volume.members.clone())
    };
    let (a, b) = (members[0].node, members[1].node);
    world.change(server(a), volume, |report| report.state = VolumeState::Sealed);
    world.settle();
    assert_eq!(repair(&world.view(), volume).unwrap().whole, 2);
    let others = (0..servers).map(id).filter(|node| ![a, b].contains(node)).collect();
    (world, volume, a, b, others)
}

fn lacks(report: &mut VolumeReport) {
    report.incomplete = true;
}

fn unfit(report: &mut VolumeReport) {
    report.read_only_reason = Some("a sync failed".to_owned());
}

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
    let step = plan.steps[0].clone();
    assert_eq!((step.replaces, step.in_place, step.running), (Some(dead), false, false));
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
    let first = repair(&world.view(), volume).unwrap().steps[0].clone();
    let epoch = world.state.volumes[&volume].epoch;
    world.state.apply(Command::Repair { volume, epoch, target: first.target, replaces: Some(dead) });
    world.now += HEARTBEAT_TIMEOUT;
    for n in (0..5).filter(|n| ![dead, first.target].contains(&id(*n))) {
        world.report(n);
    }
    let again = repair(&world.view(), volume).unwrap();
    assert_eq!(cancelled(&again), [(first.target, false)]);
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
    assert_eq!(plan.steps, [in_place(members[1].node)]);
    let epoch = world.state.volumes[&volume].epoch;
    world.state.apply(Command::Complete { volume, epoch, target: members[1].node });
    let now = &world.state.volumes[&volume];
    assert_eq!(now.epoch, Epoch(epoch.0 + 1));
    assert!(
        !decide(&world.view()).commands.iter().any(|c| matches!(c, Command::Filled { .. })),
        "the old report"
    );
    let nodes: Vec<_> = members.iter().map(|m| format!("server-{}", server(m.node))).collect();
    assert_eq!(world.state.addresses(now), nodes, "what is being completed is read from, last");
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
    let other = world.state.volumes[&volume].members.iter().find(|m| m.node != left).unwrap().node;
    let epoch = world.state.volumes[&volume].epoch;
    let done = world.state.apply(Command::Complete { volume, epoch, target: left });
    assert_eq!(done, Outcome::Done);
    let epoch = world.state.volumes[&volume].epoch;
    let replaced = Command::Repair { volume, epoch, target: id(9), replaces: Some(left) };
    world.state.apply(Command::Register { node: id(9), info: info(9) });
    assert!(matches!(world.state.apply(replaced), Outcome::Refused(_)), "it is being completed");
    let replaced = Command::Repair { volume, epoch, target: id(9), replaces: Some(other) };
    assert!(matches!(world.state.apply(replaced), Outcome::Refused(_)), "nobody would be left to copy from");
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
    let first = repair(&world.view(), volume).unwrap().steps[0].clone();
    let epoch = world.state.volumes[&volume].epoch;
    world.state.apply(Command::Repair { volume, epoch, target: first.target, replaces: Some(dead) });
    let filling = VolumeReport { filling: true, ..fresh(volume, Epoch(epoch.0 + 1), SizeClass::Small) };
    world.servers.get_mut(&server(first.target)).unwrap().volumes.insert(volume, filling);
    world.report(server(first.target));
    let running = repair(&world.view(), volume).unwrap();
    assert!(running.cancel.is_empty() && running.steps == [RepairStep { running: true, ..first.clone() }]);
    let fails = |world: &mut World, times| {
        world.change(server(first.target), volume, |report| {
            report.fill_problem = Some("a write failed".to_owned());
            report.fill_failures = times;
        });
    };
    // Not for a failure that may pass, nor where a source has failed.
    fails(&mut world, FILL_FAILURES_MAX - 1);
    let running = repair(&world.view(), volume).unwrap();
    assert!(running.cancel.is_empty() && running.steps[0].problem.as_deref() == Some("a write failed"));
    fails(&mut world, FILL_FAILURES_MAX);
    let again = repair(&world.view(), volume).unwrap();
    assert!(!again.unsure, "a copy is sound");
    assert_eq!((cancelled(&again), again.steps.len()), (vec![(first.target, false)], 1));
    assert_eq!(again.cancel[0].reason, "a write failed");
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
        assert!(step.in_place);
        let done = world.state.apply(Command::Complete { volume, epoch, target: step.target });
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

#[test]
fn the_only_copy_of_a_needle_may_be_the_one_that_is_away() {
    // All was killed: A lacks the end of what it had, and B is not back yet.
    let (mut world, volume, a, b, others) = sealed(3);
    world.says(a, volume, lacks);
    world.die(&[a, others[0]]);
    let plan = world.repair(volume);
    assert!(plan.unsure);
    assert_eq!(plan.steps, [other_copy(others[0], None)], "a copy more, in nobody's place");
    world.says(others[0], volume, lacks);
    world.paused.insert(server(others[0]));
    world.settle();
    assert_eq!(world.members(volume), BTreeSet::from([a, b, others[0]]));
    assert_eq!(world.state.fills(volume).count(), 0);
    assert_eq!(repair(&world.view(), volume).unwrap().steps, [in_place(a)], "they complete each other");
    // B comes back whole, and the others are completed from it.
    world.paused.remove(&server(b));
    let had = world.servers[&server(b)].volumes.clone();
    world.connect(server(b), had);
    world.says(b, volume, |_| {});
    let plan = world.repair(volume);
    assert!(!plan.unsure && plan.whole == 1);
    assert_eq!(plan.steps, [in_place(a), in_place(others[0])]);
    assert_eq!(world.sources(a), Some(vec![b]));
}

#[test]
fn a_copy_that_lacks_needles_takes_nobodys_place() {
    let (mut world, volume, a, b, others) = sealed(3);
    world.die(&[a, others[0]]);
    let plan = world.repair(volume);
    assert_eq!(plan.steps, [other_copy(others[0], Some(b))]);
    // One needle could not be read at A: B may have it.
    world.says(others[0], volume, lacks);
    world.paused.insert(server(others[0]));
    world.settle();
    assert_eq!(world.members(volume), BTreeSet::from([a, b, others[0]]));
    let parts: Vec<Part> = world.state.volumes[&volume].members.iter().map(|m| m.part).collect();
    assert_eq!(parts, [Part::Replica; 3]);
    assert_eq!(world.state.fills(volume).count(), 0);
}

#[test]
fn what_is_being_completed_is_not_thrown_away_when_its_server_is_away() {
    let (mut world, volume, a, b, others) = sealed(3);
    world.says(a, volume, lacks);
    world.says(b, volume, |report| {
        lacks(report);
        report.needles = 5;
    });
    let plan = world.repair(volume);
    assert_eq!(plan.steps, [in_place(a)], "the one that has least");
    world.die(&[b, others[0]]);
    let again = world.repair(volume);
    assert!(again.cancel.is_empty(), "{again:?}");
    assert_eq!(again.steps[0].problem.as_deref(), Some("its server does not answer"));
    assert!(world.members(volume).is_superset(&BTreeSet::from([a, b])));
}

#[test]
fn a_copy_that_is_being_completed_is_what_is_left_when_its_source_dies() {
    let (mut world, volume, a, b, others) = sealed(3);
    world.says(b, volume, lacks);
    assert_eq!(world.repair(volume).steps, [in_place(b)]);
    assert_eq!(world.sources(b), Some(vec![a]));
    world.says(b, volume, |report| {
        lacks(report);
        report.filling = true;
    });
    // A's disk dies for good.
    world.die(&[b, others[0]]);
    let addresses = world.state.addresses(&world.state.volumes[&volume]);
    assert!(addresses.contains(&format!("server-{}", server(b))), "it is read from: {addresses:?}");
    let plan = world.repair(volume);
    assert_eq!(cancelled(&plan), [(b, true)]);
    assert_eq!(plan.steps, [other_copy(others[0], None)]);
    assert!(world.members(volume).contains(&b));
    let member = world.state.volumes[&volume].members.iter().find(|m| m.node == b).unwrap();
    assert_eq!(member.part, Part::Replica);
    assert_eq!(world.sources(others[0]), Some(vec![b]));
}

#[test]
fn a_copy_that_can_not_be_written_to_is_a_source() {
    let (mut world, volume, a, b, others) = sealed(3);
    world.says(a, volume, unfit);
    world.die(&[a, others[0]]);
    let plan = world.repair(volume);
    assert!(!plan.unsure && plan.whole == 0);
    assert_eq!(plan.steps[0], other_copy(others[0], Some(b)));
    assert_eq!(world.sources(others[0]), Some(vec![a]));
}

#[test]
fn where_no_other_server_is_left_a_copy_is_written_anew_where_it_is() {
    // As many servers as replicas; one sync has failed.
    let (mut world, volume, a, b, _) = sealed(2);
    world.says(b, volume, unfit);
    assert_eq!(world.repair(volume).steps, [in_place(b)]);
    assert_eq!(world.sources(b), Some(vec![a]));
    // Its old file is what the server has until then.
    world.says(b, volume, |report| {
        unfit(report);
        report.filling = true;
    });
    assert!(repair(&world.view(), volume).unwrap().steps[0].running);
    world.settle();
    world.says(a, volume, |_| {});
    assert_eq!(repair(&world.view(), volume).unwrap().whole, 2);
    assert_eq!(world.state.fills(volume).count(), 0);

    // Both are damaged, in different places: one after the other, and the other one is its source.
    world.says(a, volume, unfit);
    world.says(b, volume, unfit);
    let plan = world.repair(volume);
    assert_eq!(plan.steps.len(), 1, "{plan:?}");
    let first = plan.steps[0].target;
    world.settle();
    let plan = world.repair(volume);
    assert_eq!((plan.whole, plan.steps.len()), (1, 1));
    assert_ne!(plan.steps[0].target, first);
    world.settle();
    world.says(first, volume, |_| {});
    assert_eq!(repair(&world.view(), volume).unwrap().whole, 2);

    // The other one is gone for good: what can be read of its own file.
    world.says(a, volume, unfit);
    world.die(&[a]);
    assert_eq!(world.repair(volume).steps, [in_place(a)]);
    assert_eq!(world.sources(a), Some(vec![]));

    // A server that has lost the volume, and nothing else.
    let (mut world, volume, a, b, _) = sealed(2);
    world.servers.get_mut(&server(b)).unwrap().volumes.remove(&volume);
    world.report(server(b));
    assert_eq!(world.repair(volume).steps, [in_place(b)]);
    assert_eq!(world.sources(b), Some(vec![a]));
    world.settle();
    world.says(a, volume, |_| {});
    assert_eq!(repair(&world.view(), volume).unwrap().whole, 2);
}

#[test]
fn a_target_goes_on_where_nobody_can_take_over() {
    let (mut world, volume, a, b, others) = sealed(3);
    world.die(&[a, others[0]]);
    assert_eq!(world.repair(volume).steps, [other_copy(others[0], Some(b))]);
    world.die(&[a]);
    let again = repair(&world.view(), volume).unwrap();
    assert!(again.cancel.is_empty(), "it goes on when it is back: {again:?}");
    assert!(again.steps[0].running && again.steps[0].problem.is_some());
}

#[test]
fn a_volume_whose_replica_may_lack_needles_is_sealed() {
    let mut world = World::new(3, 2);
    let volume = world.leased(&[])[0];
    let member = world.state.volumes[&volume].members[1].node;
    world.change(server(member), volume, lacks);
    world.settle();
    assert_eq!(world.state.volumes[&volume].state, VolumeState::Sealed);
    assert_eq!(repair(&world.view(), volume).unwrap().steps, [in_place(member)]);
    // There is nothing to compare the only one with.
    let mut world = World::new(1, 1);
    let volume = world.leased(&[])[0];
    world.change(0, volume, lacks);
    world.settle();
    assert_eq!(world.state.volumes[&volume].state, VolumeState::Writable);
}

#[test]
fn a_volume_that_can_not_be_made_is_given_up() {
    for is_dead in [true, false] {
        let mut world = World::new(3, 2);
        let before: BTreeSet<VolumeId> = world.state.volumes.keys().copied().collect();
        world.paused.insert(2);
        let nodes = vec![id(0), id(2)];
        let class = world.state.volumes.values().next().unwrap().class.clone();
        world.state.apply(Command::Create(vec![crate::state::NewVolume { class, nodes }]));
        world.settle();
        let stuck: Vec<VolumeId> =
            world.state.volumes.keys().copied().filter(|volume| !before.contains(volume)).collect();
        assert_eq!(stuck.len(), 1);
        assert_eq!(repair(&world.view(), stuck[0]), Err(Irreparable::NotOpened));
        if is_dead {
            world.die(&[id(0), id(1)]);
        } else {
            let over = world.now + VOLUME_CREATE_PATIENCE;
            while world.now < over {
                assert!(world.state.volumes.contains_key(&stuck[0]));
                world.now += HEARTBEAT_TIMEOUT / 2;
                (0..3).for_each(|n| world.report(n));
                world.step();
            }
        }
        world.settle();
        assert!(!world.state.volumes.contains_key(&stuck[0]), "dead: {is_dead}");
        let late = world.state.apply(Command::Opened { volume: stuck[0], epoch: Epoch(1) });
        assert!(matches!(late, Outcome::Refused(_)));
    }
}
