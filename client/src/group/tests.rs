use std::sync::atomic::Ordering;

use hay_common::clock::ManualClock;
use hay_common::random::SeededRandom;
use hay_proto::v1;
use hay_proto::v1::master_server::Master;

use super::masters::Masters;
use super::*;
use crate::testing::FakeMaster;

fn group(members: &[Arc<FakeMaster>]) -> (Masters, Arc<ManualClock>) {
    let clock = ManualClock::at(1000);
    let member = |(at, master): (usize, &Arc<FakeMaster>)| Member {
        address: format!("master-{at}:1"),
        service: FakeMaster::served(master),
    };
    let served = members.iter().enumerate().map(member).collect();
    (Masters(Group::new(served, clock.clone(), SeededRandom::shared(7))), clock)
}

async fn first_volume(masters: &Masters) -> Result<u32, Status> {
    let request = v1::VolumeMapRequest { volumes: vec![1, 2, 3], ..Default::default() };
    let reply = masters.volume_map(Request::new(request)).await?.into_inner();
    Ok(reply.volumes.first().map_or(0, |volume| volume.id))
}

#[tokio::test]
async fn a_call_goes_to_the_one_that_leads_and_stays_there() {
    let members = [1, 2, 3].map(|id| FakeMaster::new([id]));
    *members[0].failure.lock() = Some(ErrorCode::NotLeader);
    *members[1].failure.lock() = Some(ErrorCode::Unavailable);
    let (masters, _) = group(&members);
    assert_eq!(first_volume(&masters).await.unwrap(), 3);
    *members[0].failure.lock() = None;
    assert_eq!(first_volume(&masters).await.unwrap(), 3, "whoever answered is asked again");
    *members[2].failure.lock() = Some(ErrorCode::NotLeader);
    assert_eq!(first_volume(&masters).await.unwrap(), 1);
}

#[tokio::test]
async fn what_every_member_would_say_is_said_at_once() {
    let members = [1, 2].map(|id| FakeMaster::new([id]));
    *members[0].failure.lock() = Some(ErrorCode::StorageFull);
    let (masters, _) = group(&members);
    let status = first_volume(&masters).await.unwrap_err();
    assert_eq!(to_failure(&status).code, ErrorCode::StorageFull);
    assert_eq!(members[1].fetches.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_election_is_waited_for_and_a_hopeless_one_ends() {
    let members = [1, 2, 3].map(|id| FakeMaster::new([id]));
    members.iter().for_each(|member| *member.failure.lock() = Some(ErrorCode::NotLeader));
    let (masters, clock) = group(&members);
    let masters = Arc::new(masters);
    let waiting = tokio::spawn({
        let masters = masters.clone();
        async move { first_volume(&masters).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    *members[1].failure.lock() = None;
    assert_eq!(waiting.await.unwrap().unwrap(), 2);

    *members[1].failure.lock() = Some(ErrorCode::NotLeader);
    let hopeless = tokio::spawn(async move { first_volume(&masters).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    clock.advance(GROUP_PATIENCE);
    let status = hopeless.await.unwrap().unwrap_err();
    assert_eq!(to_failure(&status).code, ErrorCode::NotLeader);
}

#[tokio::test]
async fn a_silent_member_is_passed_over() {
    let members = [1, 2].map(|id| FakeMaster::new([id]));
    let (mut masters, _) = group(&members);
    masters.0.try_time = Duration::from_millis(30);
    let calls = AtomicUsize::new(0);
    let reply = masters.0.ask(Request::new(()), |_, _| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(Response::new("an answer"))
        })
    });
    assert_eq!(reply.await.unwrap().into_inner(), "an answer");
    assert_eq!(masters.0.current.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn addresses_are_checked_before_they_are_called() {
    for bad in ["10.0.0.1", "http://10.0.0.1:9", "host:7001/path", "a@b:1", ":7001", "host:", "host:99999"] {
        assert!(Members::at(&[bad.to_owned()]).is_err(), "{bad}");
    }
    assert!(Members::at(&["host:7001".to_owned(), "[::1]:7001".to_owned()]).is_ok());
    assert!(matches!(Members::at(&[]), Err(GroupError::Empty)));
    let wrong = Members::at(&["127.0.0.1:1".to_owned(), "no address".to_owned()]).unwrap_err();
    assert!(wrong.to_string().contains("no address"), "{wrong}");
}

fn not_leader(leader: &str) -> Status {
    let failure = hay_common::error::Failure::new(ErrorCode::NotLeader, "not the leader");
    hay_proto::rpc::with_leader(hay_proto::rpc::to_status(failure), leader)
}

#[tokio::test]
async fn the_leader_that_is_named_is_asked_next_unless_it_was_silent() {
    let members = [1, 2, 3, 4].map(|id| FakeMaster::new([id]));
    let (masters, _) = group(&members);
    let group = masters.0;
    group.leave(0, &not_leader("master-2:1"), &[]);
    assert_eq!(group.current.load(Ordering::SeqCst), 2);
    group.leave(2, &not_leader("master-2:1"), &[]);
    assert_eq!(group.current.load(Ordering::SeqCst), 3, "one that names itself is left all the same");
    group.leave(3, &not_leader("master-1:1"), &[1]);
    assert_eq!(group.current.load(Ordering::SeqCst), 0, "the one that is named is dead");
    group.leave(0, &not_leader("elsewhere:1"), &[]);
    assert_eq!(group.current.load(Ordering::SeqCst), 1);
    group.leave(0, &not_leader("master-3:1"), &[]);
    assert_eq!(group.current.load(Ordering::SeqCst), 1, "somebody has moved on already");
}

/// A group with one master in its list, which can reach all that there are.
fn dialling(members: &[Arc<FakeMaster>]) -> Masters {
    let (mut masters, _) = group(&members[..1]);
    let served: Vec<_> = members.iter().map(FakeMaster::served).collect();
    masters.0.dial = Some(Box::new(move |address| {
        let number = address.strip_prefix("master-")?.strip_suffix(":1")?;
        served.get(number.parse::<usize>().ok()?).cloned()
    }));
    masters
}

#[tokio::test]
async fn a_leader_that_is_in_no_list_is_called_and_remembered() {
    let members = [1, 2, 3].map(|id| FakeMaster::new([id]));
    *members[0].failure.lock() = Some(ErrorCode::NotLeader);
    *members[0].leader.lock() = Some("master-1:1".into());
    let masters = dialling(&members);
    // Within one round: a lease is asked for in no more.
    let lease = masters.lease_write(Request::new(v1::LeaseWriteRequest::default())).await.unwrap();
    assert_eq!(lease.into_inner().volumes[0].volume, 2);
    // It names the next one, and the one of the list is gone for good.
    *members[0].failure.lock() = Some(ErrorCode::Unavailable);
    *members[1].failure.lock() = Some(ErrorCode::NotLeader);
    *members[1].leader.lock() = Some("master-2:1".into());
    assert_eq!(first_volume(&masters).await.unwrap(), 3);
    assert_eq!(masters.0.count(), 3);
}

#[tokio::test]
async fn only_so_many_leaders_are_remembered_beside_the_list() {
    let members = [1, 2].map(|id| FakeMaster::new([id]));
    let (mut masters, _) = group(&members);
    let service = FakeMaster::served(&members[0]);
    masters.0.dial = Some(Box::new(move |address| address.ends_with(":1").then(|| service.clone())));
    for n in 0..100 {
        masters.0.leave(0, &not_leader(&format!("new-{n}:1")), &[]);
        masters.0.current.store(0, Ordering::SeqCst);
    }
    let known: Vec<String> = masters.0.members.load().iter().map(|member| member.address.clone()).collect();
    assert_eq!(known.len(), 2 + GROUP_LEARNED_MAX);
    assert_eq!(known[..2], ["master-0:1", "master-1:1"], "those of the list stay");
    assert_eq!(known.last().unwrap(), "new-99:1");
    masters.0.leave(0, &not_leader("no address"), &[]);
    assert_eq!(masters.0.current.load(Ordering::SeqCst), 1, "what can't be called is nobody");
}

#[tokio::test]
async fn a_map_as_it_stands_comes_from_whoever_has_one() {
    let members = [1, 2, 3].map(|id| FakeMaster::new([id]));
    *members[0].failure.lock() = Some(ErrorCode::Unavailable);
    members[1].hangs.store(true, Ordering::SeqCst);
    let (masters, _) = group(&members);
    let ask = || {
        let request = v1::VolumeMapRequest { limit: 10, as_it_stands: true, ..Default::default() };
        masters.volume_map(Request::new(request))
    };
    assert_eq!(ask().await.unwrap().into_inner().volumes[0].id, 3);
    *members[2].failure.lock() = Some(ErrorCode::NotLeader);
    let nobody = tokio::time::timeout(2 * GROUP_TRY, ask()).await.expect("a bound");
    assert_eq!(to_failure(&nobody.unwrap_err()).code, ErrorCode::Unavailable);
}
