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
    assert_eq!((stored.volume, stored.hedged), (VolumeId(2), false));
    assert_eq!(world.asked(), [1, 0, 0]);
}

#[tokio::test]
async fn a_silent_server_is_gone_around_and_asked_last_from_then_on() {
    let world = world(&PAIRS);
    world.hang(0, true);
    let stored = world.store(1).await.unwrap();
    // The second volume has the silent server too; the third one has what the others have not in common.
    assert_eq!((stored.volume, stored.hedged), (VolumeId(6), true));
    assert_eq!(world.asked(), [2, 1, 0]);
    let next = world.store(2).await.unwrap();
    assert_eq!((next.volume, next.hedged), (VolumeId(6), false), "nobody waits for it again");
    assert_eq!(world.asked(), [2, 2, 0]);
}

#[tokio::test]
async fn what_all_servers_share_is_not_tried_twice() {
    let world = world(&[(2, "a:1,b:1"), (4, "b:1,a:1"), (3, "a:1")]);
    world.hang(0, true);
    let silent = world.master.writable(SizeClass::Small).await.unwrap();
    assert_eq!(world.master.writable_besides(SizeClass::Small, &[silent]), None);
    let (stored, ()) = tokio::join!(world.store(1), async {
        tokio::time::sleep(2 * HEDGE_AFTER).await;
        assert_eq!(world.asked(), [1, 0, 0]);
        // Both ways to it hang until it is given up.
    });
    assert_eq!(stored.unwrap().volume, VolumeId(4));
}

#[tokio::test]
async fn without_savings_the_silent_volume_is_waited_for() {
    let world = world(&PAIRS);
    while world.writer.0.hedges.spend() {}
    world.hang(0, true);
    let (stored, ()) = tokio::join!(world.store(1), async {
        tokio::time::sleep(3 * HEDGE_AFTER).await;
        assert_eq!(world.asked(), [1, 0, 0]);
        world.hang(0, false);
    });
    assert!(!stored.unwrap().hedged, "the server is given up in the end, and the try repeated");
}

#[test]
fn a_large_content_may_take_longer() {
    assert_eq!(patience(0), HEDGE_AFTER);
    assert_eq!(patience(8 << 20), HEDGE_AFTER + Duration::from_secs(1));
}
