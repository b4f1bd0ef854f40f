mod fencing;
mod growing;
mod repairs;
mod spread;

use std::collections::{BTreeMap, BTreeSet};

use hay_common::ids::{Epoch, NodeId};
use hay_common::limits::{GIB, HEARTBEAT_COMMAND_AGAIN, HEARTBEAT_GONE, HEARTBEAT_TIMEOUT};
use hay_common::model::volumes_digest;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::live::{Down, Heard, Report, VolumeReport};
use crate::state::{Command, Configuration, Node, Outcome};

/// Servers that do what they are told, a leader that does what its plans say, and a clock.
struct World {
    state: State,
    live: Live,
    policy: Policy,
    now: Duration,
    servers: BTreeMap<u8, Server>,
    /// These do nothing.
    paused: BTreeSet<u8>,
}

struct Server {
    session: u64,
    commands: mpsc::Receiver<Down>,
    volumes: BTreeMap<VolumeId, VolumeReport>,
    free_bytes: u64,
    reserve_bytes: u64,
}

fn id(n: u8) -> NodeId {
    NodeId::from_random(u128::from(n) + 1)
}

fn info(n: u8) -> Node {
    Node { address: format!("server-{n}"), rack: format!("rack-{}", n / 2), ..Node::default() }
}

fn fresh(volume: VolumeId, epoch: Epoch, class: SizeClass) -> VolumeReport {
    VolumeReport {
        id: volume,
        epoch,
        class,
        state: VolumeState::Writable,
        read_only_reason: None,
        size_bytes: 64,
        needles: 0,
        garbage_bytes: 0,
        filling: false,
        incomplete: false,
        fill_problem: None,
        fill_failures: 0,
        failed_replica: None,
    }
}

impl World {
    fn new(servers: u8, replicas: u8) -> Self {
        let mut world = Self {
            state: State::default(),
            live: Live::default(),
            policy: Policy::default(),
            now: Duration::from_secs(100),
            servers: BTreeMap::new(),
            paused: BTreeSet::new(),
        };
        world.live.begin(world.now);
        world.state.apply(Command::Configure(Configuration { replicas }));
        for n in 0..servers {
            world.connect(n, BTreeMap::new());
        }
        world.settle();
        world
    }

    fn connect(&mut self, n: u8, volumes: BTreeMap<VolumeId, VolumeReport>) {
        self.state.apply(Command::Register { node: id(n), info: info(n) });
        let (tx, commands) = mpsc::channel(100);
        let session = self.live.connect(id(n), tx, self.now);
        let server = Server { session, commands, volumes, free_bytes: 100 * GIB, reserve_bytes: GIB };
        self.servers.insert(n, server);
        self.report(n);
    }

    fn report(&mut self, n: u8) {
        let server = &self.servers[&n];
        let volumes: Vec<VolumeReport> = server.volumes.values().cloned().collect();
        let report = Report {
            full: true,
            node: id(n),
            info: info(n),
            digest: volumes_digest(volumes.iter().map(|v| (v.id, v.epoch, v.state))),
            volumes,
            removed: Vec::new(),
            free_bytes: server.free_bytes,
            reserve_bytes: server.reserve_bytes,
            total_bytes: 200 * GIB,
            sequence: 1,
            partial: false,
            instance: None,
        };
        assert_eq!(self.live.hear(server.session, report, self.now), Heard::Known);
    }

    fn view(&self) -> View<'_> {
        View { state: &self.state, live: &self.live, now: self.now, policy: &self.policy }
    }

    /// One plan, carried out; whether there was anything to do.
    fn step(&mut self) -> bool {
        let plan = decide(&self.view());
        let busy = plan != Plan::default();
        for (node, down) in plan.down {
            self.live.send(node, down, self.now);
        }
        self.live.tell(self.state.version);
        for command in plan.commands {
            let outcome = self.state.apply(command.clone());
            assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
            if let (Command::Create(volumes), Outcome::Created(ids)) = (&command, &outcome) {
                ids.iter().zip(volumes).for_each(|(id, volume)| self.live.made(*id, volume, self.now));
            }
        }
        for n in self.servers.keys().copied().filter(|n| !self.paused.contains(n)).collect::<Vec<_>>() {
            self.obey(n);
        }
        busy
    }

    fn obey(&mut self, n: u8) {
        let server = self.servers.get_mut(&n).unwrap();
        let mut obeyed = false;
        while let Ok(down) = server.commands.try_recv() {
            obeyed = true;
            match down {
                Down::Create { volume, epoch, class, .. } => {
                    server.volumes.insert(volume, fresh(volume, epoch, class));
                }
                Down::Seal { volume, epoch } => {
                    let known = server.volumes.get_mut(&volume).unwrap();
                    known.epoch = epoch;
                    known.state = VolumeState::Sealed;
                }
                Down::FullReport | Down::Acknowledge { .. } | Down::Confirm(_) => {}
                Down::Fill { volume, epoch, class, .. } => {
                    let report = fresh(volume, epoch, class);
                    server.volumes.insert(volume, VolumeReport { state: VolumeState::Sealed, ..report });
                }
            }
        }
        if obeyed {
            self.report(n);
        }
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.step() {
                return;
            }
        }
        panic!("plans never end: {:?}", decide(&self.view()));
    }

    fn leased(&self, avoid: &[VolumeId]) -> Vec<VolumeId> {
        select(&self.view(), avoid, 0).into_iter().map(|leased| leased.volume).collect()
    }

    fn change(&mut self, n: u8, volume: VolumeId, change: impl FnOnce(&mut VolumeReport)) {
        change(self.servers.get_mut(&n).unwrap().volumes.get_mut(&volume).unwrap());
        self.report(n);
    }
}

#[test]
fn an_empty_cluster_has_volumes_of_each_class_as_soon_as_a_server_reports() {
    let mut world = World::new(1, 1);
    assert_eq!(world.state.volumes.len(), 4);
    let leased = select(&world.view(), &[], 0);
    assert!(covers_all(&leased));
    assert_eq!(leased.len(), 4);
    assert_eq!(leased[0].replicas, ["server-0"]);
    assert_eq!(shortage(&world.view(), &leased), None);
    assert!(!world.step(), "nothing more to do");
    let nobody = World::new(0, 1);
    assert_eq!(shortage(&nobody.view(), &[]), Some(Shortage::NoServers));
}

#[test]
fn a_nearly_full_volume_gets_a_successor_and_a_full_one_is_sealed() {
    let mut world = World::new(1, 1);
    let volume = world.leased(&[])[0];
    let max = world.policy.volume_bytes_max;
    world.change(0, volume, |report| report.size_bytes = max / 100 * 86);
    world.settle();
    assert_eq!(world.state.volumes.len(), 5, "a successor, before need");
    assert!(world.leased(&[]).contains(&volume), "it is still written to");
    world.change(0, volume, |report| report.size_bytes = max / 100 * 96);
    assert!(!world.leased(&[]).contains(&volume));
    world.settle();
    let sealed = &world.state.volumes[&volume];
    assert_eq!((sealed.state, sealed.epoch), (VolumeState::Sealed, Epoch(2)));
    assert_eq!(world.servers[&0].volumes[&volume].epoch, Epoch(2), "fenced at the server first");
    assert_eq!(world.state.volumes.len(), 5);
}

#[test]
fn what_can_not_be_written_is_replaced_within_bounds() {
    let mut world = World::new(1, 1);
    for _ in 0..40 {
        let Some(volume) = world.leased(&[]).first().copied() else { break };
        world.change(0, volume, |report| report.read_only_reason = Some("a failed sync".to_owned()));
        assert!(!world.leased(&[]).contains(&volume));
        world.settle();
    }
    assert_eq!(world.state.volumes.len(), 2 * world.policy.active_per_class_max);
}

#[test]
fn a_volume_that_a_server_no_longer_reports_is_not_leased() {
    let mut world = World::new(1, 1);
    let volume = world.leased(&[])[0];
    world.servers.get_mut(&0).unwrap().volumes.remove(&volume);
    world.report(0);
    assert!(!world.leased(&[]).contains(&volume));
    world.settle();
    assert_eq!(world.state.volumes.len(), 5);
    assert_eq!(
        world.state.volumes[&volume].state,
        VolumeState::Writable,
        "nothing is decided about what it held"
    );
}

#[test]
fn suspects_are_replaced_and_come_back() {
    let mut world = World::new(1, 1);
    let all = world.leased(&[]);
    let now = world.now;
    all.iter().for_each(|volume| world.live.suspect(*volume, now));
    assert_eq!(world.leased(&all), []);
    world.settle();
    let fresh = world.leased(&all);
    assert_eq!(fresh.len(), 4);
    assert!(fresh.iter().all(|volume| !all.contains(volume)));
    assert!(all.iter().all(|volume| world.state.volumes.contains_key(volume)));
}

#[test]
fn no_room_means_no_new_volume_and_says_so() {
    let mut world = World::new(1, 1);
    world.servers.get_mut(&0).unwrap().free_bytes = GIB + world.policy.free_bytes_min - 1;
    world.report(0);
    let all = world.leased(&[]);
    assert_eq!(all.len(), 4, "what is there may be used: the server itself guards its reserve");
    let now = world.now;
    all.iter().for_each(|volume| world.live.suspect(*volume, now));
    assert!(!world.step());
    assert_eq!(shortage(&world.view(), &[]), Some(Shortage::NoRoom { roomy: 0, wanted: 1 }));
}

#[test]
fn a_silent_server_is_left_out_after_its_time_and_its_commands_are_repeated() {
    let mut world = World::new(2, 1);
    assert_eq!(world.leased(&[]).len(), 8);
    world.now += HEARTBEAT_TIMEOUT / 2;
    world.report(0);
    world.now += HEARTBEAT_TIMEOUT / 2;
    assert!(world.live.alive(id(0), world.now) && !world.live.alive(id(1), world.now));
    let leased = select(&world.view(), &[], 0);
    assert!(leased.iter().all(|leased| leased.replicas == ["server-0"]), "{leased:?}");
    assert!(covers_all(&leased));
    assert!(!world.live.alive(id(9), world.now), "never heard of since the leadership began");
    assert!(world.live.alive(id(9), Duration::from_secs(101)), "a new leader calls nobody dead");

    // A server that does not obey is told again, not at once.
    let mut world = World::new(1, 1);
    let volume = world.leased(&[])[0];
    let now = world.now;
    world.live.suspect(volume, now);
    let plan = decide(&world.view());
    plan.commands.into_iter().for_each(|command| drop(world.state.apply(command)));
    let first = decide(&world.view()).down;
    assert_eq!(first.len(), 1);
    world.live.send(first[0].0, first[0].1.clone(), now);
    assert_eq!(decide(&world.view()).down, []);
    world.now += HEARTBEAT_COMMAND_AGAIN;
    assert_eq!(decide(&world.view()).down, first);
}

#[test]
fn replicas_are_on_different_servers_and_racks() {
    let world = World::new(4, 2);
    assert_eq!(world.state.volumes.len(), 16);
    for volume in world.state.volumes.values() {
        let racks: BTreeSet<&str> =
            volume.members.iter().map(|m| world.state.nodes[&m.node].rack.as_str()).collect();
        assert_eq!(racks.len(), 2, "{volume:?}");
        assert_eq!(volume.state, VolumeState::Writable);
    }
    let lonely = World::new(1, 2);
    assert!(lonely.state.volumes.is_empty(), "too few servers");
}

#[test]
fn a_seal_waits_for_the_living_and_not_for_the_dead() {
    let mut world = World::new(2, 2);
    let (volume, members) =
        world.state.volumes.iter().map(|(id, v)| (*id, v.members.clone())).next().unwrap();
    let server = |member: usize| if members[member].node == id(0) { 0 } else { 1 };
    // One replica sealed itself; the other still takes appends.
    world.change(server(0), volume, |report| report.state = VolumeState::Sealed);
    let plan = decide(&world.view());
    assert!(plan.commands.contains(&Command::Seal { volume, epoch: Epoch(1), fence: Epoch(1) }));
    plan.commands.into_iter().for_each(|command| drop(world.state.apply(command)));
    let plan = decide(&world.view());
    let told: BTreeSet<NodeId> = plan
        .down
        .iter()
        .filter(|(_, d)| *d == Down::Seal { volume, epoch: Epoch(2) })
        .map(|(n, _)| *n)
        .collect();
    assert_eq!(told.len(), 2);
    world.change(server(0), volume, |report| report.epoch = Epoch(2));
    assert!(!decide(&world.view()).commands.contains(&Command::Sealed { volume, epoch: Epoch(2) }));
    // The other dies instead of answering.
    world.now += HEARTBEAT_TIMEOUT;
    world.report(server(0));
    assert!(decide(&world.view()).commands.contains(&Command::Sealed { volume, epoch: Epoch(2) }));
}

#[test]
fn a_seal_does_not_wait_for_a_member_whose_disk_has_failed() {
    let mut world = World::new(3, 3);
    let volume = *world.state.volumes.keys().next().unwrap();
    // It lives, and can't persist anything any more.
    world.paused.insert(2);
    world.change(2, volume, |report| report.read_only_reason = Some("a write failed".to_owned()));
    let plan = decide(&world.view());
    plan.commands.into_iter().for_each(|command| drop(world.state.apply(command)));
    assert_eq!(world.state.sealing(volume), Some(Epoch(2)));
    let sealed = Command::Sealed { volume, epoch: Epoch(2) };
    let seal = |world: &mut World, n| {
        world.change(n, volume, |report| {
            report.epoch = Epoch(2);
            report.state = VolumeState::Sealed;
        });
    };
    assert!(!decide(&world.view()).commands.contains(&sealed), "nobody has fenced it");
    seal(&mut world, 0);
    assert!(!decide(&world.view()).commands.contains(&sealed), "the other that is well will answer");
    seal(&mut world, 1);
    assert!(decide(&world.view()).commands.contains(&sealed));
    // One that stopped because another failed can seal, and is waited for.
    world.change(2, volume, |report| report.failed_replica = Some(id(1)));
    assert!(!decide(&world.view()).commands.contains(&sealed));
}

/// A server's report of many volumes: so many parts, of which `heard` have come.
fn report_in_parts(world: &mut World, n: u8, parts: usize, heard: usize) -> Vec<Heard> {
    let server = &world.servers[&n];
    let volumes: Vec<VolumeReport> = server.volumes.values().cloned().collect();
    let digest = volumes_digest(volumes.iter().map(|v| (v.id, v.epoch, v.state)));
    let (session, size) = (server.session, volumes.len().div_ceil(parts));
    let mut answers = Vec::new();
    for (at, part) in volumes.chunks(size).enumerate().take(heard) {
        let report = Report {
            full: at == 0,
            node: id(n),
            info: info(n),
            volumes: part.to_vec(),
            removed: Vec::new(),
            free_bytes: 100 * GIB,
            reserve_bytes: GIB,
            total_bytes: 200 * GIB,
            digest,
            sequence: 1,
            partial: at + 1 < parts,
            instance: None,
        };
        answers.push(world.live.hear(session, report, world.now));
    }
    answers
}

#[test]
fn what_is_in_a_part_of_a_report_that_has_not_come_yet_is_not_lost() {
    let mut world = World::new(2, 2);
    let held = world.servers[&1].volumes.clone();
    for is_new in [false, true] {
        if is_new {
            let (tx, commands) = mpsc::channel(100);
            let session = world.live.connect(id(1), tx, world.now);
            let server = Server {
                session,
                commands,
                volumes: held.clone(),
                free_bytes: 100 * GIB,
                reserve_bytes: GIB,
            };
            world.servers.insert(1, server);
        }
        for heard in 1..4 {
            let answers = report_in_parts(&mut world, 1, 4, heard);
            assert_eq!(answers, vec![Heard::Known; heard], "new stream: {is_new}");
            let seals = |c: &Command| matches!(c, Command::Seal { .. });
            assert!(!decide(&world.view()).commands.iter().any(seals), "new stream: {is_new}");
        }
        report_in_parts(&mut world, 1, 4, 4);
        assert!(world.live.speaks(id(1), world.now));
        assert_eq!(decide(&world.view()), Plan::default());
    }
    // What the last part does not bring either is lost.
    let gone = *held.keys().next().unwrap();
    world.servers.get_mut(&1).unwrap().volumes.remove(&gone);
    report_in_parts(&mut world, 1, 3, 3);
    let seal = Command::Seal { volume: gone, epoch: Epoch(1), fence: Epoch(1) };
    assert!(decide(&world.view()).commands.contains(&seal));
}

#[test]
fn nobody_is_dead_because_the_leader_was_held_up() {
    let mut world = World::new(2, 2);
    world.now += HEARTBEAT_TIMEOUT * 2;
    assert!(!world.live.alive(id(0), world.now));
    let now = world.now;
    world.live.was_held_up(now);
    world.report(0);
    assert!(world.live.alive(id(1), world.now), "its reports may be waiting");
    assert!(!decide(&world.view()).commands.iter().any(|c| matches!(c, Command::Seal { .. })));
    world.now += HEARTBEAT_TIMEOUT;
    world.report(0);
    assert!(decide(&world.view()).commands.iter().any(|c| matches!(c, Command::Seal { .. })));
}

proptest! {
    #[test]
    fn whatever_happens_plans_end_and_leases_are_right(
        events in prop::collection::vec((0u8..3, 0u8..7, 0usize..20), 0..30),
        replicas in 1u8..3,
    ) {
        let mut world = World::new(3, replicas);
        for (server, what, which) in events {
            let held: Vec<VolumeId> = world.servers[&server].volumes.keys().copied().collect();
            let Some(volume) = held.get(which % held.len().max(1)).copied() else { continue };
            let max = world.policy.volume_bytes_max;
            match what {
                0 => world.change(server, volume, |r| r.size_bytes = max),
                1 => world.change(server, volume, |r| r.size_bytes = max / 100 * 90),
                2 => world.change(server, volume, |r| r.read_only_reason = Some("x".to_owned())),
                3 => world.change(server, volume, |r| r.state = VolumeState::Sealed),
                4 => {
                    let volumes = world.servers[&server].volumes.clone();
                    world.connect(server, volumes);
                }
                5 => {
                    world.servers.get_mut(&server).unwrap().volumes.remove(&volume);
                    world.report(server);
                }
                _ => {
                    let now = world.now;
                    world.live.suspect(volume, now);
                }
            }
            world.settle();
            let avoid = world.leased(&[]).into_iter().take(1).collect::<Vec<_>>();
            for leased in select(&world.view(), &avoid, which) {
                prop_assert!(!avoid.contains(&leased.volume));
                let volume = &world.state.volumes[&leased.volume];
                prop_assert_eq!((volume.epoch, volume.state), (leased.epoch, VolumeState::Writable));
                prop_assert_eq!(leased.replicas.len(), usize::from(replicas));
                for member in &volume.members {
                    let n = (0..3).find(|n| id(*n) == member.node).unwrap();
                    let report = &world.servers[&n].volumes[&leased.volume];
                    prop_assert!(report.state == VolumeState::Writable && report.read_only_reason.is_none());
                    prop_assert!(report.size_bytes < max / 100 * 95 + 100);
                }
            }
        }
    }
}
