//! A full disk: refused writes, whole reads, and service again when there is room.

mod small_disk;

use std::time::Duration;

use crate::harness::{Api, Pattern, Server, Start, eventually_async, heavy, seed};
use small_disk::SmallDisk;

const MIB: u64 = 1 << 20;
const RESERVE: u64 = 64 * MIB;
/// What is left to fill when the ballast lies there.
const ROOM: u64 = 160 * MIB;
/// FREE_SPACE_CHECK is half a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

struct Stored {
    path: String,
    pattern: Pattern,
}

/// Writes files of these sizes in turn until one is refused; everything that was acknowledged goes into `stored`.
async fn fill(api: &Api, stored: &mut Vec<Stored>, seed: u64, sizes: &[u64], most: u64) {
    for n in 0..most {
        let pattern = Pattern::new(seed + n, sizes[n as usize % sizes.len()] + n % 7);
        let path = format!("full/{seed}/{n}");
        let answer = api.put(&path, pattern.bytes()).await;
        match answer.status {
            200..300 => stored.push(Stored { path, pattern }),
            _ => {
                answer.refused(507, "storage_full");
                assert_eq!(api.get(&path).await.status, 404, "what was refused is not there");
                return;
            }
        }
    }
    panic!("{most} files went in and the disk is not full");
}

async fn files_listed(api: &Api) -> usize {
    api.list_all("full", true, 100).await.iter().filter(|(_, kind)| kind == "file").count()
}

async fn all_whole(api: &Api, stored: &[Stored], when: &str) {
    for file in stored {
        let answer = api.get(&file.path).await;
        assert_eq!(answer.status, 200, "{when}: {}: {}", file.path, answer.error_code());
        assert!(file.pattern.is(&answer.body), "{when}: {} has other bytes", file.path);
    }
}

/// Reads answer again, whether or not the server calls itself ready on a full disk.
async fn serves(server: &Server, stored: &[Stored]) {
    let api = &server.api();
    let file = &stored[0];
    eventually_async("reads are served", Duration::from_secs(60), || async move {
        let answer = api.try_get(&file.path).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_refuses_writes_and_serves_again_when_there_is_room() {
    let _turn = heavy().await;
    let disk = SmallDisk::new(3 << 30, RESERVE);
    let args = vec!["--free-space-reserve".to_owned(), disk.reserve().to_string()];
    let start = Start { dir: Some(disk.path().join("data")), args, port_only: true };
    let mut server = Server::start_with(start);
    server.wait_ready();
    let seed = seed();
    let mut stored = Vec::new();

    // Half a load without trouble, so that logs and volumes have been made.
    for n in 0..20 {
        let (path, pattern) = (format!("full/before/{n}"), Pattern::new(seed ^ n, 100_000 * n));
        server.api().put(&path, pattern.bytes()).await.ok();
        stored.push(Stored { path, pattern });
    }
    disk.leave(ROOM);
    println!("{} bytes free with the ballast", disk.free());
    fill(&server.api(), &mut stored, seed.wrapping_add(1_000), &[5 * MIB, 100_000, 9 * MIB, 3_000], 2_000)
        .await;
    println!("{} files until it was full; {} bytes free", stored.len(), disk.free());
    assert!(stored.len() > 25, "it refused long before the reserve");

    // Small contents still fit into what was zeroed ahead; below the reserve nothing is taken, whoever took the space.
    disk.press(50);
    let api = &server.api();
    eventually_async("every write is refused below the reserve", NOTICED_WITHIN, || async move {
        match api.put("full/tiny", "x").await {
            answer if answer.status == 507 => Ok(()),
            answer => Err(format!("{}: {}", answer.status, answer.text())),
        }
    })
    .await;
    println!("{} bytes free, all writes are refused", disk.free());
    api.delete("full/tiny").await;
    let filled = files_listed(api).await;
    for size in [1, 5_000, 300_000, 7 * MIB] {
        let answer = api.put("full/refused", Pattern::new(seed ^ 77, size).bytes()).await;
        answer.refused(507, "storage_full");
        assert_eq!(api.get("full/refused").await.status, 404);
    }
    all_whole(api, &stored, "while full").await;
    assert_eq!(filled, stored.len(), "the listing shows what was acknowledged");
    for _ in 0..10 {
        let file = stored.remove(0);
        api.delete(&file.path).await.ok();
        assert_eq!(api.get(&file.path).await.status, 404, "a delete works while full");
    }

    // A crash and an orderly end, both on a full disk.
    server.restart();
    serves(&server, &stored).await;
    all_whole(&server.api(), &stored, "after a crash while full").await;
    assert!(server.stop().success(), "an orderly end while full");
    server.restart();
    serves(&server, &stored).await;
    let api = server.api();
    let refused = api.put("full/refused", Pattern::new(seed ^ 78, MIB).bytes()).await;
    refused.refused(507, "storage_full");

    disk.make_room();
    let api = &api;
    let resumed = Pattern::new(seed ^ 79, 9 * MIB);
    eventually_async("writes are taken again when there is room", NOTICED_WITHIN, || async move {
        // Of a body that is refused only so much is read: the refusal may be lost to a reset.
        match api.try_put("full/resumed", resumed.bytes()).await.map_err(|e| e.to_string())? {
            answer if answer.is_success() => Ok(()),
            answer => Err(format!("{}: {}", answer.status, answer.text())),
        }
    })
    .await;
    server.wait_ready();
    stored.push(Stored { path: "full/resumed".to_owned(), pattern: resumed });
    for n in 0..30 {
        let (path, pattern) = (format!("full/after/{n}"), Pattern::new(seed ^ (n << 32), 200_000));
        server.api().put(&path, pattern.bytes()).await.ok();
        stored.push(Stored { path, pattern });
    }
    all_whole(&server.api(), &stored, "after it has room again").await;
    server.restart();
    all_whole(&server.api(), &stored, "after a crash with room").await;
    let log = server.log();
    assert!(!log.contains("No space left"), "log or database met a full disk in spite of the reserve");
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_fills_and_empties_under_many_writers() {
    let _turn = heavy().await;
    let disk = SmallDisk::new(3 << 30, RESERVE);
    let args = vec!["--free-space-reserve".to_owned(), disk.reserve().to_string()];
    let start = Start { dir: Some(disk.path().join("data")), args, port_only: true };
    let mut server = Server::start_with(start);
    server.wait_ready();
    server.api().put("full/first", "x").await.ok();
    let seed = seed();
    disk.leave(ROOM);
    // Many at once must not overshoot the reserve to the last byte.
    let fillers = (0..16u64).map(|n| {
        let api = server.api();
        tokio::spawn(async move {
            let mut stored = Vec::new();
            let sizes: &[u64] = if n % 2 == 0 { &[9 * MIB, 2_000] } else { &[40_000, 500, 3_000] };
            fill(&api, &mut stored, seed.wrapping_add(n << 20), sizes, 100_000).await;
            stored
        })
    });
    let mut stored = Vec::new();
    for filler in fillers.collect::<Vec<_>>() {
        stored.extend(filler.await.unwrap());
    }
    println!("{} files until all writers were refused; {} bytes free", stored.len(), disk.free());
    assert!(disk.free() > 0, "the reserve was eaten up");
    all_whole(&server.api(), &stored, "while full").await;
    server.restart();
    serves(&server, &stored).await;
    all_whole(&server.api(), &stored, "after a crash while full").await;
    assert!(!server.log().contains("No space left"), "something met a full disk in spite of the reserve");
    drop(server);
}
