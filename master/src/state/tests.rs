use std::collections::BTreeSet;

use hay_common::disk::RealDisk;
use hay_common::model::SizeClass;
use hay_consensus::StateMachine;
use proptest::prelude::*;

use super::*;
use crate::machine::Machine;

fn node(n: u8) -> NodeId {
    NodeId::from_random(u128::from(n))
}

fn info(n: u8) -> Node {
    Node { address: format!("127.0.0.1:{n}"), ..Node::default() }
}

fn class(replicas: u8) -> Class {
    Class { size: SizeClass::Small, replicas, tier: String::new(), collection: String::new() }
}

fn new_volume(nodes: &[u8]) -> NewVolume {
    NewVolume { class: class(nodes.len() as u8), nodes: nodes.iter().map(|n| node(*n)).collect() }
}

fn any_command() -> impl Strategy<Value = Command> {
    let (volume, epoch) = ((0u32..12).prop_map(VolumeId), (0u64..5).prop_map(Epoch));
    prop_oneof![
        (0u8..4, 0u8..3).prop_map(|(n, port)| Command::Register { node: node(n), info: info(port) }),
        prop::collection::vec(prop::collection::vec(0u8..4, 0..3), 0..3)
            .prop_map(|volumes| Command::Create(volumes.iter().map(|nodes| new_volume(nodes)).collect())),
        (volume.clone(), epoch.clone()).prop_map(|(volume, epoch)| Command::Opened { volume, epoch }),
        (volume.clone(), epoch.clone(), epoch.clone()).prop_map(|(volume, epoch, fence)| Command::Seal {
            volume,
            epoch,
            fence
        }),
        (volume, epoch).prop_map(|(volume, epoch)| Command::Sealed { volume, epoch }),
        (0u32..12, 0u64..5)
            .prop_map(|(volume, epoch)| Command::Abandon { volume: VolumeId(volume), epoch: Epoch(epoch) }),
        (0u8..3).prop_map(|replicas| Command::Configure(Configuration { replicas })),
    ]
}

proptest! {
    #[test]
    fn the_same_commands_give_the_same_state_and_its_laws_hold(commands in prop::collection::vec(any_command(), 0..80)) {
        let (mut one, mut two) = (State::default(), State::default());
        let mut given = BTreeSet::new();
        for command in commands {
            let before = one.clone();
            let read = Command::decode(&command.encode().unwrap()).unwrap();
            prop_assert_eq!(&read, &command);
            let outcome = one.apply(command);
            prop_assert_eq!(&two.apply(read), &outcome);
            prop_assert_eq!(&one, &two);
            if let Outcome::Created(ids) = &outcome {
                prop_assert!(ids.iter().all(|id| given.insert(*id)), "an id was given twice");
            }
            if let Outcome::Refused(_) = outcome {
                prop_assert_eq!(&one, &before, "a refusal changes nothing");
            }
            for (id, volume) in &one.volumes {
                let old = before.volumes.get(id);
                prop_assert!(old.is_none_or(|old| old.epoch <= volume.epoch && old.members == volume.members));
                prop_assert!(old.is_none_or(|old| old == volume || volume.changed > before.version));
                prop_assert!(old.is_none_or(|old| old.state != VolumeState::Sealed || volume.state == VolumeState::Sealed));
            }
            // The orders are what they would be if they were made anew.
            let mut indexed = one.clone();
            indexed.index();
            prop_assert_eq!(&indexed, &one);
            let all: Vec<u64> = one.changed_after(0).map(|(_, volume)| volume.changed).collect();
            prop_assert_eq!(all.len(), one.volumes.len());
            prop_assert!(all.is_sorted());
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Command::decode(&bytes);
        let _ = Outcome::decode(&bytes);
    }
}

#[test]
fn golden_bytes_of_commands() {
    let seal = Command::Seal { volume: VolumeId(7), epoch: Epoch(300), fence: Epoch(2) };
    assert_eq!(seal.encode().unwrap().as_ref(), [1, 4, 7, 0xac, 2, 2]);
    let create = Command::Create(vec![NewVolume {
        class: class(1),
        nodes: vec![NodeId::from_slice(&[9; 16]).unwrap()],
    }]);
    let mut expected = vec![1, 2, 1, 0, 1, 0, 0, 1, 16];
    expected.extend([9; 16]);
    assert_eq!(create.encode().unwrap().as_ref(), expected);
    let complete = Command::Complete {
        volume: VolumeId(7),
        epoch: Epoch(2),
        target: NodeId::from_slice(&[9; 16]).unwrap(),
    };
    let mut expected = vec![1, 9, 7, 2, 16];
    expected.extend([9; 16]);
    assert_eq!(complete.encode().unwrap().as_ref(), expected);
    let abandon = Command::Abandon { volume: VolumeId(7), epoch: Epoch(1) };
    assert_eq!(abandon.encode().unwrap().as_ref(), [1, 11, 7, 1]);
    assert_eq!(Command::decode(&[2, 0]), Err(DecodeError::NewerVersion(2)));
    assert_eq!(Command::decode(&[]), Err(DecodeError::Malformed));
    assert_eq!(Command::decode(&[1, 4, 7, 0xac, 2, 2, 0]), Err(DecodeError::Malformed));
}

/// A state with a volume of each kind.
fn populated() -> State {
    let mut state = State::default();
    for n in 1..4 {
        state.apply(Command::Register { node: node(n), info: info(n) });
    }
    state.apply(Command::Create(vec![new_volume(&[1]), new_volume(&[1, 2]), new_volume(&[3])]));
    state.apply(Command::Opened { volume: VolumeId(1), epoch: Epoch(1) });
    state.apply(Command::Opened { volume: VolumeId(2), epoch: Epoch(1) });
    state.apply(Command::Seal { volume: VolumeId(2), epoch: Epoch(1), fence: Epoch(0) });
    state
}

#[test]
fn a_volume_is_fenced_before_the_map_says_so() {
    let mut state = populated();
    assert_eq!(state.sealing(VolumeId(2)), Some(Epoch(2)));
    assert_eq!(state.volumes[&VolumeId(2)].state, VolumeState::Writable);
    let again = Command::Seal { volume: VolumeId(2), epoch: Epoch(1), fence: Epoch(0) };
    assert_eq!(state.apply(again), Outcome::Refused(Refusal::Passed));
    let other = Command::Sealed { volume: VolumeId(2), epoch: Epoch(3) };
    assert_eq!(state.apply(other), Outcome::Refused(Refusal::Passed));
    assert_eq!(state.apply(Command::Sealed { volume: VolumeId(2), epoch: Epoch(2) }), Outcome::Done);
    let sealed = &state.volumes[&VolumeId(2)];
    assert_eq!((sealed.state, sealed.epoch), (VolumeState::Sealed, Epoch(2)));
    assert!(state.jobs.is_empty());
    assert!(state.open_volumes().all(|(id, _)| id != VolumeId(2)));
}

#[test]
fn a_server_that_moves_is_news_of_its_volumes() {
    let mut state = populated();
    let before = state.version;
    state.apply(Command::Register { node: node(1), info: info(9) });
    let changed: Vec<VolumeId> = state.changed_after(before).map(|(id, _)| id).collect();
    assert_eq!(changed, [VolumeId(1), VolumeId(2)]);
    assert_eq!(state.addresses(&state.volumes[&VolumeId(2)]), ["127.0.0.1:9", "127.0.0.1:2"]);
    let before = state.version;
    state.apply(Command::Register { node: node(1), info: Node { rack: "r".to_owned(), ..info(9) } });
    assert_eq!(state.version, before, "another rack is no news for readers");
}

#[test]
fn a_snapshot_reads_back_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, shared) = Machine::new(RealDisk::shared());
    *shared.state.write() = populated();
    machine.snapshot(dir.path()).unwrap();
    let (mut other, copy) = Machine::new(RealDisk::shared());
    other.install(dir.path(), bytes::Bytes::from_static(b"at")).unwrap();
    assert_eq!(*copy.state.read(), *shared.state.read());
    assert_eq!(other.applied().unwrap().unwrap(), "at");
    assert_eq!(*copy.version.borrow(), populated().version);

    let path = dir.path().join("state");
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        std::fs::write(&path, bad).unwrap();
        assert!(other.install(dir.path(), bytes::Bytes::new()).is_err(), "byte {at}");
        std::fs::write(&path, &bytes[..at]).unwrap();
        assert!(other.install(dir.path(), bytes::Bytes::new()).is_err(), "cut at {at}");
    }
    assert_eq!(*copy.state.read(), *shared.state.read(), "a bad snapshot replaces nothing");
}
