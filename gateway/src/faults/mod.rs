//! What the gateway repeats silently, and what it leaves behind when it can't.

mod inner;
mod status;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use hay_client::filer::{Condition, NewIds};
use hay_client::{FilerClient, MasterClient, Peers, VolumeClient};
use hay_common::clock::{ManualClock, SystemClock};
use hay_common::disk::RealDisk;
use hay_common::error::ErrorCode;
use hay_common::ids::{ContentHash, Cookie, CopyId, VolumeId};
use hay_common::limits::DOWNLOAD_PIECE_BYTES;
use hay_common::manifest::content_hash;
use hay_common::model::{Chunk, Codec, Copy, CopyState, LocatedChunk, Location};
use hay_common::random::SeededRandom;
use hay_proto::v1::put_file::Content;
use http::HeaderMap;
use http_body_util::StreamBody;
use metrics_exporter_prometheus::PrometheusBuilder;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::Authenticated;
use crate::config::{GatewayConfig, GatewayDeps};
use crate::download::needle::{Source, read_whole};
use crate::download::plan::{Plan, Wanted};
use crate::download::pump::Download;
use crate::ingest::PutAsk;
use crate::ingest::body::BodyReader;
use crate::ingest::body::tests::{data, rules, scripted};
use crate::ingest::chunk::{Chunker, Start};
use crate::ingest::finish::put_known;
use crate::ingest::large::LargeUpload;
use crate::request::attributes::WrittenAttributes;
use inner::{ADDRESS, Inner};

const CHUNK: usize = 300_000;

fn app(inner: &Inner) -> Arc<App> {
    app_with(inner, GatewayConfig::default())
}

fn app_with(inner: &Inner, config: GatewayConfig) -> Arc<App> {
    let (clock, random) = (SystemClock::shared(), SeededRandom::shared(7));
    let peers = Peers::new(None);
    peers.register(ADDRESS, Arc::new(inner.clone()));
    let deps = GatewayDeps {
        filer: FilerClient::new(Arc::new(inner.clone()), clock.clone(), random.clone()),
        master: MasterClient::start(Arc::new(inner.clone()), clock.clone(), random.clone()),
        volumes: VolumeClient::new(peers),
        disk: RealDisk::shared(),
        clock,
        random,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        ready: Vec::new(),
    };
    App::new(config, deps, None, CancellationToken::new())
}

fn caller() -> Authenticated {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer t".parse().unwrap());
    Authenticated::from_headers(&headers).unwrap()
}

fn ask(app: &App) -> PutAsk {
    PutAsk {
        path: "a/file".into(),
        condition: Condition::default(),
        attributes: WrittenAttributes::default(),
        idempotency_key: None,
        digest: None,
        ids: NewIds::draw(app.deps.random.as_ref()),
    }
}

fn sha(bytes: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(bytes).into())
}

/// Sends `sent` of a body that announces `announced` bytes, as a large file.
async fn upload(
    app: &Arc<App>,
    sent: &[u8],
    announced: usize,
    digest: Option<[u8; 32]>,
) -> Result<hay_client::filer::Put, hay_common::error::Failure> {
    let steps = sent.chunks(50_000).map(|c| (Duration::ZERO, data(c))).collect();
    let clock = ManualClock::at(0);
    let reader = BodyReader::new(scripted(steps, clock.clone()), Some(announced as u64), rules(), clock);
    let mut chunker = Chunker::new(reader, app.uploads.clone(), CHUNK);
    assert!(matches!(chunker.start().await.unwrap(), Start::Large));
    let session = app.deps.filer.session().await.unwrap();
    let ask = PutAsk { digest, ..ask(app) };
    LargeUpload { app: app.clone(), caller: caller(), ask, session, announced: None }.run(&mut chunker).await
}

fn body(chunks: usize) -> Vec<u8> {
    (0..chunks * CHUNK - 1000).map(|i| (i / 7 + i / CHUNK) as u8).collect()
}

#[tokio::test]
async fn an_append_that_fails_goes_elsewhere_and_the_client_sees_nothing() {
    use ErrorCode::{NeedleExists, StaleEpoch, Unavailable, VolumeNotFound, VolumeNotWritable};
    let inner = Inner::default();
    inner.0.lock().append_failures.extend([
        StaleEpoch,
        NeedleExists,
        VolumeNotWritable,
        VolumeNotFound,
        Unavailable,
    ]);
    let app = app(&inner);
    let bytes = Bytes::from_static(b"small content");
    let put = put_known(&app, &caller(), &ask(&app), &bytes).await.unwrap();
    assert!(put.created);
    assert_eq!(put.entry.content_hash, Some(sha(&bytes)));
    let world = inner.0.lock();
    assert_eq!(world.needles.values().collect::<Vec<_>>(), [&bytes]);
    assert_eq!(world.calls.iter().filter(|c| **c == "append").count(), 6);
    assert_eq!(world.calls.iter().filter(|c| **c == "put").count(), 1);
}

#[tokio::test]
async fn a_full_disk_is_said_soon_and_nothing_appears() {
    let inner = Inner::default();
    inner.0.lock().append_failures.extend([ErrorCode::StorageFull; 20]);
    let app = app(&inner);
    let failure = put_known(&app, &caller(), &ask(&app), &Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::StorageFull);
    let world = inner.0.lock();
    assert!(world.files.is_empty());
    assert_eq!(world.append_failures.len(), 18);
}

#[tokio::test]
async fn a_copy_that_is_gone_at_the_commit_is_stored_again() {
    for code in [ErrorCode::CopyGone, ErrorCode::SessionExpired] {
        let inner = Inner::default();
        inner.0.lock().commit_failures.push_back(code);
        let app = app(&inner);
        put_known(&app, &caller(), &ask(&app), &Bytes::from_static(b"again")).await.unwrap();
        let world = inner.0.lock();
        assert_eq!(world.needles.len(), 2, "{code}");
        let Some(Content::Chunk(chunk)) = world.files.get(b"a/file".as_slice()) else { panic!("no file") };
        assert!(chunk.new_copy.is_some());
    }
}

#[tokio::test]
async fn a_large_file_is_referenced_in_order_and_published_once() {
    let inner = Inner::default();
    let app = app(&inner);
    let bytes = body(9);
    let put = upload(&app, &bytes, bytes.len(), Some(sha(&bytes).0)).await.unwrap();
    let chunks: Vec<Chunk> =
        bytes.chunks(CHUNK).map(|c| Chunk { hash: sha(c), size: c.len() as u32 }).collect();
    assert_eq!(put.entry.content_hash, Some(content_hash(&chunks)));
    assert_eq!((put.entry.chunk_count, put.entry.size), (9, bytes.len() as u64));
    let world = inner.0.lock();
    let manifest = world.manifests.values().next().unwrap();
    let hashes: Vec<_> = manifest.iter().map(|r| r.chunk.as_ref().unwrap().hash.to_vec()).collect();
    assert_eq!(hashes, chunks.iter().map(|c| c.hash.0.to_vec()).collect::<Vec<_>>());
    assert!(world.abandoned.is_empty());
    assert_eq!(app.buffers.held(), 0);
}

#[tokio::test]
async fn what_the_tenant_owns_is_not_sent_again_unless_its_copy_is_gone() {
    let inner = Inner::default();
    let bytes = body(3);
    inner.0.lock().owned = bytes.chunks(CHUNK).map(|c| sha(c).0.to_vec()).collect();
    let app = app(&inner);
    upload(&app, &bytes, bytes.len(), None).await.unwrap();
    assert!(inner.0.lock().needles.is_empty());
    // The first references fail: their chunks are appended, and the file is whole all the same.
    inner.0.lock().commit_failures.push_back(ErrorCode::CopyGone);
    inner.0.lock().manifests.clear();
    upload(&app, &bytes, bytes.len(), None).await.unwrap();
    let world = inner.0.lock();
    assert!(!world.needles.is_empty());
    assert_eq!(world.manifests.values().next().unwrap().len(), 3);
    assert!(world.abandoned.is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_no_manifest_and_no_file() {
    let bytes = body(4);
    let wrong = Some([9; 32]);
    for (sent, digest, code) in [
        (bytes.len() - 1, None, ErrorCode::IncompleteBody),
        (CHUNK + 10, None, ErrorCode::IncompleteBody),
        (bytes.len(), wrong, ErrorCode::DigestMismatch),
    ] {
        let inner = Inner::default();
        let app = app(&inner);
        let failure = upload(&app, &bytes[..sent], bytes.len(), digest).await.unwrap_err();
        assert_eq!(failure.code, code, "{sent}");
        let world = inner.0.lock();
        assert!(world.files.is_empty(), "{sent}");
        let referenced: Vec<_> = world.manifests.keys().cloned().collect();
        assert_eq!(world.abandoned, referenced, "{sent}: what was referenced is given up");
        assert_eq!(app.buffers.held(), 0, "{sent}");
    }
}

#[tokio::test]
async fn an_append_that_fails_for_good_ends_the_upload_and_gives_it_up() {
    let inner = Inner::default();
    let bytes = body(6);
    let app = app(&inner);
    inner.0.lock().commit_failures.extend([ErrorCode::QuotaExceeded]);
    let failure = upload(&app, &bytes, bytes.len(), None).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::QuotaExceeded);
    let world = inner.0.lock();
    assert!(world.files.is_empty());
    assert_eq!(world.abandoned.len(), 1);
    assert_eq!(app.buffers.held(), 0);
}

#[tokio::test]
async fn while_an_upload_is_given_up_nothing_is_held_for_it() {
    let inner = Inner::default();
    let app = app(&inner);
    inner.0.lock().buffers = Some(app.buffers.clone());
    // A while after the third chunk was begun.
    inner.0.lock().append_failures.extend([ErrorCode::StaleEpoch; 4]);
    inner.0.lock().commit_failures.push_back(ErrorCode::QuotaExceeded);
    let bytes = body(3);
    let sent: Vec<_> = bytes[..CHUNK * 2 + 100_000].chunks(50_000).map(data).collect();
    let stalls = StreamBody::new(futures::stream::iter(sent).chain(futures::stream::pending()));
    let reader = BodyReader::new(stalls, Some(bytes.len() as u64), rules(), ManualClock::at(0));
    let mut chunker = Chunker::new(reader, app.uploads.clone(), CHUNK);
    assert!(matches!(chunker.start().await.unwrap(), Start::Large));
    let session = app.deps.filer.session().await.unwrap();
    let upload = LargeUpload { app: app.clone(), caller: caller(), ask: ask(&app), session, announced: None };
    assert_eq!(upload.run(&mut chunker).await.unwrap_err().code, ErrorCode::QuotaExceeded);
    assert_eq!(inner.0.lock().held_at_abandon, [0]);
}

#[tokio::test]
async fn a_read_that_fails_is_tried_again() {
    let inner = Inner::default();
    let app = app(&inner);
    let bytes = Bytes::from_static(b"0123456789");
    put_known(&app, &caller(), &ask(&app), &bytes).await.unwrap();
    let Some(Content::Chunk(reference)) = inner.0.lock().files.get(b"a/file".as_slice()).cloned() else {
        panic!("no file")
    };
    let located = LocatedChunk {
        number: 0,
        offset: 0,
        chunk: reference.chunk.unwrap().try_into().unwrap(),
        copy: reference.new_copy.unwrap().try_into().unwrap(),
    };
    let source = Source { path: "a/file".into(), content_hash: None, manifest: None };
    let wanted = Wanted { located, start: 2, end: 5 };
    inner.0.lock().read_failures.push_back(ErrorCode::VolumeNotFound);
    assert_eq!(&read_whole(&app, &caller(), &source, wanted).await.unwrap()[..], b"234");
    assert!(!inner.0.lock().calls.contains(&"report"));
    // The filer knows the file: a needle that stays away is damage, not absence.
    for code in [ErrorCode::NotFound, ErrorCode::Corrupt] {
        inner.0.lock().read_failures.extend([code; 4]);
        let failure = read_whole(&app, &caller(), &source, wanted).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Corrupt);
        let mut world = inner.0.lock();
        assert_eq!(world.calls.iter().filter(|c| **c == "report").count(), 1, "{code}");
        world.calls.clear();
        world.read_failures.clear();
    }
    // The only server that lives starts again: some seconds, not some milliseconds.
    inner.0.lock().read_failures.extend([ErrorCode::Unavailable; 7]);
    assert_eq!(&read_whole(&app, &caller(), &source, wanted).await.unwrap()[..], b"234");
    inner.0.lock().read_failures.push_back(ErrorCode::Internal);
    let failure = read_whole(&app, &caller(), &source, wanted).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Internal);
}

/// A download of four chunks of 8 MiB that lie in one volume each.
fn download(app: &Arc<App>, inner: &Inner) -> Download {
    let chunk_bytes = 8 << 20;
    let located = |number: u32| {
        let bytes = Bytes::from(vec![number as u8; chunk_bytes]);
        let chunk = Chunk { hash: ContentHash([number as u8; 32]), size: chunk_bytes as u32 };
        inner.0.lock().needles.insert((1, number), bytes);
        let location = Location::Volume { volume: VolumeId(1), cookie: Cookie(number) };
        let copy = Copy {
            id: CopyId::from_random(u128::from(number)),
            location,
            codec: Codec::PLAIN,
            stored_bytes: chunk.size,
            state: CopyState::Live,
        };
        LocatedChunk { number, offset: u64::from(number) * chunk_bytes as u64, chunk, copy }
    };
    let plan = Plan::new(0, 4 * chunk_bytes as u64, (0..4).map(located).collect());
    let source = Source { path: "a/file".into(), content_hash: None, manifest: None };
    Download { app: app.clone(), caller: caller(), source, plan }
}

#[tokio::test]
async fn downloads_that_stall_slow_no_other_down() {
    let inner = Inner::default();
    let app = app(&inner);
    let mut stalled = Vec::new();
    for _ in 0..40 {
        stalled.push(download(&app, &inner).start().await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = app.buffers.held();
    // The budget, and the small pieces that everybody may hold.
    let bound = app.config.download_budget_bytes + 40 * 5 * DOWNLOAD_PIECE_BYTES;
    assert!(held <= bound as u64, "{held} bytes are held by those who stall");
    inner.0.lock().calls.clear();
    let mut stream = download(&app, &inner).start().await.unwrap();
    let mut came = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.unwrap();
        assert!(piece.iter().all(|b| usize::from(*b) == came >> 23), "at {came}");
        came += piece.len();
    }
    assert_eq!(came, 32 << 20);
    // Each chunk is read once, and in no small pieces. Those in transit may have been read anew meanwhile.
    let reads = inner.0.lock().calls.iter().filter(|c| **c == "read").count();
    assert!(reads < 4 + 40, "{reads} readings");
    // Those who stalled get all of their bytes, too.
    stalled.drain(3..37);
    for mut stream in stalled {
        let mut came = 0;
        while let Some(piece) = stream.next().await {
            came += piece.unwrap().len();
        }
        assert_eq!(came, 32 << 20);
    }
}
