use std::sync::atomic::Ordering;

use hay_common::clock::ManualClock;
use hay_common::random::SeededRandom;

use super::*;
use crate::peers::Peers;
use crate::testing::{FakeMaster, FakeVolume};

struct World {
    writer: Writer,
    master: MasterClient,
    /// Of the addresses `a:1`, `b:1` and `c:1`.
    servers: [Arc<FakeVolume>; 3],
}

fn world(volumes: &[(u32, &str)]) -> World {
    let fake = FakeMaster::new([]);
    fake.volumes.lock().extend(volumes.iter().map(|(id, servers)| (*id, (*servers).to_owned())));
    let random = SeededRandom::shared(5);
    let master = MasterClient::start(fake.served(), ManualClock::at(1000), random.clone());
    let peers = Peers::new(None);
    let servers: [Arc<FakeVolume>; 3] = std::array::from_fn(|_| Arc::default());
    for (server, address) in servers.iter().zip(["a:1", "b:1", "c:1"]) {
        peers.register(address, server.served());
    }
    World { writer: Writer::new(master.clone(), VolumeClient::new(peers), random), master, servers }
}

impl World {
    fn hang(&self, server: usize, hangs: bool) {
        self.servers[server].hangs.store(hangs, Ordering::SeqCst);
    }

    fn asked(&self) -> [usize; 3] {
        std::array::from_fn(|n| self.servers[n].unary.load(Ordering::SeqCst))
    }

    async fn store(&self, key: u128) -> Result<Stored, Failure> {
        self.writer.store(NeedleKey(key), Codec::PLAIN, Bytes::from_static(b"content")).await
    }
}

/// Small contents on each pair of three servers; a lease is good with large ones only.
const PAIRS: [(u32, &str); 4] = [(2, "a:1,b:1"), (4, "a:1,c:1"), (6, "b:1,c:1"), (3, "b:1,c:1")];

#[tokio::test]
async fn a_content_goes_to_one_volume_while_that_answers() {
    let world = world(&PAIRS);
    let stored = world.store(1).await.unwrap();
    assert_eq!((stored.volume, stored.hedges), (VolumeId(2), 0));
    assert_eq!(world.asked(), [1, 0, 0]);
}

#[tokio::test]
async fn a_silent_server_is_gone_around_and_asked_last_from_then_on() {
    let world = world(&PAIRS);
    world.hang(0, true);
    let stored = world.store(1).await.unwrap();
    // Whether the second or the third try found it: it is the pair that has nothing in common with the silent server.
    assert_eq!(stored.volume, VolumeId(6));
    assert!((1..=2).contains(&stored.hedges));
    let asked = world.asked();
    let next = world.store(2).await.unwrap();
    assert_eq!((next.volume, next.hedges), (VolumeId(6), 0), "nobody waits for it again");
    assert_eq!(world.asked(), [asked[0], asked[1] + 1, 0]);
    // Another server falls silent while the first one is remembered, which speaks again.
    world.hang(0, false);
    world.hang(1, true);
    let stored = world.store(3).await.unwrap();
    assert!(stored.volume != VolumeId(6) && stored.hedges > 0, "{stored:?}");
}

#[tokio::test]
async fn many_at_once_find_the_way_around_although_fewer_may_be_doubled() {
    let world = world(&PAIRS);
    world.hang(0, true);
    let stored = futures::future::join_all((0..150).map(|key| world.store(key))).await;
    for stored in stored {
        let stored = stored.unwrap();
        // Who waits until the server is given up has its content stored by a try that is not doubled.
        assert!(stored.volume == VolumeId(6) && stored.hedges > 0, "{stored:?}");
    }
}

#[tokio::test]
async fn a_failure_elsewhere_does_not_end_what_may_still_succeed() {
    let world = world(&[(2, "a:1,b:1"), (4, "nowhere:1,c:1"), (3, "b:1,c:1")]);
    world.hang(0, true);
    let (stored, ()) = tokio::join!(world.store(1), async {
        tokio::time::sleep(2 * HEDGE_AFTER).await;
        world.hang(0, false);
    });
    assert_eq!(stored.unwrap().volume, VolumeId(2));
}

#[tokio::test]
async fn what_all_servers_share_is_not_tried_twice() {
    let world = world(&[(2, "a:1,b:1"), (4, "b:1,a:1"), (3, "a:1")]);
    world.hang(0, true);
    let silent = world.master.writable(SizeClass::Small).await.unwrap();
    assert_eq!(world.master.writable_besides(SizeClass::Small, &[silent], 0), None);
    let (stored, ()) = tokio::join!(world.store(1), async {
        tokio::time::sleep(2 * HEDGE_AFTER).await;
        assert_eq!(world.asked(), [1, 0, 0]);
        world.hang(0, false);
    });
    assert_eq!(stored.unwrap().hedges, 0);
}

#[tokio::test]
async fn without_savings_the_silent_volume_is_waited_for() {
    let world = world(&PAIRS);
    while world.writer.0.hedges.spend(0) {}
    world.hang(0, true);
    let (stored, ()) = tokio::join!(world.store(1), async {
        tokio::time::sleep(3 * HEDGE_AFTER).await;
        assert_eq!(world.asked(), [1, 0, 0]);
        world.hang(0, false);
    });
    assert_eq!(stored.unwrap().hedges, 0);
}

#[test]
fn a_large_content_may_take_longer() {
    assert_eq!(patience(0), HEDGE_AFTER);
    assert_eq!(patience(8 << 20), HEDGE_AFTER + Duration::from_secs(1));
}
