//! Members come and go.

use hay_common::ids::MemberId;

use super::{Cluster, eventually};
use crate::MembersError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_promoted_and_removed_while_it_goes_on() {
    let mut cluster = Cluster::formed(1, 1).await;
    cluster.write_among(&[0], "one").await;
    for _ in 0..2 {
        let n = cluster.add_place();
        cluster.peers.push(cluster.places[n].address.clone());
        cluster.start(n).await;
        let id = cluster.group(n).member();
        eventually("it has caught up", || (cluster.has(n) == cluster.has(0)).then_some(())).await;
        let leader = cluster.group(0);
        // Its lag is known once it has answered.
        while let Err(error) = leader.promote(id).await {
            assert!(matches!(error, MembersError::Behind { .. }), "{error}");
            tokio::task::yield_now().await;
        }
        assert_eq!(leader.promote(id).await, Err(MembersError::Voter(id)));
        cluster.write_among(&[0], &format!("with {n}")).await;
    }
    assert!(cluster.group(0).status().members.iter().all(|m| m.voter));
    // The leader itself goes; the others have one of their own.
    let id = cluster.group(0).member();
    cluster.group(0).remove_member(id).await.unwrap();
    cluster.write_among(&[1, 2], "without").await;
    eventually("it no longer leads", || cluster.group(0).leading().borrow().is_none().then_some(())).await;
    cluster.agree(&[1, 2]).await;
    assert_eq!(cluster.has(1), ["one", "with 1", "with 2", "without"]);
    assert_eq!(cluster.group(cluster.leader_among(&[1, 2]).await).status().members.len(), 2);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_stop_the_group_is_refused() {
    let mut cluster = Cluster::formed(3, 2).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    let group = cluster.group(leader);
    let error = group.promote(MemberId(12345)).await.unwrap_err();
    assert!(matches!(error, MembersError::Unknown { .. }), "{error}");
    let error = group.add_learner(MemberId(5), "nowhere").await.unwrap_err();
    assert!(matches!(error, MembersError::Address(_)), "{error}");
    let error = cluster.group(others[0]).remove_member(group.member()).await.unwrap_err();
    assert!(matches!(error, MembersError::NotLeader { leader: Some(_), .. }), "{error}");
    // Nobody answers for it: it never catches up.
    group.add_learner(MemberId(77), "void:1").await.unwrap();
    let error = group.promote(MemberId(77)).await.unwrap_err();
    assert!(matches!(error, MembersError::Behind { .. }), "{error}");
    group.remove_member(MemberId(77)).await.unwrap();
    // One is dead: without another living one there would be no majority.
    cluster.kill(others[0]).await;
    let living = cluster.group(others[1]).member();
    let refused = eventually_refused(&cluster, leader, living).await;
    assert!(matches!(refused, MembersError::NoMajority { voters: 2, reached: 1 }), "{refused}");
    cluster.write_among(&[leader, others[1]], "still").await;
    cluster.end().await;

    let alone = Cluster::formed(1, 3).await;
    let id = alone.group(0).member();
    assert_eq!(alone.group(0).remove_member(id).await, Err(MembersError::LastVoter(id)));
    alone.end().await;
}

/// The dead one counts as reached for a little while yet; its contact is aged instead of waiting.
async fn eventually_refused(cluster: &Cluster, leader: usize, living: MemberId) -> MembersError {
    let group = cluster.group(leader);
    let dead: Vec<u64> = {
        let running: Vec<u64> = cluster.running().iter().map(|n| cluster.group(*n).member().0).collect();
        group.status().members.iter().map(|m| m.id.0).filter(|id| !running.contains(id)).collect()
    };
    for id in dead {
        group.inner.contacts.lock().remove(&id);
    }
    group.remove_member(living).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_that_are_lost_again_and_again_do_not_pile_up() {
    let mut cluster = Cluster::formed(1, 4).await;
    let n = cluster.add_place();
    cluster.peers.push(cluster.places[n].address.clone());
    cluster.write_among(&[0], "x").await;
    for _ in 0..3 {
        cluster.start(n).await;
        eventually("it follows", || (cluster.has(n) == ["x"]).then_some(())).await;
        cluster.wipe(n).await;
    }
    assert_eq!(cluster.group(0).status().members.len(), 2);
    cluster.end().await;
}
