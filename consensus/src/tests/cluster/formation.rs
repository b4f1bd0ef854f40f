//! How groups come to be: at most one ever does, whoever starts when and is lost on the way.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hay_common::disk::RealDisk;
use hay_common::ids::ClusterId;
use hay_common::random::SeededRandom;

use super::{Cluster, eventually};
use crate::formation::{Formation, FormationId};
use crate::switchboard::Weather;
use crate::transport::{CallKind, Envelope};
use crate::{Group, GroupConfig, ProposeError, Refusal};

/// Formations that members have a log of.
fn formed(cluster: &Cluster) -> BTreeSet<String> {
    let groups = cluster.running().into_iter().map(|n| cluster.group(n));
    let taken_part = groups.filter(|group| !group.inner.receiver.formed.pristine());
    taken_part.filter_map(|group| group.status().formation.map(|id| id.to_string())).collect()
}

/// One race: all start in some order, are killed and come back in the middle, some with nothing.
async fn race(seed: u64) {
    let mut cluster = Cluster::new(3, seed);
    let random = SeededRandom::shared(seed ^ 0x000f_04ed);
    let below = |n: u32| random.u32() % n;
    cluster
        .board
        .weather(Weather { delay_max: Duration::from_millis(u64::from(below(40))), ..Weather::default() });
    let mut ever = BTreeSet::new();
    let mut acknowledged = BTreeSet::new();
    // One is lost at most: a majority that lost everything is no fault that a group survives.
    let mut may_wipe = true;
    for step in 0..12 {
        let n = below(3) as usize;
        match (cluster.places[n].group.is_some(), below(6)) {
            (false, _) => cluster.start(n).await,
            (true, 0) => cluster.kill(n).await,
            (true, 1) if may_wipe => {
                cluster.wipe(n).await;
                may_wipe = false;
            }
            (true, 2) => {
                let command = format!("{step}");
                let write = cluster.group(n);
                let written = tokio::time::timeout(
                    Duration::from_millis(100),
                    write.propose(Bytes::from(command.clone())),
                );
                if written.await.is_ok_and(|written| written.is_ok()) {
                    acknowledged.insert(command);
                }
            }
            (true, _) => tokio::time::sleep(Duration::from_millis(u64::from(below(250)))).await,
        }
        ever.extend(formed(&cluster));
        assert!(formed(&cluster).len() <= 1, "seed {seed}: {:?} at once", formed(&cluster));
    }
    cluster.board.weather(Weather::default());
    for n in 0..3 {
        if cluster.places[n].group.is_none() {
            cluster.start(n).await;
        }
    }
    let leader = eventually(&format!("seed {seed}: a leader"), || {
        cluster.running().into_iter().find(|n| cluster.group(*n).leading().borrow().is_some())
    })
    .await;
    cluster.write_among(&[0, 1, 2], "the end").await;
    ever.extend(formed(&cluster));
    assert_eq!(formed(&cluster).len(), 1, "seed {seed}");
    // A formation that only a lost member ever had may have been there; what was acknowledged is in the one that stays.
    if !acknowledged.is_empty() {
        let has: BTreeSet<String> = cluster.has(leader).into_iter().collect();
        assert!(acknowledged.is_subset(&has), "seed {seed}: {acknowledged:?} of {has:?}");
    }
    assert!(ever.len() <= 2, "seed {seed}: {ever:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_races_one_group_comes() {
    let races = std::env::var("HAY_RAFT_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut seeds = 0..races;
    let mut running = tokio::task::JoinSet::new();
    loop {
        while running.len() < 8
            && let Some(seed) = seeds.next()
        {
            running.spawn(race(seed));
        }
        match running.join_next().await {
            Some(done) => done.unwrap(),
            None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_group_is_formed_while_one_peer_is_silent() {
    let mut cluster = Cluster::new(3, 1);
    cluster.start(0).await;
    cluster.start(1).await;
    eventually("both say whom they wait for", || {
        let says = |n: usize| cluster.group(n).status().forming.is_some_and(|why| why.contains("m2:1"));
        (says(0) && says(1)).then_some(())
    })
    .await;
    assert!(formed(&cluster).is_empty());
    let error = cluster.group(0).propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { leader: None, .. }), "{error}");
    cluster.start(2).await;
    cluster.write_among(&[0, 1, 2], "x").await;
    assert!((0..3).all(|n| cluster.group(n).status().forming.is_none()) || formed(&cluster).len() == 1);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_comes_back_under_a_new_id_as_a_learner() {
    let mut cluster = Cluster::formed(3, 2).await;
    cluster.write_among(&[0, 1, 2], "before").await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    let old = cluster.group(lost).member();
    cluster.wipe(lost).await;
    cluster.start(lost).await;
    let new = cluster.group(lost).member();
    assert_ne!(old, new);
    eventually("it follows", || (cluster.has(lost) == ["before"]).then_some(())).await;
    let leader = cluster.leader().await;
    let members = cluster.group(leader).status().members;
    assert_eq!(members.len(), 4, "{members:?}");
    let voter = |id| members.iter().find(|m| m.id == id).map(|m| m.voter);
    assert_eq!((voter(old), voter(new)), (Some(true), Some(false)));
    // What is sent to the one that was there is refused, and said.
    eventually("the old one is missed", || {
        let members = cluster.group(leader).status().members;
        members
            .into_iter()
            .find(|m| m.id == old)
            .and_then(|m| m.problem)
            .filter(|why| why.contains("here is member"))
    })
    .await;
    let group = cluster.group(leader);
    eventually("it has caught up", || {
        let members = cluster.group(leader).status().members;
        members.into_iter().find(|m| m.id == new).and_then(|m| m.lag).filter(|lag| *lag == 0)
    })
    .await;
    group.promote(new).await.unwrap();
    group.remove_member(old).await.unwrap();
    let members = group.status().members;
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|m| m.voter && m.id != old));
    // It counts now: with it and one more there is a majority.
    let third = (0..3).find(|n| *n != leader && *n != lost).unwrap();
    cluster.kill(third).await;
    cluster.write_among(&[leader, lost], "after").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_never_mix() {
    // Two groups of one cluster and one name, each formed on its own; then one's member is given the other's peers.
    let mut ours = Cluster::formed(3, 3).await;
    ours.write_among(&[0, 1, 2], "ours").await;
    let theirs = Cluster::formed(3, 4).await;
    theirs.write_among(&[0, 1, 2], "theirs").await;
    // Every address of ours is answered by theirs, but for one member.
    for n in [1, 2] {
        ours.kill(n).await;
        ours.board.plug(&ours.places[n].address, theirs.group(n));
    }
    let envelope = Envelope {
        cluster: ClusterId::from_random(super::CLUSTER),
        group: "test".to_owned(),
        formation: ours.group(0).status().formation,
        from: ours.group(0).member(),
        to: Some(theirs.group(1).member()),
        body: crate::wire::encode_vote(&openraft::raft::VoteRequest::new(
            crate::types::Vote::new(99, 1),
            None,
        ))
        .unwrap(),
    };
    let term = theirs.group(1).status().term;
    let voted = theirs.group(1).receive(CallKind::Vote, envelope.clone()).await;
    assert_eq!(voted, Err(Refusal::OtherFormation));
    let elsewhere = Envelope { to: Some(ours.group(0).member()), ..envelope.clone() };
    let voted = theirs.group(1).receive(CallKind::Vote, elsewhere).await;
    assert!(matches!(voted, Err(Refusal::OtherMember { .. })), "{voted:?}");
    let foreign = Envelope { cluster: ClusterId::from_random(7), ..envelope.clone() };
    let voted = theirs.group(1).receive(CallKind::Vote, foreign).await;
    assert!(matches!(voted, Err(Refusal::OtherCluster { .. })), "{voted:?}");
    let twin = Envelope { from: theirs.group(1).member(), ..envelope.clone() };
    let voted = theirs.group(1).receive(CallKind::Vote, twin).await;
    assert!(matches!(voted, Err(Refusal::SameMember(_))), "{voted:?}");
    let other = Envelope { group: "filer".to_owned(), ..envelope };
    let voted = theirs.group(1).receive(CallKind::Vote, other).await;
    assert!(matches!(voted, Err(Refusal::OtherGroup { .. })), "{voted:?}");
    assert_eq!(theirs.group(1).status().term, term, "nothing of it was believed");
    eventually("ours is refused", || {
        let members = ours.group(0).status().members;
        let refused =
            members.iter().filter(|m| m.problem.as_ref().is_some_and(|why| why.contains("here is member")));
        (refused.count() == 2).then_some(())
    })
    .await;
    assert!(ours.has(0) == ["ours"] && theirs.has(0) == ["theirs"]);
    ours.end().await;
    theirs.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_different_groups_are_joined_to_neither() {
    let mut cluster = Cluster::new(3, 5);
    for n in [0, 1] {
        let config = cluster.config(n);
        cluster.change = |config| GroupConfig { peers: Vec::new(), ..config };
        drop(config);
        cluster.start(n).await;
        cluster.group(n).propose(Bytes::from(format!("{n}"))).await.unwrap();
    }
    cluster.change = |config| config;
    cluster.start(2).await;
    let why = eventually("it says so", || cluster.group(2).status().forming).await;
    assert!(why.contains("different groups"), "{why}");
    assert_eq!(formed(&cluster).len(), 2);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_grows_and_an_older_directory_too() {
    let mut cluster = Cluster::new(1, 6);
    // As a program that knew one member only made it.
    let old = GroupConfig { peers: Vec::new(), address: String::new(), ..cluster.config(0) };
    let old = GroupConfig { member: Some(hay_common::ids::MemberId(1)), ..old };
    let group =
        Group::start(old, Box::new(crate::tests::Journal::default()), RealDisk::shared()).await.unwrap();
    group.propose(Bytes::from_static(b"old")).await.unwrap();
    group.shutdown().await.unwrap();
    let one = cluster.add_place();
    cluster.peers = vec![cluster.places[0].address.clone(), cluster.places[one].address.clone()];
    cluster.start(0).await;
    assert_eq!(cluster.group(0).member().0, 1);
    cluster.start(one).await;
    eventually("the new one follows", || (cluster.has(one) == ["old"]).then_some(())).await;
    assert_eq!(cluster.group(0).leader_address(), Some(cluster.places[0].address.clone()));
    cluster.end().await;
}

fn promise(cluster: &Cluster, to: usize, id: u128, list: &[&str]) -> Envelope {
    let me = cluster.group(to).member();
    let ids = [me.0, 5, 6, 7];
    let others = list.iter().filter(|address| **address != cluster.places[to].address);
    let members = std::iter::once((me.0, cluster.places[to].address.clone()))
        .chain(others.zip(&ids[1..]).map(|(address, id)| (*id, (*address).to_owned())));
    let formation = Formation { id: FormationId(id), members: members.collect() };
    Envelope {
        cluster: ClusterId::from_random(super::CLUSTER),
        group: "test".to_owned(),
        formation: None,
        from: hay_common::ids::MemberId(5),
        to: Some(me),
        body: crate::wire::encode(&formation).unwrap(),
    }
}

/// Members 0 and 1 might form one group with the last, and two others another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_promises_itself_only_to_its_own_list() {
    let mut cluster = Cluster::new(3, 7);
    cluster.start(2).await;
    for other in [&["m2:1", "m3:1", "m4:1"][..], &["m0:1", "m2:1"], &["m0:1", "m1:1", "m2:1", "m3:1"]] {
        let refused = cluster.group(2).receive(CallKind::Promise, promise(&cluster, 2, 1, other)).await;
        assert!(matches!(&refused, Err(Refusal::OtherList { .. })), "{other:?}: {refused:?}");
    }
    assert_eq!(cluster.group(2).status().formation, None);
    let own = promise(&cluster, 2, 2, &["m0:1", "m1:1", "m2:1"]);
    cluster.group(2).receive(CallKind::Promise, own).await.unwrap();
    assert_eq!(cluster.group(2).status().formation, Some(FormationId(2)));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_whose_asker_went_away_is_written_before_the_next() {
    let mut cluster = Cluster::new(3, 8);
    cluster.start(2).await;
    let disk = cluster.places[2].disk.clone();
    disk.hold("formation");
    let list = ["m0:1", "m1:1", "m2:1"];
    let ask = |id| {
        let (group, envelope) = (cluster.group(2), promise(&cluster, 2, id, &list));
        tokio::spawn(async move { group.receive(CallKind::Promise, envelope).await })
    };
    let first = ask(1);
    eventually("it is being written", || disk.holds_any().then_some(())).await;
    first.abort();
    let _ = first.await;
    let second = ask(2);
    // Time enough for it to be written beside the first.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let written = disk.holding();
    disk.let_go();
    assert_eq!(written, 1);
    second.await.unwrap().unwrap();
    assert_eq!(cluster.group(2).status().formation, Some(FormationId(2)));
    cluster.kill(2).await;
    cluster.start(2).await;
    assert_eq!(cluster.group(2).status().formation, Some(FormationId(2)));
    cluster.end().await;
}

mod decisions {
    use std::collections::BTreeMap;

    use crate::formation::decide::{Me, Step, decide};
    use crate::formation::{Description, FormationId};

    fn me(member: u64) -> Me {
        Me { member, address: "a:1".to_owned(), voted: false }
    }

    fn new(member: u64) -> Option<Description> {
        let members = BTreeMap::new();
        Some(Description {
            member,
            address: String::new(),
            initialised: false,
            voted: false,
            formation: None,
            leader: None,
            members,
        })
    }

    fn old(member: u64, formation: u128, members: &[u64]) -> Option<Description> {
        let members = members.iter().map(|id| (*id, format!("{id}:1"))).collect();
        let formation = Some(FormationId(formation));
        new(member).map(|new| Description { initialised: true, formation, members, ..new })
    }

    fn peers(said: [Option<Description>; 2]) -> BTreeMap<String, Option<Description>> {
        ["b:1".to_owned(), "c:1".to_owned()].into_iter().zip(said).collect()
    }

    #[test]
    fn only_the_lowest_forms_and_only_when_all_are_new() {
        let Step::Form(members) = decide(&me(1), true, &peers([new(2), new(3)])) else { panic!() };
        assert_eq!(members.into_keys().collect::<Vec<_>>(), [1, 2, 3]);
        for (me_id, said) in
            [(2, [new(1), new(3)]), (1, [new(2), None]), (1, [None, None]), (1, [new(1), new(2)])]
        {
            assert!(matches!(decide(&me(me_id), true, &peers(said)), Step::Wait(_)));
        }
        assert!(matches!(decide(&me(1), false, &peers([new(2), new(3)])), Step::Wait(_)));
    }

    #[test]
    fn one_that_has_voted_for_a_member_that_is_lost_leaves_it_to_others() {
        let voted = |member| new(member).map(|new| Description { voted: true, ..new });
        let step = decide(&me(3), true, &peers([voted(1), voted(2)]));
        assert!(matches!(step, Step::Form(members) if members.len() == 3));
        let old = Me { voted: true, ..me(1) };
        assert!(matches!(decide(&old, true, &peers([new(2), new(3)])), Step::Wait(_)));
    }

    #[test]
    fn what_is_formed_is_joined_whoever_else_is_silent() {
        let formation = FormationId(9);
        assert_eq!(decide(&me(1), true, &peers([old(2, 9, &[1, 2, 3]), None])), Step::Enter(formation));
        let Step::Join(found, _) = decide(&me(1), true, &peers([old(2, 9, &[2, 3]), new(3)])) else {
            panic!()
        };
        assert_eq!(found, formation);
        assert!(matches!(decide(&me(1), true, &peers([old(2, 9, &[1]), old(3, 8, &[1])])), Step::Wait(_)));
    }
}
