//! Every distinct content once: the same folder twice, and what is left when one, then both are gone.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;

use crate::harness::{Api, Pattern, Server, compare_trees, eventually_async, hay, heavy, seed};

/// Dropped references of large files are drained in batches.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

/// A number of the cluster's status, wherever in it the name stands.
fn number(value: &Value, name: &str) -> Option<u64> {
    match value {
        Value::Object(map) => {
            map.get(name).and_then(Value::as_u64).or_else(|| map.values().find_map(|v| number(v, name)))
        }
        Value::Array(list) => list.iter().find_map(|v| number(v, name)),
        _ => None,
    }
}

async fn status(api: &Api, name: &str) -> u64 {
    let status = api.status().await;
    number(&status, name).unwrap_or_else(|| panic!("the status has no {name}: {status}"))
}

/// Bytes of all volumes up to their last needle, after a restart: every volume has been reported then.
async fn volume_bytes(server: &mut Server) -> u64 {
    assert!(server.stop().success(), "an orderly end");
    server.restart();
    let listed =
        hay(&["volume", "list", "--json"], &[("HAY_CREDENTIALS", server.credentials().to_str().unwrap())])
            .ok()
            .json();
    let volumes = listed["volumes"].as_array().unwrap_or_else(|| panic!("no volumes in {listed}")).clone();
    assert!(!volumes.is_empty());
    volumes.iter().map(|v| number(v, "size_bytes").unwrap_or_else(|| panic!("no size in {v}"))).sum()
}

/// A folder of 600 files of all sizes, some with the same content, one of several chunks. Returns the bytes of its
/// distinct contents, but for the shortest, which may be alike by chance.
fn make_folder(root: &Path, seed: u64) -> u64 {
    let sizes = [0, 1, 100, 4096, 5000, 65_536, 100_000, 300_000];
    let mut distinct = (40 << 20) + 77 + (8 << 20);
    for n in 0..600u64 {
        let dir = root.join(format!("d{}/e{}", n % 7, n % 3));
        std::fs::create_dir_all(&dir).unwrap();
        // Every tenth file repeats the content of another.
        let content = if n % 10 == 9 { n - 5 } else { n };
        let size = sizes[content as usize % sizes.len()];
        if content == n && size >= 4096 {
            distinct += size;
        }
        let pattern = Pattern::new(seed + content, size);
        std::fs::write(dir.join(format!("f{n}")), pattern.bytes()).unwrap();
    }
    std::fs::write(root.join("large"), Pattern::new(seed + 10_000, (40 << 20) + 77).bytes()).unwrap();
    // The same chunk many times in one file.
    let chunk = Pattern::new(seed + 20_000, 8 << 20).bytes();
    std::fs::write(root.join("repeats"), chunk.repeat(5)).unwrap();
    distinct
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_the_same_folder_twice_is_stored_once() {
    let _turn = heavy().await;
    let mut server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let distinct = make_folder(&source, seed());
    let source_text = source.to_str().unwrap().to_owned();
    let hay_here = |server: &Server, args: &[&str]| {
        hay(args, &[("HAY_CREDENTIALS", server.credentials().to_str().unwrap())]).ok()
    };

    hay_here(&server, &["put", "-r", &source_text, "/one"]);
    let after_one = volume_bytes(&mut server).await;
    let (contents, references) =
        (status(&server.api(), "contents_owned").await, status(&server.api(), "references").await);

    hay_here(&server, &["put", "-r", &source_text, "/two"]);
    let after_two = volume_bytes(&mut server).await;
    println!("volumes hold {after_one} bytes after the first folder, {after_two} after the second");
    assert!(after_one > distinct, "the folder is stored: {after_one} bytes of {distinct}");
    assert!((after_two - after_one) * 50 < after_one, "it grew by 2 % or more: {after_one} → {after_two}");
    assert_eq!(status(&server.api(), "contents_owned").await, contents, "no content is there twice");
    assert_eq!(status(&server.api(), "references").await, 2 * references, "every reference is counted");

    hay_here(&server, &["rm", "-r", "--yes", "/one"]);
    let api = &server.api();
    eventually_async("the references of the first folder are dropped", DRAINED_WITHIN, || async move {
        match status(api, "references").await {
            left if left == references => Ok(()),
            left => Err(format!("{left} instead of {references}")),
        }
    })
    .await;
    let back = folder.path().join("back");
    hay_here(&server, &["get", "-r", "/two", back.to_str().unwrap()]);
    let differences = compare_trees(&source, &back);
    assert!(differences.is_empty(), "the other folder is not whole: {differences:?}");

    hay_here(&server, &["rm", "-r", "--yes", "/two"]);
    for name in ["references", "contents_owned", "manifests_draining", "manifests_unpublished"] {
        eventually_async(&format!("{name} comes to 0"), DRAINED_WITHIN, || async move {
            match status(api, name).await {
                0 => Ok(()),
                left => Err(format!("{left} left")),
            }
        })
        .await;
    }
    assert!(status(api, "delete_queue").await > 0, "the copies wait for the collector");
    // What is written now gets copies that are there.
    hay_here(&server, &["put", "-r", &source_text, "/three"]);
    let again = folder.path().join("again");
    hay_here(&server, &["get", "-r", "/three", again.to_str().unwrap()]);
    assert!(compare_trees(&source, &again).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_counts_references_exactly_while_many_write_the_same() {
    let _turn = heavy().await;
    let mut server = Server::start();
    let seed = seed();
    let api = server.api();
    const WRITERS: usize = 24;
    for (n, len) in [16u64, 4096, 200_000, 9 << 20].into_iter().enumerate() {
        let pattern = Pattern::new(seed + n as u64, len);
        let chunks = len.div_ceil(8 << 20);
        let writes = (0..WRITERS).map(|writer| {
            let api = api.clone();
            async move { api.put(&format!("same/{n}/{writer}"), pattern.bytes()).await.ok() }
        });
        join_all(writes).await;
        assert_eq!(status(&api, "references").await, WRITERS as u64 * chunks, "{len} bytes");
        assert_eq!(status(&api, "contents_owned").await, chunks, "{len} bytes");

        // Onto themselves: nothing changes.
        join_all((0..WRITERS).map(|writer| {
            let api = api.clone();
            async move { api.put(&format!("same/{n}/{writer}"), pattern.bytes()).await.ok() }
        }))
        .await;
        let api = &api;
        eventually_async("the references of replaced files are dropped", DRAINED_WITHIN, || async move {
            match status(api, "references").await {
                left if left == WRITERS as u64 * chunks => Ok(()),
                left => Err(format!("{left} references")),
            }
        })
        .await;
        join_all((1..WRITERS).map(|writer| async move {
            api.delete(&format!("same/{n}/{writer}")).await.ok();
        }))
        .await;
        assert!(pattern.is(&api.get(&format!("same/{n}/0")).await.ok().body), "the last one is whole");
        api.delete(&format!("same/{n}/0")).await.ok();
        eventually_async("no reference is left", DRAINED_WITHIN, || async move {
            match (status(api, "references").await, status(api, "contents_owned").await) {
                (0, 0) => Ok(()),
                left => Err(format!("{left:?} references and contents")),
            }
        })
        .await;
    }
    server.restart();
    assert_eq!(status(&server.api(), "references").await, 0, "after a restart");
}
