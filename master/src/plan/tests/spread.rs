//! Where volumes are, and that no one server is needed by all of them.

use super::*;

pub(super) fn labelled(n: u8, zone: &str, rack: &str) -> (u8, Node) {
    let info = Node { zone: zone.to_owned(), rack: rack.to_owned(), ..info(n) };
    (n, info)
}

pub(super) fn world_of(servers: Vec<(u8, Node)>, replicas: u8) -> World {
    let mut world = World::new(0, replicas);
    for (n, info) in servers {
        world.connect(n, BTreeMap::new());
        world.state.apply(Command::Register { node: id(n), info });
    }
    world.settle();
    world
}

pub(super) fn unlabelled(servers: u8, replicas: u8) -> World {
    world_of((0..servers).map(|n| labelled(n, "", "")).collect(), replicas)
}

/// For each server: a volume of each class without it, in every lease.
fn does_without_any(world: &World) {
    for turn in 0..12 {
        let leased = select(&world.view(), &[], turn);
        assert!(covers_all(&leased) && leased.len() <= hay_common::limits::WRITE_LEASE_VOLUMES_MAX);
        for node in world.servers.keys() {
            let address = format!("server-{node}");
            for size in SIZES {
                let other = leased.iter().find(|l| l.class == size && !l.replicas.contains(&address));
                assert!(other.is_some(), "all {size:?} volumes of lease {turn} need {address}: {leased:?}");
            }
        }
    }
}

#[test]
fn no_lease_needs_any_one_server() {
    for (servers, replicas) in [(2, 1), (3, 1), (3, 2), (4, 2), (4, 3), (5, 3), (7, 2), (9, 3)] {
        does_without_any(&unlabelled(servers, replicas));
    }
}

#[test]
fn writers_begin_with_different_servers() {
    let world = unlabelled(3, 2);
    let first = |turn| select(&world.view(), &[], turn)[0].replicas[0].clone();
    let firsts: BTreeSet<String> = (0..3).map(first).collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn replicas_are_in_zones_then_racks_of_their_own() {
    let servers = vec![
        labelled(0, "a", "1"),
        labelled(1, "a", "2"),
        labelled(2, "b", "1"),
        labelled(3, "b", "2"),
        labelled(4, "b", "2"),
    ];
    let world = world_of(servers, 2);
    for volume in world.state.volumes.values() {
        let zones: BTreeSet<_> = volume.members.iter().map(|m| &world.state.nodes[&m.node].zone).collect();
        assert_eq!(zones.len(), 2, "{volume:?}");
    }
    let one_zone =
        vec![labelled(0, "a", "1"), labelled(1, "a", "1"), labelled(2, "a", "2"), labelled(3, "a", "2")];
    let world = world_of(one_zone, 2);
    for volume in world.state.volumes.values() {
        let racks: BTreeSet<_> = volume.members.iter().map(|m| &world.state.nodes[&m.node].rack).collect();
        assert_eq!(racks.len(), 2, "{volume:?}");
    }
    does_without_any(&world);
    // Only one server is elsewhere: labels go before the wish to do without it.
    let lone = world_of(vec![labelled(0, "a", "1"), labelled(1, "a", "1"), labelled(2, "b", "1")], 2);
    let far = id(2);
    assert!(lone.state.volumes.values().all(|v| v.members.iter().any(|m| m.node == far)));
}

#[test]
fn when_a_server_dies_writers_go_on_and_its_volumes_are_sealed_and_replaced() {
    let mut world = unlabelled(3, 2);
    let before = world.state.volumes.len();
    world.paused.insert(2);
    for _ in 0..11 {
        world.now += Duration::from_secs(1);
        world.report(0);
        world.report(1);
        let leased = select(&world.view(), &[], 0);
        assert!(covers_all(&leased), "at any time");
    }
    world.settle();
    let dead = id(2);
    for (volume, state) in world.state.volumes.iter().map(|(id, v)| (id, v.state)) {
        let members = &world.state.volumes[volume].members;
        let needs_it = members.iter().any(|m| m.node == dead);
        assert_eq!(state == VolumeState::Sealed, needs_it, "{volume}");
    }
    assert!(world.state.volumes.len() > before, "others were made on the survivors");
    let leased = select(&world.view(), &[], 0);
    assert!(covers_all(&leased) && leased.len() == 8);
    // Had it only been paused, it would hear of each seal when it goes on.
    let paused = &mut world.servers.get_mut(&2).unwrap().commands;
    let mut seals = 0;
    while let Ok(down) = paused.try_recv() {
        if let Down::Confirm(confirmed) = down {
            seals += confirmed.iter().filter(|c| c.state == VolumeState::Sealed).count();
        }
    }
    let with_it = |v: &&Volume| v.state == VolumeState::Sealed && v.members.iter().any(|m| m.node == dead);
    assert_eq!(seals, world.state.volumes.values().filter(with_it).count());
    // It comes back with what it had: left behind, and told so.
    let had = world.servers[&2].volumes.clone();
    world.connect(2, had);
    let mut told = Vec::new();
    for down in decide(&world.view()).down {
        if let (node, Down::Seal { .. }) = &down {
            told.push(*node);
        }
    }
    assert!(told.is_empty(), "the job is over; it hears by its report what the map says");
    let held: Vec<VolumeId> = world.servers[&2].volumes.keys().copied().collect();
    let confirmed = confirm(&world.view(), dead, held);
    assert!(!confirmed.is_empty());
    assert!(confirmed.iter().all(|c| c.state == VolumeState::Sealed && c.epoch == Epoch(2)));
}

#[test]
fn a_server_that_failed_as_a_replica_gets_nothing_new_and_is_not_waited_for() {
    let mut world = World::new(4, 2);
    let (volume, members) = {
        let (id, volume) = world.state.volumes.iter().next().unwrap();
        (*id, volume.members.clone())
    };
    let server = |node: NodeId| (0..4).find(|n| id(*n) == node).unwrap();
    let (primary, failed) = (server(members[0].node), members[1].node);
    world.now += HEARTBEAT_GONE;
    (0..4).for_each(|n| world.report(n));
    world.change(primary, volume, |report| {
        report.read_only_reason = Some("replica failed".to_owned());
        report.failed_replica = Some(failed);
    });
    let leased = select(&world.view(), &[], 0);
    let address = format!("server-{}", server(failed));
    assert!(covers_all(&leased) && leased.iter().all(|l| !l.replicas.contains(&address)), "{leased:?}");
    let plan = decide(&world.view());
    assert!(plan.commands.contains(&Command::Seal { volume, epoch: Epoch(1), fence: Epoch(1) }));
    for command in plan.commands {
        let before = world.state.volumes.len();
        world.state.apply(command);
        let new = world.state.volumes.iter().skip(before);
        assert!(new.flat_map(|(_, v)| &v.members).all(|m| m.node != failed), "nothing new goes there");
    }
    // Nobody has sealed yet: nothing is published. The primary alone is enough then; the failed one still reports.
    assert!(!decide(&world.view()).commands.contains(&Command::Sealed { volume, epoch: Epoch(2) }));
    world.change(primary, volume, |report| {
        report.epoch = Epoch(2);
        report.state = VolumeState::Sealed;
    });
    assert!(decide(&world.view()).commands.contains(&Command::Sealed { volume, epoch: Epoch(2) }));
    assert!(!world.live.is_well(failed, world.now));
    let had = world.servers[&server(failed)].volumes.clone();
    world.connect(server(failed), had);
    assert!(world.live.is_well(failed, world.now), "it has come back");
}

/// `by` says of one of its volumes with `failed` that it can't be written to any more.
fn accuse(world: &mut World, by: u8, failed: u8) {
    let shared = |v: &&VolumeReport| {
        let members = &world.state.volumes[&v.id].members;
        v.failed_replica.is_none() && members.iter().any(|m| m.node == id(failed))
    };
    let volume = world.servers[&by].volumes.values().find(shared).unwrap().id;
    world.change(by, volume, |report| {
        report.read_only_reason = Some("replica failed".to_owned());
        report.failed_replica = Some(id(failed));
    });
}

#[test]
fn what_a_server_met_while_it_was_cut_off_is_not_held_against_the_others() {
    let mut world = unlabelled(3, 2);
    world.now += HEARTBEAT_GONE;
    accuse(&mut world, 0, 2);
    accuse(&mut world, 1, 2);
    world.settle();
    assert!(!world.live.is_well(id(2), world.now));
    // Its own calls failed all the same. It says so when it comes back: by a new stream, or by the old one.
    let mut had = world.servers[&2].volumes.clone();
    for report in had.values_mut() {
        report.read_only_reason = Some("replica failed".to_owned());
        report.failed_replica = Some(id(0));
    }
    world.connect(2, had);
    assert!((0..3).all(|n| world.live.is_well(id(n), world.now)), "a new stream");
    world.settle();
    for _ in 0..3 {
        world.now += HEARTBEAT_GONE;
        (0..2).for_each(|n| world.report(n));
    }
    accuse(&mut world, 2, 1);
    assert!((0..3).all(|n| world.live.is_well(id(n), world.now)), "the old stream");
    world.now += HEARTBEAT_GONE;
    (0..3).for_each(|n| world.report(n));
    world.settle();
    accuse(&mut world, 2, 1);
    assert!(!world.live.is_well(id(1), world.now), "it has been back for a while");
}

#[test]
fn where_all_are_suspected_writing_goes_on() {
    let mut world = unlabelled(3, 2);
    world.now += HEARTBEAT_GONE;
    for (by, failed) in [(0, 1), (1, 2), (2, 0)] {
        accuse(&mut world, by, failed);
    }
    assert!((0..3).all(|n| !world.live.is_well(id(n), world.now)));
    let avoid = world.leased(&[]);
    avoid.iter().for_each(|volume| world.live.suspect(*volume, world.now));
    world.settle();
    assert!(covers_all(&select(&world.view(), &avoid, 0)));
}

#[test]
fn volumes_on_a_disk_that_fails_again_and_again_are_bounded() {
    let mut world = World::new(3, 2);
    for _ in 0..200 {
        let bad = id(2);
        let Some(volume) = world
            .state
            .open_volumes()
            .find(|(id, v)| {
                v.members.iter().any(|m| m.node == bad) && world.servers[&2].volumes.contains_key(id)
            })
            .map(|(id, _)| id)
        else {
            break;
        };
        world.change(2, volume, |report| report.read_only_reason = Some("a sync failed".to_owned()));
        world.settle();
    }
    assert!(world.state.volumes.len() < 80, "{}", world.state.volumes.len());
    assert!(covers_all(&select(&world.view(), &[], 0)), "the others go on");
}

#[test]
fn two_runs_with_one_id_are_told_apart_and_a_restart_is_not_refused() {
    let mut world = World::new(1, 1);
    let now = world.now;
    let hear = |world: &mut World, instance| {
        let server = &world.servers[&0];
        let volumes: Vec<VolumeReport> = server.volumes.values().cloned().collect();
        let report = Report {
            full: true,
            node: id(0),
            info: info(0),
            digest: volumes_digest(volumes.iter().map(|v| (v.id, v.epoch, v.state))),
            volumes,
            removed: Vec::new(),
            free_bytes: 1,
            reserve_bytes: 0,
            total_bytes: 1,
            sequence: 2,
            partial: false,
            instance: Some(instance),
        };
        let session = server.session;
        world.live.hear(session, report, now)
    };
    assert_eq!(hear(&mut world, 7), Heard::Known);
    assert!(world.live.is_taken(id(0), Some(8), now));
    assert!(!world.live.is_taken(id(0), Some(7), now), "its own second stream");
    assert!(!world.live.is_taken(id(0), Some(8), now + hay_common::limits::HEARTBEAT_GONE), "silent");
    let session = world.servers[&0].session;
    world.live.disconnect(id(0), session);
    assert!(!world.live.is_taken(id(0), Some(8), now), "killed and started again");
}

#[test]
fn a_server_that_is_paused_gets_nothing_new_though_its_stream_is_open() {
    let mut world = unlabelled(3, 2);
    world.now += HEARTBEAT_GONE;
    (0..2).for_each(|n| world.report(n));
    assert!(world.live.alive(id(2), world.now) && !world.live.stands(id(2), world.now));
    let leased = select(&world.view(), &[], 0);
    assert!(covers_all(&leased));
    let paused = |volume: &VolumeId| world.state.volumes[volume].members.iter().any(|m| m.node == id(2));
    assert!(!leased.iter().any(|leased| paused(&leased.volume)), "writers go elsewhere first");
    let before = world.state.volumes.len();
    let avoid: Vec<VolumeId> = leased.iter().map(|leased| leased.volume).collect();
    avoid.iter().for_each(|volume| world.live.suspect(*volume, world.now));
    for command in decide(&world.view()).commands {
        world.state.apply(command);
    }
    let mut new = world.state.volumes.values().skip(before);
    assert!(world.state.volumes.len() > before && new.all(|v| v.members.iter().all(|m| m.node != id(2))));
    world.report(2);
    assert!(world.live.is_well(id(2), world.now));
}
