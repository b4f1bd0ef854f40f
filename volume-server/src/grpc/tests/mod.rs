//! The service through its wrapper, and a master that a test plays.

mod heartbeats;
pub(crate) mod master;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use hay_common::clock::SystemClock;
use hay_common::disk::{RealDisk, SharedDisk};
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, Epoch, NeedleKey, NodeId, VolumeId};
use hay_common::model::SizeClass;
use hay_common::random::SeededRandom;
use hay_proto::convert::WireId;
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::lease::LeaseToken;
use hay_proto::rpc::{DynVolume, Guard, Peer, Role, direct_volume, in_process, to_failure};
use hay_proto::v1::{self, append_part::Part};
use tonic::Request;

use super::*;
use crate::store::StoreConfig;
use crate::{Deps, VolumeServerConfig};
use master::TestMaster;

pub(super) const SMALL: VolumeId = VolumeId(7);
pub(super) const LARGE: VolumeId = VolumeId(8);
pub(super) const EPOCH: Epoch = Epoch(3);

pub(crate) fn key() -> ClusterKey {
    ClusterKey::from_seed(ClusterId::from_random(5), &[4; 32]).unwrap()
}

async fn start(dir: &std::path::Path, master: Arc<TestMaster>) -> Arc<VolumeServer> {
    start_on(dir, RealDisk::shared(), master).await
}

async fn start_on(dir: &std::path::Path, disk: SharedDisk, master: Arc<TestMaster>) -> Arc<VolumeServer> {
    let store =
        StoreConfig { zero_ahead_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::new(dir, key().cluster()) };
    let config = VolumeServerConfig {
        store,
        address: "127.0.0.1:1".to_owned(),
        rack: String::new(),
        zone: String::new(),
        tier: "hot".to_owned(),
    };
    let deps = Deps {
        disk,
        clock: SystemClock::shared(),
        random: SeededRandom::shared(3),
        lease_key: key().public(),
        master: Box::new(move |_| master),
        peers: Box::new(|_| hay_client::Peers::new(None)),
    };
    VolumeServer::start(config, deps).await.unwrap()
}

struct Served {
    _dir: tempfile::TempDir,
    core: Arc<VolumeServer>,
    volume: DynVolume,
    lease: Bytes,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let core = start(dir.path(), TestMaster::silent()).await;
    let store = core.store().clone();
    tokio::task::spawn_blocking(move || {
        store.create(SMALL, EPOCH, SizeClass::Small).unwrap();
        store.create(LARGE, EPOCH, SizeClass::Large).unwrap();
    })
    .await
    .unwrap();
    let guard = Arc::new(Guard::new(&key(), SystemClock::shared()));
    let peer = Peer { role: Role::Gateway, node: NodeId::from_random(1) };
    let volume = direct_volume(core.clone(), guard, peer);
    let token = LeaseToken {
        cluster: key().cluster(),
        volumes: vec![(SMALL, EPOCH), (LARGE, EPOCH)],
        // Long past: leases are no fences.
        expires_ms: 1,
    };
    Served { _dir: dir, core, volume, lease: token.sign(&key()) }
}

fn data(seed: usize, len: usize) -> Bytes {
    (0..len).map(|i| (i * 7 + i / 251 + seed) as u8).collect::<Vec<u8>>().into()
}

fn item(volume: VolumeId, key: u128, data: Bytes) -> v1::AppendItem {
    v1::AppendItem {
        volume: volume.0,
        epoch: EPOCH.0,
        key: NeedleKey(key).to_wire(),
        cookie: 9,
        codec: 3,
        data,
    }
}

fn read_item(volume: VolumeId, key: u128, offset: u32, length: u32) -> v1::ReadItem {
    v1::ReadItem {
        volume: volume.0,
        key: NeedleKey(key).to_wire(),
        cookie: 9,
        offset,
        length,
        checksum: false,
    }
}

fn code(failure: &Option<v1::Failure>) -> Option<ErrorCode> {
    failure.clone().map(|f| Failure::from(f).code)
}

impl Served {
    async fn append(
        &self,
        lease: &Bytes,
        items: Vec<v1::AppendItem>,
    ) -> Result<Vec<Option<ErrorCode>>, ErrorCode> {
        let request = v1::AppendBatchRequest { lease: lease.clone(), items };
        match self.volume.append_batch(Request::new(request)).await {
            Ok(reply) => Ok(reply.into_inner().results.iter().map(|r| code(&r.failure)).collect()),
            Err(status) => Err(to_failure(&status).code),
        }
    }

    async fn stream(&self, parts: Vec<Part>) -> Result<(), ErrorCode> {
        let parts = stream::iter(parts).map(|part| Ok(v1::AppendPart { part: Some(part) }));
        let reply = self.volume.append(Request::new(in_process(parts))).await;
        reply.map(|_| ()).map_err(|status| to_failure(&status).code)
    }

    fn head(&self, key: u128, length: usize) -> v1::AppendHead {
        v1::AppendHead {
            lease: self.lease.clone(),
            volume: LARGE.0,
            epoch: EPOCH.0,
            key: NeedleKey(key).to_wire(),
            cookie: 9,
            codec: 3,
            length: length as u32,
        }
    }

    async fn read(&self, item: v1::ReadItem) -> Result<Vec<Bytes>, ErrorCode> {
        let parts = self.volume.read(Request::new(item)).await.map_err(|status| to_failure(&status).code)?;
        let parts =
            parts.into_inner().map(|part| part.map(|p| p.data).map_err(|status| to_failure(&status).code));
        parts.collect::<Vec<_>>().await.into_iter().collect()
    }
}

fn end(length: usize, data: &[u8]) -> Part {
    Part::End(v1::AppendEnd { length: length as u32, crc32c: crc32c::crc32c(data) })
}

#[tokio::test]
async fn batches_succeed_and_fail_item_by_item() {
    let served = served().await;
    let stale = v1::AppendItem { epoch: 2, ..item(SMALL, 3, data(3, 10)) };
    let short_key = v1::AppendItem { key: Bytes::from_static(b"short"), ..item(SMALL, 4, data(4, 10)) };
    let items = vec![
        item(SMALL, 1, data(1, 4096)),
        item(LARGE, 2, data(2, 100)),
        item(SMALL, 1, data(1, 4096)),
        stale,
        item(VolumeId(1), 5, data(5, 5)),
        short_key,
        item(SMALL, 6, Bytes::new()),
    ];
    let answers = served.append(&served.lease, items).await.unwrap();
    use ErrorCode::{InvalidArgument, NeedleExists, StaleEpoch};
    let stale = Some(StaleEpoch);
    assert_eq!(answers, [None, None, Some(NeedleExists), stale, stale, Some(InvalidArgument), None]);
    let wanted = vec![
        read_item(SMALL, 1, 0, 0),
        read_item(LARGE, 2, 10, 20),
        read_item(SMALL, 3, 0, 0),
        read_item(VolumeId(1), 1, 0, 0),
        read_item(SMALL, 1, 4000, 97),
        read_item(SMALL, 6, 0, 0),
    ];
    let reply = served.volume.read_batch(Request::new(v1::ReadBatchRequest { items: wanted })).await.unwrap();
    let results = reply.into_inner().results;
    assert_eq!((results[0].data.clone(), results[0].codec), (data(1, 4096), 3));
    assert_eq!(results[1].data, data(2, 100).slice(10..30));
    assert_eq!(code(&results[2].failure), Some(ErrorCode::NotFound));
    assert_eq!(code(&results[3].failure), Some(ErrorCode::VolumeNotFound));
    assert_eq!(code(&results[4].failure), Some(ErrorCode::RangeNotSatisfiable));
    assert_eq!((results[5].data.len(), results[5].failure.clone()), (0, None));
}

#[tokio::test]
async fn without_a_lease_of_the_masters_nothing_is_stored() {
    let served = served().await;
    let token = LeaseToken { cluster: key().cluster(), volumes: vec![(SMALL, EPOCH)], expires_ms: u64::MAX };
    let other_key = ClusterKey::from_seed(key().cluster(), &[5; 32]).unwrap();
    for lease in [Bytes::new(), Bytes::from_static(b"x"), token.sign(&other_key)] {
        assert!(served.append(&lease, vec![item(SMALL, 1, data(1, 10))]).await.is_err());
        let head = v1::AppendHead { lease, ..served.head(1, 0) };
        assert!(served.stream(vec![Part::Head(head), end(0, b"")]).await.is_err());
    }
    let only_small = token.sign(&key());
    assert_eq!(
        served.append(&only_small, vec![item(LARGE, 1, data(1, 10))]).await,
        Ok(vec![Some(ErrorCode::StaleEpoch)])
    );
    assert_eq!(served.core.store().infos().iter().map(|i| i.needles).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_stream_stores_only_what_came_whole() {
    let served = served().await;
    let whole = data(1, 3 << 20);
    let parts: Vec<Part> = (0..3).map(|n| Part::Data(whole.slice(n << 20..(n + 1) << 20))).collect();
    let head = |key| Part::Head(served.head(key, whole.len()));
    let stream = |key, body: &[Part], end: Option<Part>| {
        [vec![head(key)], body.to_vec(), end.into_iter().collect()].concat()
    };
    let good = end(whole.len(), &whole);
    let cases: Vec<(Vec<Part>, ErrorCode)> = vec![
        (vec![], ErrorCode::InvalidArgument),
        (vec![good.clone()], ErrorCode::InvalidArgument),
        (stream(1, &[], None), ErrorCode::IncompleteBody),
        (stream(1, &parts, None), ErrorCode::IncompleteBody),
        (stream(1, &parts[..2], Some(good.clone())), ErrorCode::IncompleteBody),
        (stream(1, &parts[..2], Some(end(2 << 20, &whole[..2 << 20]))), ErrorCode::IncompleteBody),
        (stream(1, &parts, Some(end(whole.len(), b"other"))), ErrorCode::DigestMismatch),
        (stream(1, &[&parts[..], &parts[..1]].concat(), Some(good.clone())), ErrorCode::InvalidArgument),
        (stream(1, &[head(1)], Some(good.clone())), ErrorCode::InvalidArgument),
        (stream(1, &vec![Part::Data(data(1, 10)); 2000], Some(good.clone())), ErrorCode::InvalidArgument),
        (vec![Part::Head(served.head(1, 100 << 20))], ErrorCode::TooLarge),
    ];
    for (n, (parts, wanted)) in cases.into_iter().enumerate() {
        assert_eq!(served.stream(parts).await, Err(wanted), "case {n}");
        assert_eq!(served.read(read_item(LARGE, 1, 0, 0)).await, Err(ErrorCode::NotFound), "case {n}");
    }
    served.stream(stream(1, &parts, Some(good.clone()))).await.unwrap();
    assert_eq!(served.read(read_item(LARGE, 1, 0, 0)).await.unwrap().concat(), whole);
    assert_eq!(served.stream(stream(1, &parts, Some(good))).await, Err(ErrorCode::NeedleExists));
    served.stream(vec![Part::Head(served.head(2, 0)), end(0, b"")]).await.unwrap();
    assert_eq!(served.read(read_item(LARGE, 2, 0, 0)).await.unwrap().concat(), b"");
    // All budget is given back.
    assert_eq!(served.core.append_budget.available_permits(), hay_common::limits::APPEND_STREAMS_BYTES_MAX);
}

#[tokio::test]
async fn streams_read_ranges_whether_the_budget_is_there_or_not() {
    let served = served().await;
    let whole = data(5, (5 << 20) + 77);
    let body =
        (0..6).map(|n| Part::Data(whole.slice(n << 20..whole.len().min((n + 1) << 20)))).collect::<Vec<_>>();
    let parts =
        [vec![Part::Head(served.head(5, whole.len()))], body, vec![end(whole.len(), &whole)]].concat();
    served.stream(parts).await.unwrap();
    let len = whole.len() as u32;
    let mib = 1u32 << 20;
    for is_short in [false, true] {
        let budget = served.core.read_budget.clone();
        let taken = is_short
            .then(|| budget.try_acquire_many(hay_common::limits::READ_STREAMS_BYTES_MAX as u32).unwrap());
        for (offset, length) in [
            (0, 0),
            (0, len),
            (1, 1),
            (mib - 1, 2),
            (mib, mib),
            (len - 1, 1),
            (len - 1, 0),
            (3, 4 * mib),
            (len, 0),
        ] {
            let parts = served.read(read_item(LARGE, 5, offset, length)).await.unwrap();
            let to = if length == 0 { len } else { offset + length };
            assert!(parts.iter().all(|p| p.len() <= mib as usize));
            assert!(parts.concat() == whole[offset as usize..to as usize], "{offset} {length} {is_short}");
        }
        for (offset, length) in [(len + 1, 0), (0, len + 1), (len, 1), (u32::MAX, u32::MAX)] {
            let refused = served.read(read_item(LARGE, 5, offset, length)).await;
            assert_eq!(refused, Err(ErrorCode::RangeNotSatisfiable), "{offset} {length}");
        }
        drop(taken);
    }
    // A damaged needle fails before its first part, by both ways.
    let path = served._dir.path().join("00000008.vol");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4 << 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(served.read(read_item(LARGE, 5, 0, 10)).await, Err(ErrorCode::Corrupt));
    let _all =
        served.core.read_budget.try_acquire_many(hay_common::limits::READ_STREAMS_BYTES_MAX as u32).unwrap();
    assert_eq!(served.read(read_item(LARGE, 5, 0, 10)).await, Err(ErrorCode::Corrupt));
}

#[tokio::test]
async fn a_message_full_of_data_is_read_and_one_byte_more_refused() {
    let served = served().await;
    let max = hay_common::limits::RPC_MESSAGE_BYTES_MAX;
    for (key, len) in [(1, max), (2, max + 1)] {
        let needle = crate::store::NewNeedle::new(
            EPOCH,
            NeedleKey(key),
            hay_common::ids::Cookie(9),
            3,
            vec![data(1, len)],
            None,
        );
        assert_eq!(served.core.store().append(LARGE, vec![needle.unwrap()]).await, [Ok(())]);
    }
    let read = async |items| {
        let reply = served.volume.read_batch(Request::new(v1::ReadBatchRequest { items })).await.unwrap();
        reply.into_inner().results
    };
    let whole = read(vec![read_item(LARGE, 1, 0, 0)]).await.remove(0);
    assert_eq!(code(&whole.failure), None);
    assert!(whole.data == data(1, max));
    let over = read(vec![read_item(LARGE, 2, 0, 0)]).await.remove(0);
    assert_eq!(code(&over.failure), Some(ErrorCode::TooLarge));
    // What does not fit fails alone; what fits after it is there.
    let both = read(vec![read_item(LARGE, 2, 1, 0), read_item(LARGE, 1, 0, 10)]).await;
    assert_eq!((code(&both[0].failure), both[0].data.len()), (None, max));
    assert_eq!(code(&both[1].failure), Some(ErrorCode::TooLarge));
}

#[tokio::test]
async fn batched_reads_wait_for_their_budget_and_give_it_back() {
    let served = served().await;
    let max = hay_common::limits::READ_BATCHES_BYTES_MAX;
    served.append(&served.lease, vec![item(LARGE, 1, data(1, 1 << 20))]).await.unwrap();
    let budget = &served.core.batch_budget;
    let taken = budget.try_acquire_many(max as u32 - 1000).unwrap();
    let items = vec![read_item(LARGE, 1, 5, 500), read_item(LARGE, 1, 5, 500)];
    let read = |items| served.volume.read_batch(Request::new(v1::ReadBatchRequest { items }));
    // A slice costs what it gives, not its needle.
    let reply = read(items.clone()).await.unwrap().into_inner();
    assert!(reply.results.iter().all(|r| r.data == data(1, 1 << 20).slice(5..505)));
    let more = [items, vec![read_item(LARGE, 1, 0, 1)]].concat();
    let mut waits = std::pin::pin!(read(more));
    for _ in 0..100 {
        assert!(futures::poll!(&mut waits).is_pending());
        tokio::task::yield_now().await;
    }
    drop(taken);
    assert_eq!(waits.await.unwrap().into_inner().results.len(), 3);
    assert_eq!(budget.available_permits(), max);
}

#[tokio::test]
async fn a_stream_pays_for_its_bytes_until_the_last_is_gone() {
    let served = served().await;
    served.append(&served.lease, vec![item(LARGE, 1, data(1, 2 << 20))]).await.unwrap();
    let budget = &served.core.read_budget;
    let max = hay_common::limits::READ_STREAMS_BYTES_MAX;
    let parts = served.read(read_item(LARGE, 1, 0, 0)).await.unwrap();
    assert!(budget.available_permits() <= max - (2 << 20));
    drop(parts);
    assert_eq!(budget.available_permits(), max);
    let few = served.read(read_item(LARGE, 1, 9, 100)).await.unwrap();
    assert_eq!(budget.available_permits(), max - 100);
    drop(few);
    // Without a budget, parts are small.
    let _taken = budget.try_acquire_many(max as u32).unwrap();
    let parts = served.read(read_item(LARGE, 1, 1, 0)).await.unwrap();
    assert!(parts.iter().all(|p| p.len() <= hay_common::limits::READ_STREAM_PART_BYTES));
    assert!(parts.concat() == data(1, 2 << 20).slice(1..));
}

#[tokio::test]
async fn after_the_shutdown_appends_are_refused_and_all_is_on_disk() {
    let served = served().await;
    assert_eq!(served.append(&served.lease, vec![item(SMALL, 1, data(1, 10))]).await, Ok(vec![None]));
    served.core.shutdown().await;
    served.core.shutdown().await;
    let refused = served.append(&served.lease, vec![item(SMALL, 2, data(1, 10))]).await;
    assert_eq!(refused, Ok(vec![Some(ErrorCode::Unavailable)]));
    assert!(served._dir.path().join("00000007.checkpoint").exists());
}

#[tokio::test]
async fn the_status_shows_all() {
    let served = served().await;
    let status =
        served.volume.volume_status(Request::new(v1::VolumeStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.volumes.iter().map(|v| v.id).collect::<Vec<_>>(), [7, 8]);
    assert_eq!((status.durability.as_str(), status.ready), ("sync", false));
    assert!(status.not_ready_reason.contains("master"));
    assert!(status.total_bytes > 0);
}
