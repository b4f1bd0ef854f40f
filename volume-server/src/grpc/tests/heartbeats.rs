//! What a master hears, and what comes of what it says.

use futures::FutureExt;
use hay_common::model::{VolumeState, volumes_digest};
use hay_proto::v1::heartbeat_command::Command;

use super::master::{Session, TestMaster};
use super::*;
use crate::store::tests::disk::{Call, Fault, FaultyDisk};

fn create(volume: VolumeId, class: v1::SizeClass) -> Command {
    Command::Create(v1::CreateVolume {
        volume: volume.0,
        epoch: 3,
        class: class.into(),
        replicas: vec![],
        members: vec![],
    })
}

/// The next report that names that volume.
async fn about(session: &mut Session, volume: VolumeId) -> v1::VolumeReport {
    loop {
        if let Some(report) = session.change().await.volumes.into_iter().find(|v| v.id == volume.0) {
            return report;
        }
    }
}

#[tokio::test]
async fn a_master_creates_and_seals_and_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let core = start(dir.path(), master).await;
    assert!(core.ready().is_err());
    let mut session = sessions.recv().await.unwrap();
    let first = session.report().await;
    assert!(first.full && first.volumes.is_empty() && first.digest == 0);
    assert_eq!(first.free_space_reserve_bytes, Some(0), "its own, not the usual one");
    assert_eq!(first.node, core.node().to_wire());
    assert_eq!((first.tier.as_str(), first.address.as_str()), ("hot", "127.0.0.1:1"));
    assert!(first.total_bytes > 0);

    session.say(create(SMALL, v1::SizeClass::Small)).await;
    let report = about(&mut session, SMALL).await;
    assert_eq!((report.epoch, report.state), (3, v1::VolumeState::Writable as i32));
    assert_eq!(core.ready(), Ok(()));
    // Said again: reported again.
    session.say(create(SMALL, v1::SizeClass::Small)).await;
    about(&mut session, SMALL).await;
    session.say(create(LARGE, v1::SizeClass::Large)).await;
    about(&mut session, LARGE).await;

    session.say(Command::Seal(v1::SealVolume { volume: SMALL.0, epoch: 4 })).await;
    let sealed = about(&mut session, SMALL).await;
    assert_eq!((sealed.epoch, sealed.state), (4, v1::VolumeState::Sealed as i32));
    session.say(Command::FullReport(v1::FullReport {})).await;
    let full = loop {
        let report = session.change().await;
        if report.full {
            break report;
        }
    };
    assert_eq!(full.volumes.len(), 2);
    let known = [(SMALL, Epoch(4), VolumeState::Sealed), (LARGE, Epoch(3), VolumeState::Writable)];
    assert_eq!(full.digest, volumes_digest(known));
    assert!(full.sequence > first.sequence);

    // The master goes; the server comes again, with everything.
    session.fail().await;
    let mut session = sessions.recv().await.unwrap();
    let again = session.report().await;
    assert!(again.full && again.volumes.len() == 2);
    drop(session);
    let mut session = sessions.recv().await.unwrap();
    assert!(session.report().await.full);
    core.shutdown().await;
}

#[tokio::test]
async fn reads_are_counted_from_report_to_report() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let core = start(dir.path(), master).await;
    let mut session = sessions.recv().await.unwrap();
    session.say(create(SMALL, v1::SizeClass::Small)).await;
    about(&mut session, SMALL).await;
    let needle = crate::store::NewNeedle::new(
        EPOCH,
        NeedleKey(1),
        hay_common::ids::Cookie(9),
        0,
        vec![data(1, 100)],
        None,
    );
    assert_eq!(core.store().append(SMALL, vec![needle.unwrap()]).await, [Ok(())]);
    for round in 1..4 {
        for _ in 0..round {
            core.store().read(SMALL, NeedleKey(1), hay_common::ids::Cookie(9)).await.unwrap();
        }
        let mut seen = 0;
        while seen < round {
            seen += about(&mut session, SMALL).await.reads;
        }
        assert_eq!(seen, round);
    }
}

#[tokio::test]
async fn reads_are_counted_on_when_a_volume_is_opened_again_to_be_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let core = start(dir.path(), master).await;
    let mut session = sessions.recv().await.unwrap();
    session.say(create(SMALL, v1::SizeClass::Small)).await;
    about(&mut session, SMALL).await;
    let cookie = hay_common::ids::Cookie(9);
    let needle = crate::store::NewNeedle::new(EPOCH, NeedleKey(1), cookie, 0, vec![data(1, 100)], None);
    assert_eq!(core.store().append(SMALL, vec![needle.unwrap()]).await, [Ok(())]);
    let mut seen = 0;
    for round in 1..4 {
        core.store().read(SMALL, NeedleKey(1), cookie).await.unwrap();
        while seen < round {
            seen += about(&mut session, SMALL).await.reads;
        }
        let (store, epoch) = (core.store().clone(), Epoch(EPOCH.0 + round));
        let fill = move || store.begin_fill(SMALL, epoch, SizeClass::Small, &[NodeId::from_random(1)]);
        tokio::task::spawn_blocking(fill).await.unwrap().unwrap();
        loop {
            let report = about(&mut session, SMALL).await;
            seen += report.reads;
            if report.filling && report.epoch == epoch.0 {
                break;
            }
        }
        assert_eq!(seen, round);
    }
    core.shutdown().await;
}

#[tokio::test]
async fn a_server_without_a_heartbeat_says_that_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let core = start(dir.path(), master).await;
    let _session = sessions.recv().await.unwrap();
    assert!(core.gone().now_or_never().is_none());
    core.shutdown().await;
    let dir = tempfile::tempdir().unwrap();
    let core = start(dir.path(), TestMaster::faulty()).await;
    core.gone().await;
    assert!(core.ready().unwrap_err().contains("has ended"));
    core.shutdown().await;
}

#[tokio::test]
async fn a_disk_that_is_slow_holds_up_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let disk = FaultyDisk::default();
    let core = start_on(dir.path(), Arc::new(disk.clone()), master).await;
    let mut session = sessions.recv().await.unwrap();
    for volume in [SMALL, LARGE] {
        session.say(create(volume, v1::SizeClass::Small)).await;
        about(&mut session, volume).await;
    }
    disk.hold(Call::Publish, "7.state");
    session.say(Command::Seal(v1::SealVolume { volume: SMALL.0, epoch: 4 })).await;
    // Said again while it is under way.
    for epoch in [4, 4, 4] {
        session.say(Command::Seal(v1::SealVolume { volume: SMALL.0, epoch })).await;
    }
    session.say(Command::Seal(v1::SealVolume { volume: LARGE.0, epoch: 5 })).await;
    while disk.count(Call::Publish, "7.state") < 2 {
        session.report().await;
    }
    for _ in 0..2 {
        let report = session.report().await;
        assert!(report.volumes.is_empty(), "{:?}", report.volumes);
    }
    disk.let_go();
    let sealed = about(&mut session, SMALL).await;
    assert_eq!((sealed.epoch, sealed.state), (4, v1::VolumeState::Sealed as i32));
    // One after the other, none forgotten.
    loop {
        let sealed = about(&mut session, LARGE).await;
        if sealed.state == v1::VolumeState::Sealed as i32 {
            assert_eq!(sealed.epoch, 5);
            break;
        }
    }
    core.shutdown().await;
}

/// What the map says of a volume that was sealed while the server was away.
fn sealed(volume: VolumeId, epoch: u64) -> Command {
    let confirmed = v1::ConfirmedVolume {
        volume: volume.0,
        epoch,
        state: v1::VolumeState::Sealed.into(),
        ..v1::ConfirmedVolume::default()
    };
    Command::Confirm(v1::ConfirmVolumes { volumes: vec![confirmed] })
}

#[tokio::test]
async fn what_the_map_says_is_tried_again_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let disk = FaultyDisk::default();
    let core = start_on(dir.path(), Arc::new(disk.clone()), master).await;
    let mut session = sessions.recv().await.unwrap();
    session.say(create(SMALL, v1::SizeClass::Small)).await;
    about(&mut session, SMALL).await;
    disk.set(Fault {
        call: Call::Publish,
        ends_with: "7.state",
        kind: std::io::ErrorKind::StorageFull,
        partial: 0,
        once: true,
    });
    session.say(sealed(SMALL, 9)).await;
    loop {
        let report = session.report().await;
        if let Some(report) = report.volumes.iter().find(|v| v.state == v1::VolumeState::Sealed as i32) {
            assert_eq!((report.id, report.epoch), (SMALL.0, 9));
            break;
        }
    }
    core.shutdown().await;
}

#[tokio::test]
async fn a_master_that_does_not_answer_is_left_soon() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let core = start(dir.path(), master).await;
    let mut session = sessions.recv().await.unwrap();
    session.report().await;
    // Paused, or cut off: it takes reports, and nothing comes back.
    let mut unanswered = 0;
    while session.reports.next().await.is_some() {
        unanswered += 1;
    }
    assert!(unanswered <= 5, "{unanswered} reports, one each second");
    assert!(sessions.recv().await.unwrap().report().await.full);
    core.shutdown().await;
}

/// What the map says of a volume that this server has a whole replica of.
fn whole(volume: VolumeId) -> Command {
    let confirmed = v1::ConfirmedVolume {
        volume: volume.0,
        epoch: 3,
        state: v1::VolumeState::Writable.into(),
        ..v1::ConfirmedVolume::default()
    };
    Command::Confirm(v1::ConfirmVolumes { volumes: vec![confirmed] })
}

/// Two processes with one id: the masters have taken the other one. It is a member of the volumes, not this one, whose
/// needles would be on no server that the map names.
#[tokio::test]
async fn a_server_that_the_masters_disown_acknowledges_nothing_and_calls_nothing_absent() {
    let dir = tempfile::tempdir().unwrap();
    let (master, mut sessions) = TestMaster::played();
    let core = start(dir.path(), master).await;
    let mut session = sessions.recv().await.unwrap();
    session.say(create(LARGE, v1::SizeClass::Large)).await;
    about(&mut session, LARGE).await;
    let others = [core.node(), NodeId::from_random(50)]
        .map(|node| v1::VolumePeer { node: node.to_wire(), address: "elsewhere:1".to_owned() });
    let shared = v1::CreateVolume {
        volume: SMALL.0,
        epoch: 3,
        class: v1::SizeClass::Small.into(),
        members: others.into(),
        ..v1::CreateVolume::default()
    };
    session.say(Command::Create(shared)).await;
    about(&mut session, SMALL).await;
    let may = |volume: VolumeId| {
        let state = core.store().state(volume).unwrap();
        let led = core.replication.may_lead(volume, &state);
        assert_eq!(led.is_ok(), core.replication.may_say_absent(volume), "{volume}");
        led.is_ok()
    };
    let append = |key: u128| {
        let cookie = hay_common::ids::Cookie(9);
        let needle = crate::store::NewNeedle::new(EPOCH, NeedleKey(key), cookie, 0, vec![data(1, 9)], None);
        core.replication.append(LARGE, vec![needle.unwrap()])
    };
    assert!(may(SMALL) && may(LARGE));
    assert_eq!(append(1).await, [Ok(())]);

    // A master that does not lead, or can't make out who this is, says nothing of the volumes.
    for passing in [ErrorCode::NotLeader, ErrorCode::CredentialRefused] {
        session.refuse(passing).await;
        session = sessions.recv().await.unwrap();
        assert!(may(SMALL) && may(LARGE), "{passing}");
        assert_eq!(core.ready().is_err(), passing == ErrorCode::CredentialRefused);
        session.report().await;
    }
    session.refuse(ErrorCode::Forbidden).await;
    let mut session = sessions.recv().await.unwrap();
    assert!(!may(SMALL) && !may(LARGE));
    assert!(core.ready().unwrap_err().contains("refuse this server"));
    assert_eq!(append(2).await, [Err(crate::store::AppendError::Unconfirmed(LARGE))]);
    core.store().read(LARGE, NeedleKey(1), hay_common::ids::Cookie(9)).await.unwrap();

    // The other one is gone, and this one is taken again.
    session.report().await;
    while core.ready().is_err() {
        session.report().await;
    }
    assert!(may(LARGE) && !may(SMALL), "a replica of several waits until it is confirmed");
    assert_eq!(append(2).await, [Ok(())]);
    session.say(whole(SMALL)).await;
    while !may(SMALL) {
        session.report().await;
    }
    core.shutdown().await;
}
