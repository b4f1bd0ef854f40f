use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt};
use hay_common::limits::READ_HEDGE_AFTER;
use hay_proto::rpc::{RequestContext, RequestId};

use super::*;
use crate::places::Places;
use crate::testing::FakeVolume;

const KEY: NeedleKey = NeedleKey(77);
const COOKIE: Cookie = Cookie(5);

struct World {
    client: VolumeClient,
    servers: Vec<Arc<FakeVolume>>,
    addresses: Vec<String>,
}

/// A client of `count` servers that hold copies of the same.
fn world(count: usize) -> World {
    let peers = Peers::new(None);
    let servers: Vec<_> = (0..count).map(|_| Arc::new(FakeVolume::default())).collect();
    let addresses: Vec<_> = (0..count).map(|n| format!("server-{n}:1")).collect();
    for (server, address) in servers.iter().zip(&addresses) {
        peers.register(address, server.served());
    }
    World { client: VolumeClient::new(peers), servers, addresses }
}

impl World {
    fn target(&self) -> LeasedVolume {
        let replicas = self.addresses.clone();
        LeasedVolume { volume: VolumeId(7), epoch: Epoch(2), class: SizeClass::Small, replicas }
    }

    async fn append(&self, data: &Bytes) -> Result<(), Failure> {
        let lease = Bytes::from_static(b"lease");
        self.client.append(&self.target(), &lease, KEY, COOKIE, Codec::PLAIN, data.clone()).await
    }

    async fn whole(&self, offset: u32, length: u32) -> Result<Bytes, Failure> {
        self.client.read_whole(&self.addresses, range(offset, length)).await
    }

    fn hold_everywhere(&self, data: &Bytes) {
        for server in &self.servers {
            let name = (7, Bytes::copy_from_slice(&KEY.0.to_be_bytes()), COOKIE.0);
            server.needles.lock().insert(name, data.clone());
        }
    }
}

fn range(offset: u32, length: u32) -> NeedleRange {
    NeedleRange { volume: VolumeId(7), key: KEY, cookie: COOKIE, offset, length }
}

fn content(bytes: usize) -> Bytes {
    (0..bytes).map(|n| (n * 7 / 3) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_small_needle_takes_one_call_there_and_one_back_and_is_never_copied() {
    let world = world(1);
    let data = content(4096);
    let context = RequestContext::new(RequestId(1));
    let both = async {
        world.append(&data).await.unwrap();
        let read = world.whole(0, 4096).await.unwrap();
        assert_eq!(read, data);
        assert_eq!(read.as_ptr(), data.as_ptr());
        assert_eq!(world.whole(100, 50).await.unwrap(), data.slice(100..150));
    };
    context.clone().scope(both).await;
    assert_eq!(context.calls(), 3);
    assert_eq!(world.servers[0].streamed.load(Ordering::SeqCst), 0);
    assert_eq!(world.append(&data).await.unwrap_err().code, ErrorCode::NeedleExists);
}

#[tokio::test]
async fn a_large_needle_goes_in_parts_of_a_mebibyte() {
    let world = world(1);
    for (bytes, parts) in [((1 << 20) + 1, vec![1 << 20, 1]), (8 << 20, vec![1 << 20; 8])] {
        world.servers[0].needles.lock().clear();
        let data = content(bytes);
        world.append(&data).await.unwrap();
        assert_eq!(*world.servers[0].parts.lock(), parts);
        assert_eq!(world.append(&data).await.unwrap_err().code, ErrorCode::NeedleExists);
        let read = world.client.read(&world.addresses, range(1, bytes as u32 - 1)).await.unwrap();
        let read = match read {
            Data::Whole(whole) => whole,
            Data::Parts(parts) => parts.try_collect::<Vec<_>>().await.unwrap().concat().into(),
        };
        assert_eq!(read, data.slice(1..));
    }
    let unary_before = world.servers[0].unary.load(Ordering::SeqCst);
    world.servers[0].needles.lock().clear();
    world.append(&content(1 << 20)).await.unwrap();
    assert_eq!(world.servers[0].unary.load(Ordering::SeqCst), unary_before + 1);
    let too_large = world.append(&content(CHUNK_BYTES_MAX + 1)).await.unwrap_err();
    assert_eq!(too_large.code, ErrorCode::TooLarge);
}

/// Around every size at which the way changes, here or at the server: what was stored can be read.
#[tokio::test]
async fn what_was_stored_is_read_whatever_its_size() {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    let world = world(1);
    let sizes = [MIB - 1, MIB, MIB + 1, 4 * MIB - 64 * KIB, 4 * MIB - 64 * KIB + 1, 4 * MIB - 1, 4 * MIB];
    for bytes in sizes.into_iter().chain([4 * MIB + 1, CHUNK_BYTES_MAX]) {
        world.servers[0].needles.lock().clear();
        let data = content(bytes);
        world.append(&data).await.unwrap();
        let read = match world.client.read(&world.addresses, range(0, bytes as u32)).await.unwrap() {
            Data::Whole(whole) => whole,
            Data::Parts(parts) => parts.try_collect::<Vec<_>>().await.unwrap().concat().into(),
        };
        assert!(read == data, "{bytes} bytes");
    }
    let refused = world.whole(0, MIB as u32 + 1).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn another_replica_answers_for_one_that_fails() {
    let world = world(3);
    let data = content(5 << 20);
    world.hold_everywhere(&data);
    *world.servers[0].read_failure.lock() = Some(ErrorCode::Corrupt);
    *world.servers[1].read_failure.lock() = Some(ErrorCode::VolumeNotFound);
    assert_eq!(world.whole(0, 1000).await.unwrap(), data.slice(..1000));
    let parts = world.client.read_parts(&world.addresses, range(0, 5 << 20)).await.unwrap();
    assert_eq!(parts.try_collect::<Vec<_>>().await.unwrap().concat(), data);

    let nobody = world.client.read_whole(&["elsewhere:1".to_owned()], range(0, 1)).await.unwrap_err();
    assert_eq!(nobody.code, ErrorCode::Unavailable);
    assert!(world.client.read_whole(&Places::default(), range(0, 1)).await.is_err());
}

/// What is called corrupt is given up and written down as damaged: no other replica may be left that could have it.
#[tokio::test]
async fn a_needle_is_damaged_only_where_every_replica_was_asked_and_answered() {
    use ErrorCode::{Corrupt, CredentialRefused, NotFound, Unavailable, VolumeNotFound};
    let world = world(2);
    let answers = [
        (Corrupt, Corrupt, Corrupt),
        (Corrupt, NotFound, Corrupt),
        (NotFound, NotFound, NotFound),
        (Corrupt, Unavailable, Unavailable),
        (NotFound, Unavailable, Unavailable),
        // It is no replica, or not any more: where the other one is, the masters know.
        (Corrupt, VolumeNotFound, VolumeNotFound),
        (Corrupt, CredentialRefused, CredentialRefused),
    ];
    for (first, second, expected) in answers {
        for (one, other) in [(0, 1), (1, 0)] {
            *world.servers[one].read_failure.lock() = Some(first);
            *world.servers[other].read_failure.lock() = Some(second);
            assert_eq!(world.whole(0, 100).await.unwrap_err().code, expected, "{first} and {second}");
            let parts = world.client.read_parts(&world.addresses, range(0, 2 << 20)).await;
            assert_eq!(parts.err().unwrap().code, expected, "{first} and {second}, in parts");
        }
    }
}

#[tokio::test]
async fn what_is_too_short_is_never_taken_for_whole() {
    let world = world(1);
    world.hold_everywhere(&content(6 << 20));
    world.servers[0].short_by.store(1, Ordering::SeqCst);
    assert!(world.whole(0, 1000).await.is_err());
    let parts = world.client.read_parts(&world.addresses, range(0, 6 << 20)).await.unwrap();
    let parts: Vec<_> = parts.collect().await;
    assert_eq!(parts.len(), 7);
    assert!(parts[..6].iter().all(Result::is_ok) && parts[6].is_err());
    assert_eq!(world.whole(5, 0).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_status_says_what_is_not_ready() {
    let world = world(1);
    let status = world.client.status(&world.addresses[0]).await.unwrap();
    assert_eq!(status.free_bytes, 5);
    assert_eq!(status.not_ready.as_deref(), Some("volume 7 is being opened"));
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_elsewhere_at_the_same_byte() {
    let data = content((6 << 20) + 5);
    for (first, second) in [(1, 0), (1, 2), (5, 5)] {
        let world = world(3);
        world.hold_everywhere(&data);
        // Needle 77 is asked for at server 2 first, then 0, then 1.
        world.servers[2].breaks_after.store(first, Ordering::SeqCst);
        world.servers[0].breaks_after.store(second, Ordering::SeqCst);
        let wanted = range(7, data.len() as u32 - 7);
        let parts = world.client.read_parts(&world.addresses, wanted).await.unwrap();
        let read = parts.try_collect::<Vec<_>>().await.unwrap().concat();
        assert!(read == data.slice(7..), "broken after {first} and {second} parts");
    }
    let world = world(2);
    world.hold_everywhere(&data);
    for server in &world.servers {
        server.breaks_after.store(2, Ordering::SeqCst);
    }
    let parts = world.client.read_parts(&world.addresses, range(0, data.len() as u32)).await.unwrap();
    let parts: Vec<_> = parts.collect().await;
    assert_eq!(parts.iter().filter(|part| part.is_ok()).count(), 4);
    assert_eq!(parts.last().unwrap().as_ref().unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_silent_server_is_passed_over_and_asked_last_for_a_while() {
    let world = world(2);
    let data = content(3 << 20);
    world.hold_everywhere(&data);
    // Needle 77 is asked for at server 1 first.
    let asked = || {
        let server = &world.servers[1];
        server.unary.load(Ordering::SeqCst) + server.streamed.load(Ordering::SeqCst)
    };
    world.servers[1].hangs.store(true, Ordering::SeqCst);
    assert_eq!(world.whole(0, 100).await.unwrap(), data.slice(..100));
    assert_eq!(asked(), 1);
    for _ in 0..5 {
        assert_eq!(world.whole(0, 100).await.unwrap(), data.slice(..100));
    }
    let parts = world.client.read_parts(&world.addresses, range(0, 3 << 20)).await.unwrap();
    assert_eq!(parts.try_collect::<Vec<_>>().await.unwrap().concat(), data);
    assert_eq!(asked(), 1);
}

#[tokio::test]
async fn all_that_are_silent_are_asked_last_not_only_the_first() {
    let world = world(3);
    let data = content(100);
    world.hold_everywhere(&data);
    // Needle 77 is asked for at server 2 first, then 0, then 1.
    world.servers[2].hangs.store(true, Ordering::SeqCst);
    world.servers[0].hangs.store(true, Ordering::SeqCst);
    let asked = || [0, 1, 2].map(|n| world.servers[n].unary.load(Ordering::SeqCst));
    assert_eq!(world.whole(0, 100).await.unwrap(), data);
    assert_eq!(asked(), [1, 1, 1]);
    assert_eq!(world.whole(0, 100).await.unwrap(), data);
    assert_eq!(asked(), [1, 2, 1]);
}

#[tokio::test]
async fn where_nothing_is_saved_up_for_it_a_silent_server_is_given_up_before_the_next_is_asked() {
    let world = world(2);
    let data = content(100);
    world.hold_everywhere(&data);
    while world.client.hedges.spend(0) {}
    world.servers[1].hangs.store(true, Ordering::SeqCst);
    let (read, ()) = tokio::join!(world.whole(0, 100), async {
        tokio::time::sleep(3 * READ_HEDGE_AFTER).await;
        assert_eq!(world.servers[0].unary.load(Ordering::SeqCst), 0);
    });
    assert_eq!(read.unwrap(), data);
}

#[tokio::test]
async fn a_writer_does_not_wait_for_a_silent_server_where_there_are_others() {
    let world = world(2);
    world.servers[0].hangs.store(true, Ordering::SeqCst);
    let failure = world.append(&content(10)).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::DeadlineExceeded);
    assert!(failure.message.contains("server-0:1"));
}

#[tokio::test]
async fn keys_fall_on_all_replicas_and_each_key_on_the_same() {
    let world = world(3);
    let places = Places::from(&world.addresses);
    let firsts: Vec<&String> =
        (0..300u128).map(|key| world.client.peers.order(&places, NeedleKey(key))[0]).collect();
    for address in &world.addresses {
        assert_eq!(firsts.iter().filter(|first| **first == address).count(), 100);
    }
    assert_eq!(world.client.peers.order(&places, NeedleKey(7))[0], firsts[7]);
}
