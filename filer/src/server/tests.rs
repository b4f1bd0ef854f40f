//! A whole filer, with its log, through its handlers.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hay_common::clock::SystemClock;
use hay_common::disk::RealDisk;
use hay_common::error::ErrorCode;
use hay_common::ids::{ClusterId, SessionId};
use hay_common::limits::{MIB, RPC_BATCH_ITEMS_MAX};
use hay_common::random::SeededRandom;
use hay_proto::convert::WireId;
use hay_proto::v1::filer_server::Filer as _;
use hay_proto::{rpc, v1};
use tonic::Request;

use super::*;
use crate::namespace::model;

const TOKEN: TokenHash = model::TOKEN;

fn config(dir: &Path) -> FilerConfig {
    FilerConfig {
        log_segment_bytes: MIB as u64,
        cache_size_mb: 8,
        free_space_reserve_bytes: 0,
        ..FilerConfig::new(dir.join("filer"), ClusterId::from_random(5))
    }
}

async fn start(config: FilerConfig) -> Arc<Filer> {
    let deps =
        FilerDeps { disk: RealDisk::shared(), clock: SystemClock::shared(), random: SeededRandom::shared(1) };
    let filer = Filer::start(config, deps).await.unwrap();
    filer.bootstrap("default", TOKEN).await.unwrap();
    for _ in 0..200 {
        if filer.ready().is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    filer.ready().unwrap();
    filer
}

fn caller() -> Option<v1::Caller> {
    Some(v1::Caller { token_hash: Bytes::copy_from_slice(&TOKEN.0), group: 0 })
}

fn session() -> Bytes {
    SessionId::from_random(9).to_wire()
}

async fn open_session(filer: &Filer) {
    let request = v1::OpenSessionsRequest { sessions: vec![session()] };
    let ttl_ms = filer.open_sessions(Request::new(request)).await.unwrap().into_inner().ttl_ms;
    assert_eq!(ttl_ms, 24 * 3_600_000);
}

fn put(path: &str, content: v1::put_file::Content) -> v1::PutFile {
    v1::PutFile {
        path: Bytes::copy_from_slice(path.as_bytes()),
        entry_id: hay_common::ids::EntryId::from_random(1).to_wire(),
        directory_id_seed_low: 10,
        content: Some(content),
        ..Default::default()
    }
}

fn with_copy(n: u64, copy: u128) -> v1::put_file::Content {
    v1::put_file::Content::Chunk(v1::ChunkRef {
        chunk: Some(model::chunk(n).into()),
        new_copy: Some(model::copy(copy).into()),
    })
}

fn without_copy(n: u64) -> v1::put_file::Content {
    v1::put_file::Content::Chunk(v1::ChunkRef { chunk: Some(model::chunk(n).into()), new_copy: None })
}

fn command(sequence: u64, op: v1::command::Op) -> v1::Command {
    v1::Command { caller: caller(), session: session(), sequence, op: Some(op) }
}

async fn commit(filer: &Filer, commands: Vec<v1::Command>) -> Vec<v1::Outcome> {
    let request = v1::CommitBatchRequest { commands };
    filer.commit_batch(Request::new(request)).await.unwrap().into_inner().outcomes
}

fn code(failure: &Option<v1::Failure>) -> Option<&str> {
    failure.as_ref().map(|f| f.code.as_str())
}

async fn resolve(filer: &Filer, path: &str) -> v1::Resolved {
    let item = v1::ResolveItem {
        caller: caller(),
        path: Bytes::copy_from_slice(path.as_bytes()),
        chunks: 8,
        ..Default::default()
    };
    let request = v1::ResolveBatchRequest { items: vec![item] };
    filer.resolve_batch(Request::new(request)).await.unwrap().into_inner().items.remove(0)
}

async fn status(filer: &Filer) -> v1::FilerStatusReply {
    filer.filer_status(Request::new(v1::FilerStatusRequest {})).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_put_found_and_removed_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let filer = start(config(dir.path())).await;
    open_session(&filer).await;
    let wanted = v1::PutFile {
        attributes: Some(v1::Attributes {
            content_type: Some("text/plain".into()),
            user_metadata: vec![v1::NameValue { name: "k".into(), value: "v".into() }],
        }),
        ..put("d/e/file", with_copy(1, 100))
    };
    let outcomes = commit(
        &filer,
        vec![
            command(1, v1::command::Op::PutFile(wanted.clone())),
            command(2, v1::command::Op::PutFile(put("d", with_copy(2, 101)))),
            v1::Command { caller: None, ..command(3, v1::command::Op::PutFile(wanted.clone())) },
            command(
                4,
                v1::command::Op::MakeDirectory(v1::MakeDirectory {
                    path: Bytes::from_static(b"m/"),
                    entry_id: hay_common::ids::EntryId::from_random(3).to_wire(),
                    ..Default::default()
                }),
            ),
        ],
    )
    .await;
    let codes: Vec<_> = outcomes.iter().map(|o| code(&o.failure)).collect();
    // The commands of a batch go side by side: "d" may come before "d/e/file".
    assert!(matches!(codes[..2], [None, Some("is_directory")] | [Some("not_directory"), None]), "{codes:?}");
    assert_eq!(codes[2..], [Some("invalid_argument"), None]);
    let outcomes =
        commit(&filer, vec![command(5, v1::command::Op::PutFile(put("z/file", with_copy(3, 103))))]).await;
    let entry = outcomes[0].entry.clone().unwrap();
    assert!(outcomes[0].created);
    assert_eq!((entry.path, entry.size, entry.chunk_count), (Bytes::from_static(b"z/file"), 103, 1));
    filer.shutdown().await.unwrap();
    drop(filer);

    let filer = start(config(dir.path())).await;
    let found = resolve(&filer, "z/file").await;
    assert_eq!(found.entry.unwrap().size, 103);
    assert_eq!(found.chunks[0].copy, Some(model::copy(103).into()));
    assert_eq!(code(&resolve(&filer, "z").await.failure), Some("is_directory"));
    assert_eq!(code(&resolve(&filer, "nothing").await.failure), Some("not_found"));
    // Asked once more after the restart, it still acts once.
    let again =
        commit(&filer, vec![command(5, v1::command::Op::PutFile(put("z/file", with_copy(3, 103))))]).await;
    assert!(again[0].created && again[0].entry.is_some());
    let remove = v1::Delete { path: Bytes::from_static(b"z/"), recursive: true, ..Default::default() };
    let removed = commit(&filer, vec![command(6, v1::command::Op::Delete(remove))]).await;
    assert_eq!((removed[0].removed, removed[0].more), (2, false));
    let page = v1::ListRequest { caller: caller(), recursive: true, ..Default::default() };
    let page = filer.list(Request::new(page)).await.unwrap().into_inner();
    assert!(page.entries.iter().all(|e| !e.path.starts_with(b"z")) && !page.more);
    let status = status(&filer).await;
    assert!(status.ready && status.sessions == 1 && status.delete_queue == 1, "{status:?}");
    assert_eq!((status.durability.as_str(), status.path_index_mode.as_str()), ("sync", "rocksdb"));
    filer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_finishes_what_needs_no_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let filer = start(config(dir.path())).await;
    open_session(&filer).await;
    let begin = async |put: v1::PutFile, sequence| {
        let request =
            v1::BeginRequest { caller: caller(), put: Some(put), session: session(), sequence, size: None };
        filer.begin(Request::new(request)).await.map(|reply| reply.into_inner().finished)
    };
    assert_eq!(begin(put("a", without_copy(1)), 1).await.unwrap(), None, "nobody has it yet");
    let nothing = v1::PutFile { content: None, ..put("a", without_copy(1)) };
    assert_eq!(begin(nothing, 1).await.unwrap(), None, "nothing known of it");
    commit(&filer, vec![command(1, v1::command::Op::PutFile(put("a", with_copy(1, 100))))]).await;
    let finished = begin(put("b", without_copy(1)), 2).await.unwrap().unwrap();
    assert!(finished.created && finished.failure.is_none());
    assert_eq!(finished.entry.unwrap().path, Bytes::from_static(b"b"));
    let finished = begin(put("c", v1::put_file::Content::Empty(v1::Empty {})), 3).await.unwrap();
    assert_eq!(finished.unwrap().entry.unwrap().size, 0);
    // A gateway that lost an answer asks again: it gets the answer, not what its own put has made of the condition.
    let only_new = v1::PutFile {
        condition: Some(v1::Condition { if_none_match_any: true, ..Default::default() }),
        ..put("e", without_copy(1))
    };
    let first = begin(only_new.clone(), 7).await.unwrap();
    assert!(first.is_some());
    assert_eq!(begin(only_new.clone(), 7).await.unwrap(), first);
    let refused = begin(only_new, 8).await.unwrap_err();
    assert_eq!(rpc::to_failure(&refused).code, ErrorCode::PreconditionFailed);
    let refused = begin(put("a/b", without_copy(1)), 4).await.unwrap_err();
    assert_eq!(rpc::to_failure(&refused).code, ErrorCode::NotDirectory);
    let mut unknown =
        v1::BeginRequest { caller: caller(), put: Some(put("d", without_copy(9))), ..Default::default() };
    unknown.caller = Some(v1::Caller { token_hash: Bytes::from_static(&[1; 32]), group: 0 });
    let refused = filer.begin(Request::new(unknown)).await.unwrap_err();
    assert_eq!(rpc::to_failure(&refused).code, ErrorCode::Unauthenticated);
    let owned = v1::FindOwnRequest {
        caller: caller(),
        hashes: vec![model::chunk(1).hash.to_wire(), model::chunk(2).hash.to_wire()],
    };
    assert_eq!(filer.find_own(Request::new(owned)).await.unwrap().into_inner().owned, [true, false]);
    let who = filer.whoami(Request::new(v1::WhoamiRequest { caller: caller() })).await.unwrap().into_inner();
    assert!(who.administrator && who.tenant_name == "default");
    filer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_reported_damaged_is_replaced_by_the_next_put() {
    let dir = tempfile::tempdir().unwrap();
    let filer = start(config(dir.path())).await;
    open_session(&filer).await;
    commit(&filer, vec![command(1, v1::command::Op::PutFile(put("a", with_copy(1, 100))))]).await;
    let report = v1::ReportDamaged {
        hash: model::chunk(1).hash.to_wire(),
        copy: hay_common::ids::CopyId::from_random(100).to_wire(),
    };
    let outcomes = commit(&filer, vec![command(2, v1::command::Op::ReportDamaged(report))]).await;
    assert_eq!(outcomes[0], v1::Outcome::default());
    let found = resolve(&filer, "a").await.chunks.remove(0).copy.unwrap();
    assert_eq!(found, v1::Copy { damaged: true, ..model::copy(100).into() });
    let begin = v1::BeginRequest {
        caller: caller(),
        put: Some(put("a", without_copy(1))),
        session: session(),
        sequence: 3,
        size: None,
    };
    let reply = filer.begin(Request::new(begin)).await.unwrap().into_inner();
    assert_eq!(reply.finished, None, "the bytes have to come");
    commit(&filer, vec![command(3, v1::command::Op::PutFile(put("a", with_copy(1, 101))))]).await;
    assert_eq!(resolve(&filer, "a").await.chunks[0].copy, Some(model::copy(101).into()));
    let malformed = v1::ReportDamaged { hash: Bytes::new(), copy: Bytes::new() };
    let outcomes = commit(&filer, vec![command(4, v1::command::Op::ReportDamaged(malformed))]).await;
    assert_eq!(code(&outcomes[0].failure), Some("invalid_argument"));
    filer.shutdown().await.unwrap();
}

/// Counts that are wrong must not make the filer write the log full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drainer_rests_where_nothing_waits_though_something_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    start(config(dir.path())).await.shutdown().await.unwrap();
    store::tests::miscount_draining(&dir.path().join("filer"));
    let filer = start(config(dir.path())).await;
    assert_eq!(status(&filer).await.manifests_draining, 1);
    // Before, this never ended.
    tokio::time::timeout(Duration::from_secs(60), background::drain_all(&filer.core)).await.unwrap().unwrap();
    filer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_published_read_and_drained() {
    let dir = tempfile::tempdir().unwrap();
    let filer = start(config(dir.path())).await;
    open_session(&filer).await;
    let id = hay_common::ids::ManifestId::from_random(4).to_wire();
    let mut offset = 0;
    for batch in 0..3u32 {
        let chunks: Vec<_> = (0..64)
            .map(|n| v1::ChunkRef {
                chunk: Some(model::chunk(n).into()),
                new_copy: Some(model::copy(u128::from(n) + 200).into()),
            })
            .collect();
        let bytes: u64 = (0..64).map(|n| u64::from(model::chunk(n).size)).sum();
        let add = v1::AddReferences {
            manifest: id.clone(),
            first_number: batch * 64,
            first_offset: offset,
            chunks,
        };
        offset += bytes;
        let outcomes =
            commit(&filer, vec![command(u64::from(batch) + 1, v1::command::Op::AddReferences(add))]).await;
        assert_eq!(outcomes[0].failure, None);
    }
    assert_eq!(status(&filer).await.manifests_unpublished, 1);
    let content = v1::put_file::Content::Manifest(v1::ManifestRef {
        id: id.clone(),
        root_hash: Bytes::from_static(&[9; 32]),
        chunk_count: 192,
        size: offset,
    });
    let outcomes = commit(&filer, vec![command(9, v1::command::Op::PutFile(put("big", content)))]).await;
    assert_eq!(outcomes[0].failure, None);
    let page = v1::ReadManifestRequest { caller: caller(), manifest: id, first_number: 100, count: 1000 };
    let chunks = filer.read_manifest(Request::new(page)).await.unwrap().into_inner().chunks;
    assert_eq!((chunks.len(), chunks[0].number), (64, 100));
    let before = status(&filer).await;
    assert_eq!((before.references, before.contents_owned, before.manifests_unpublished), (192, 64, 0));
    let remove = v1::Delete { path: Bytes::from_static(b"big"), ..Default::default() };
    commit(&filer, vec![command(10, v1::command::Op::Delete(remove))]).await;
    let mut after = status(&filer).await;
    for _ in 0..200 {
        if after.references == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        after = status(&filer).await;
    }
    assert_eq!((after.references, after.manifests_draining, after.delete_queue), (0, 0, 64));
    assert_eq!(after.tenants[0].logical_bytes, 0);
    filer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_reserve_only_what_frees_space_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    let filer = start(config(dir.path())).await;
    open_session(&filer).await;
    commit(&filer, vec![command(1, v1::command::Op::PutFile(put("a", with_copy(1, 100))))]).await;
    filer.shutdown().await.unwrap();
    drop(filer);
    let full = FilerConfig { free_space_reserve_bytes: u64::MAX, ..config(dir.path()) };
    let filer = start(full).await;
    let outcomes = commit(
        &filer,
        vec![
            command(2, v1::command::Op::PutFile(put("b", with_copy(2, 101)))),
            command(
                3,
                v1::command::Op::Delete(v1::Delete { path: Bytes::from_static(b"a"), ..Default::default() }),
            ),
        ],
    )
    .await;
    assert_eq!(outcomes.iter().map(|o| code(&o.failure)).collect::<Vec<_>>(), [Some("storage_full"), None]);
    let begin =
        v1::BeginRequest { caller: caller(), put: Some(put("b", without_copy(2))), ..Default::default() };
    let refused = filer.begin(Request::new(begin)).await.unwrap_err();
    assert_eq!(rpc::to_failure(&refused).code, ErrorCode::StorageFull);
    let refused =
        filer.open_sessions(Request::new(v1::OpenSessionsRequest { sessions: vec![session()] })).await;
    assert_eq!(rpc::to_failure(&refused.unwrap_err()).code, ErrorCode::StorageFull);
    filer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_are_refused_item_by_item() {
    let dir = tempfile::tempdir().unwrap();
    let filer = start(config(dir.path())).await;
    open_session(&filer).await;
    let item = |path: &'static [u8], caller| v1::ResolveItem {
        caller,
        path: Bytes::from_static(path),
        ..Default::default()
    };
    let short = Some(v1::Caller { token_hash: Bytes::from_static(b"short"), group: 0 });
    let elsewhere = Some(v1::Caller { group: 1, ..caller().unwrap() });
    let items = vec![
        item(b"", caller()),
        item(b"\xff", caller()),
        item(b"a", None),
        item(b"a", short),
        item(b"a", elsewhere),
        item(b"a//b", caller()),
    ];
    let request = Request::new(v1::ResolveBatchRequest { items });
    let items = filer.resolve_batch(request).await.unwrap().into_inner().items;
    let codes: Vec<_> = items.iter().map(|i| code(&i.failure)).collect();
    let argument = Some("invalid_argument");
    assert_eq!(codes, [None, Some("invalid_path"), argument, argument, argument, Some("invalid_path")]);
    let long = vec![item(b"", caller()); RPC_BATCH_ITEMS_MAX + 1];
    let refused =
        filer.resolve_batch(Request::new(v1::ResolveBatchRequest { items: long })).await.unwrap_err();
    assert_eq!(rpc::to_failure(&refused).code, ErrorCode::InvalidArgument);
    let no_content = v1::PutFile { content: None, ..put("a", without_copy(1)) };
    let empty = v1::Command { op: None, ..command(3, v1::command::Op::Delete(v1::Delete::default())) };
    let outcomes = commit(&filer, vec![command(1, v1::command::Op::PutFile(no_content)), empty]).await;
    assert!(outcomes.iter().all(|o| code(&o.failure) == argument), "{outcomes:?}");
    filer.shutdown().await.unwrap();
}
