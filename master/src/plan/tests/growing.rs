//! When servers fail each other, are full, or too few: how many volumes are made, and what is said.

use super::spread::{labelled, unlabelled, world_of};
use super::*;
use hay_common::limits::{FREE_SPACE_RESERVE_BYTES, GROWTH_PAUSE_MAX, NODE_SUSPECTED};

const SECOND: Duration = Duration::from_secs(1);

fn server(node: NodeId) -> u8 {
    (0..20).find(|n| id(*n) == node).unwrap()
}

fn members(world: &World, volume: VolumeId) -> Vec<u8> {
    world.state.volumes[&volume].members.iter().map(|member| server(member.node)).collect()
}

/// A second passes in which somebody writes to each volume that is leased; where `cut` says so, a replica does not take it.
fn write(world: &mut World, cut: impl Fn(u8, u8) -> bool) {
    world.now += SECOND;
    for n in world.servers.keys().copied().collect::<Vec<_>>() {
        world.report(n);
    }
    for volume in world.leased(&[]) {
        let (primary, others) = members(world, volume).split_first().map(|(p, o)| (*p, o.to_vec())).unwrap();
        if let Some(failed) = others.into_iter().find(|other| cut(primary, *other)) {
            world.change(primary, volume, |report| {
                report.read_only_reason = Some(format!("replica {failed}: connection refused"));
                report.failed_replica = Some(id(failed));
            });
        }
    }
    world.settle();
    // What is sealed plays no part any more.
    for server in world.servers.values_mut() {
        server.volumes.retain(|_, report| report.state != VolumeState::Sealed);
    }
}

#[test]
fn where_no_append_succeeds_volumes_are_made_ever_more_slowly() {
    for (servers, replicas) in [(2, 2), (3, 2), (6, 3)] {
        let mut world = unlabelled(servers, replicas);
        let mut made = Vec::new();
        for _ in 0..6 {
            let before = world.state.volumes.len();
            (0..600).for_each(|_| write(&mut world, |_, _| true));
            made.push(world.state.volumes.len() - before);
        }
        // In the last ten minutes of an hour: a pause of five minutes, and what a server gets when it is trusted again.
        assert!(made[5] <= usize::from(servers) * 30, "{servers} servers, {replicas} replicas: {made:?}");
        let reason = (0..600).find_map(|_| {
            write(&mut world, |_, _| true);
            match shortage(&world.view(), &select(&world.view(), &[], 0)) {
                Some(Shortage::Failing { reason, .. }) => Some(reason),
                _ => None,
            }
        });
        assert!(reason.unwrap().contains("connection refused"));
        // Healed: writing goes on after the pause at the latest.
        let is_served = (0..=GROWTH_PAUSE_MAX.as_secs()).any(|_| {
            write(&mut world, |_, _| false);
            covers_all(&select(&world.view(), &[], 0))
        });
        assert!(is_served, "{servers} servers, {replicas} replicas");
    }
}

#[test]
fn two_servers_of_three_that_can_not_reach_each_other_cost_few_volumes_and_no_writing() {
    let mut world = unlabelled(3, 2);
    for second in 0..3600 {
        write(&mut world, |one, other| one != 2 && other != 2);
        assert!(covers_all(&select(&world.view(), &[], 0)), "after {second} s");
    }
    assert!(world.state.volumes.len() < 200, "{}", world.state.volumes.len());
}

#[test]
fn halves_that_can_not_reach_each_other_write_each_for_itself() {
    let mut world = unlabelled(6, 3);
    for second in 0..3600 {
        write(&mut world, |one, other| (one < 3) != (other < 3));
        let is_served = covers_all(&select(&world.view(), &[], 0));
        assert!(is_served || second < 60, "after {second} s");
    }
    assert!(world.state.volumes.len() < 600, "{}", world.state.volumes.len());
}

#[test]
fn a_server_that_is_full_up_to_its_own_reserve_gets_nothing() {
    let mut world = unlabelled(3, 2);
    let own = |world: &mut World, n: u8, free: u64, reserve: u64| {
        let server = world.servers.get_mut(&n).unwrap();
        (server.free_bytes, server.reserve_bytes) = (free, reserve);
        world.report(n);
    };
    // More than the usual reserve is free, and less than its own.
    let (free, reserve) = (8 * GIB, 10 * GIB);
    assert!(free > FREE_SPACE_RESERVE_BYTES + world.policy.free_bytes_min);
    own(&mut world, 2, free, reserve);
    assert_eq!(excluded(&world.view(), id(2)), Some(Excluded::NoRoom));
    let leased = world.leased(&[]);
    assert!(!leased.is_empty() && leased.iter().all(|volume| !members(&world, *volume).contains(&2)));
    let before = world.state.volumes.len();
    leased.iter().for_each(|volume| world.live.suspect(*volume, world.now));
    world.settle();
    let new: Vec<VolumeId> = world.state.volumes.keys().skip(before).copied().collect();
    assert!(!new.is_empty() && new.iter().all(|volume| !members(&world, *volume).contains(&2)));
    // Now only one has room.
    own(&mut world, 1, free, reserve);
    let volumes = world.state.volumes.len();
    world.state.volumes.keys().for_each(|volume| world.live.suspect(*volume, world.now));
    world.settle();
    assert_eq!(world.state.volumes.len(), volumes);
    assert_eq!(shortage(&world.view(), &[]), Some(Shortage::NoRoom { roomy: 1, wanted: 2 }));
    // A small reserve is as good as the usual one.
    own(&mut world, 1, FREE_SPACE_RESERVE_BYTES, 0);
    assert_eq!(excluded(&world.view(), id(1)), None);
}

#[test]
fn too_few_servers_are_named() {
    let few = |world: &World| match shortage(&world.view(), &[]) {
        Some(Shortage::TooFew { tier, there, wanted }) => (tier, there, wanted),
        other => panic!("{other:?}"),
    };
    assert_eq!(few(&unlabelled(2, 3)), (String::new(), 2, 3));
    let tiered = |n: u8, tier: &str| (n, Node { tier: tier.to_owned(), ..info(n) });
    let world = world_of(vec![tiered(0, "hot"), tiered(1, "hot"), tiered(2, "warm")], 3);
    assert_eq!(few(&world), ("hot".to_owned(), 2, 3));
}

#[test]
fn a_tier_with_too_few_servers_above_suspicion_uses_those_that_speak() {
    let tiered = |n: u8, tier: &str| (n, Node { tier: tier.to_owned(), ..labelled(n, "", "").1 });
    let mut world = world_of(vec![tiered(0, "hot"), tiered(1, "hot"), tiered(2, "warm")], 2);
    world.now += HEARTBEAT_GONE;
    (0..3).for_each(|n| world.report(n));
    let hot: Vec<VolumeId> = world.state.volumes.keys().copied().collect();
    assert!(!hot.is_empty() && hot.iter().all(|volume| !members(&world, *volume).contains(&2)));
    for volume in hot.iter().copied() {
        let failing = members(&world, volume)[0];
        let failed = members(&world, volume)[1];
        if failing == 0 {
            world.change(0, volume, |report| {
                report.read_only_reason = Some("replica failed".to_owned());
                report.failed_replica = Some(id(failed));
            });
        } else {
            world.live.suspect(volume, world.now);
        }
    }
    assert!(!world.live.is_well(id(1), world.now) && world.live.is_well(id(2), world.now));
    world.settle();
    let leased = select(&world.view(), &hot, 0);
    assert!(covers_all(&leased), "two are well, but not of one tier: {leased:?}");
}

#[test]
fn a_suspicion_does_not_bring_copies_together_for_good() {
    let mut world = world_of(vec![labelled(0, "a", "1"), labelled(1, "a", "2"), labelled(2, "b", "3")], 2);
    let spread = world.state.volumes.len();
    assert_eq!(survey(&world.view()).crowded, 0);
    world.now += HEARTBEAT_GONE;
    (0..3).for_each(|n| world.report(n));
    let with = |world: &World, primary: u8| {
        let found = world.state.volumes.keys().find(|volume| members(world, **volume)[0] == primary);
        *found.unwrap()
    };
    let volume = with(&world, 0);
    world.change(0, volume, |report| {
        report.read_only_reason = Some("replica failed".to_owned());
        report.failed_replica = Some(id(2));
    });
    assert!(!world.live.is_well(id(2), world.now));
    world.settle();
    let crowded = |world: &World, volume: VolumeId| !members(world, volume).contains(&2);
    let close: Vec<VolumeId> =
        world.state.volumes.keys().copied().filter(|volume| crowded(&world, *volume)).collect();
    assert_eq!(close.len(), SIZES.len(), "what writers need, and no more");
    assert_eq!(survey(&world.view()).crowded, close.len());
    assert!(covers_all(&select(&world.view(), &[], 0)));
    // When the suspicion is over they are used no more.
    for _ in 0..=NODE_SUSPECTED.as_secs() {
        write(&mut world, |_, _| false);
    }
    assert!(world.live.is_well(id(2), world.now));
    assert!(world.leased(&[]).iter().all(|volume| !crowded(&world, *volume)));
    assert!(world.state.volumes.len() > spread);
}

#[test]
fn what_is_refused_because_of_a_seal_is_no_failure() {
    let mut world = unlabelled(3, 2);
    world.now += HEARTBEAT_GONE;
    (0..3).for_each(|n| world.report(n));
    let volume = world.leased(&[])[0];
    let [primary, other] = members(&world, volume)[..] else { panic!("two replicas") };
    world.paused.extend([primary, other]);
    let full = world.policy.volume_bytes_max;
    world.change(primary, volume, |report| report.size_bytes = full);
    world.settle();
    assert!(world.state.sealing(volume).is_some());
    // The other one has sealed first, and refuses what the primary had under way.
    world.change(primary, volume, |report| {
        report.read_only_reason = Some("replica failed: the volume is sealed".to_owned());
        report.failed_replica = Some(id(other));
    });
    assert!(world.live.is_well(id(other), world.now));
}

#[test]
fn volumes_that_lack_copies_are_counted_and_named() {
    let mut world = unlabelled(3, 2);
    assert_eq!(survey(&world.view()), Survey::default());
    let volume = *world.state.volumes.keys().find(|volume| members(&world, **volume).contains(&2)).unwrap();
    let full = world.policy.volume_bytes_max;
    world.change(2, volume, |report| report.size_bytes = full);
    world.settle();
    assert_eq!(world.state.volumes[&volume].state, VolumeState::Sealed);
    assert_eq!(survey(&world.view()).lacking, 0, "it has both");
    world.change(2, volume, |report| report.incomplete = true);
    let seen = survey(&world.view());
    assert_eq!((seen.lacking, seen.lacking_first), (1, vec![volume]));
    world.change(2, volume, |report| report.incomplete = false);
    world.now += HEARTBEAT_TIMEOUT;
    (0..2).for_each(|n| world.report(n));
    assert!(survey(&world.view()).lacking_first.contains(&volume), "its server is dead");
    assert_eq!(excluded(&world.view(), id(2)), Some(Excluded::Silent));
}
