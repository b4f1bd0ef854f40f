//! The main job through a cluster: real files in and out by `hay`, while every process is restarted in its turn.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::files::{make_large, make_odd_ones, sample};
use crate::harness::{
    Cluster, Shape, Stopwatch, amount, compare_trees, hay, heavy, regular_files, same_bytes, seed,
};

type Environment = [(&'static str, String); 2];

/// The files in and out again, under a name of their own.
fn cycle(holder: &Path, number: usize, environment: &Environment) {
    let env: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let place = |name: &str| holder.join(name).to_str().unwrap().to_owned();
    let (corpus, large) = (place("corpus"), place("large"));
    let (back, large_back) = (place(&format!("back-{number}")), place(&format!("large-back-{number}")));
    let watch = Stopwatch::start();
    hay(&["put", "-r", &corpus, &format!("/{number}/corpus")], &env).ok();
    hay(&["put", &large, &format!("/{number}/large")], &env).ok();
    let put = watch.seconds();
    let watch = Stopwatch::start();
    hay(&["get", "-r", &format!("/{number}/corpus"), &back], &env).ok();
    hay(&["get", &format!("/{number}/large"), &large_back], &env).ok();
    println!("cycle {number}: in in {put:.1} s, out in {:.1} s", watch.seconds());
    let differences = compare_trees(Path::new(&corpus), Path::new(&back));
    assert!(differences.is_empty(), "{} differ: {:?}", differences.len(), differences.first());
    assert!(same_bytes(Path::new(&large), Path::new(&large_back)), "the large file has other bytes");
    std::fs::remove_dir_all(back).unwrap();
    std::fs::remove_file(large_back).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_real_files_come_back_while_every_process_is_restarted() {
    let _turn = heavy().await;
    let holder = tempfile::Builder::new().prefix("hay-test-files-").tempdir().unwrap();
    let files = amount("HAY_FILES", 2_000, 20_000) as usize;
    let bytes = amount("HAY_LARGE_BYTES", (200 << 20) + 12_345, (2 << 30) + (100 << 20) + 12_345);
    sample(&holder.path().join("corpus"), files + files / 3, amount("HAY_CORPUS_BYTES", 200 << 20, 2 << 30));
    make_odd_ones(&holder.path().join("corpus"));
    make_large(&holder.path().join("large"), bytes, seed());
    let corpus = regular_files(&holder.path().join("corpus"));
    println!(
        "{} files with {} bytes, and one of {bytes}",
        corpus.len(),
        corpus.iter().map(|f| f.bytes).sum::<u64>()
    );

    let mut cluster = Cluster::start(Shape::USUAL).await;
    let restarted = Arc::new(AtomicBool::new(false));
    let cycles = std::thread::spawn({
        let (holder, environment, restarted) =
            (holder.path().to_owned(), cluster.environment(), restarted.clone());
        move || {
            let mut number = 0;
            // At least one whole cycle, and one that was under way when the last process was restarted.
            while number == 0 || !restarted.load(Ordering::SeqCst) {
                number += 1;
                cycle(&holder, number, &environment);
            }
            number
        }
    });
    for name in cluster.names("") {
        let watch = Stopwatch::start();
        let status = cluster.process(&name).stop();
        assert!(status.success(), "{name} ended with {status}");
        cluster.start_one(&name);
        cluster.wait_up(&name).await;
        cluster.wait_ready().await;
        println!("{name}: down and up in {:.1} s", watch.seconds());
        // So that each falls on another part of the load.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!cycles.is_finished(), "the load ended before the restarts");
    }
    restarted.store(true, Ordering::SeqCst);
    let done = tokio::task::spawn_blocking(move || cycles.join()).await.unwrap();
    println!("{} cycles, no failed request", done.expect("a cycle failed"));
}
