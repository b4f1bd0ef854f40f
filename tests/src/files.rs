//! Real files in, real files out, by `hay put -r` and `hay get -r`, compared by the test itself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    Pattern, Server, Stopwatch, amount, compare_trees, hay, heavy, regular_files, same_bytes, seed, soaking,
};

/// Where a machine with Debian and Rust has files of all sizes.
fn sources() -> Vec<(&'static str, PathBuf)> {
    let rust = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let rust = rust.map(|o| PathBuf::from(String::from_utf8_lossy(&o.stdout).trim().to_owned()));
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    [
        ("rust", rust),
        ("share", Some(PathBuf::from("/usr/share"))),
        ("lib", Some(PathBuf::from("/usr/lib"))),
        ("registry", cargo.map(|c| c.join("registry/src"))),
    ]
    .into_iter()
    .filter_map(|(name, path)| path.filter(|p| p.is_dir()).map(|p| (name, p)))
    .collect()
}

/// Copies about `count` files with at most `bytes` of the sources into `to`: every n-th of each, so that all kinds are
/// there, and the largest ones that fit.
pub(crate) fn sample(to: &Path, count: usize, bytes: u64) {
    let sources = sources();
    let (share, room) = (count / sources.len(), bytes / sources.len() as u64);
    for (name, source) in sources {
        let mut files = regular_files(&source);
        files.sort_by_key(|f| std::cmp::Reverse(f.bytes));
        let large = files.iter().position(|f| f.bytes <= room / 2).unwrap_or(files.len());
        let step = (files.len().saturating_sub(large) / share.max(1)).max(1);
        let mut left = room;
        for file in files[large..].iter().step_by(step) {
            if file.bytes > left {
                continue;
            }
            left -= file.bytes;
            let target = to.join(name).join(&file.relative);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(source.join(&file.relative), &target).unwrap();
        }
    }
}

/// Puts `source` under `name`, gets it back and compares.
fn round_trip(server: &Server, source: &Path, name: &str, back: &Path) -> (usize, u64) {
    let credentials = server.credentials();
    let env = [("HAY_CREDENTIALS", credentials.to_str().unwrap())];
    let files = regular_files(source);
    let bytes: u64 = files.iter().map(|f| f.bytes).sum();
    let remote = format!("/{name}");
    let watch = Stopwatch::start();
    hay(&["put", "-r", source.to_str().unwrap(), &remote], &env).ok();
    let put = watch.seconds();
    let target = back.join(name);
    let watch = Stopwatch::start();
    hay(&["get", "-r", &remote, target.to_str().unwrap()], &env).ok();
    let get = watch.seconds();
    println!("{name}: {} files, {bytes} bytes: put in {put:.1} s, got back in {get:.1} s", files.len());
    let differences = compare_trees(source, &target);
    assert!(
        differences.is_empty(),
        "{name}: {} differ: {:?}",
        differences.len(),
        &differences[..differences.len().min(10)]
    );
    std::fs::remove_dir_all(target).unwrap();
    (files.len(), bytes)
}

#[tokio::test]
async fn files_of_a_real_system_come_back_byte_for_byte() {
    let _turn = heavy().await;
    let holder = tempfile::Builder::new().prefix("hay-test-files-").tempdir().unwrap();
    let mut server = Server::start();
    let wanted = amount("HAY_FILES", 3_000, 20_000) as usize;
    let mut files = 0;
    if soaking() {
        for (name, source) in sources() {
            files += round_trip(&server, &source, name, holder.path()).0;
        }
    } else {
        let corpus = holder.path().join("corpus");
        sample(&corpus, wanted + wanted / 3, 600 << 20);
        make_odd_ones(&corpus);
        files += round_trip(&server, &corpus, "corpus", &holder.path().join("back")).0;
        // And once more after a restart: nothing lived in memory only.
        server.restart();
        let credentials = server.credentials();
        let env = [("HAY_CREDENTIALS", credentials.to_str().unwrap())];
        let again = holder.path().join("again");
        hay(&["get", "-r", "/corpus", again.to_str().unwrap()], &env).ok();
        assert!(compare_trees(&corpus, &again).is_empty(), "after a restart");
        assert!(again.join("odd/empty-directory").is_dir(), "empty directories are kept");
        assert!(!again.join("odd/link").exists(), "symlinks are skipped");
        // The same by the command's own comparison.
        hay(&["diff", "-r", corpus.to_str().unwrap(), "/corpus"], &env).ok();
    }
    println!("{files} files in all");
    assert!(
        files >= wanted.min(if soaking() { wanted } else { 1_500 }),
        "too few files on this machine: {files}"
    );
}

pub(crate) fn make_odd_ones(corpus: &Path) {
    let odd = corpus.join("odd");
    std::fs::create_dir_all(odd.join("empty-directory/deeper")).unwrap();
    for name in ["ünï", "with space", "new\nline", "100%25", "a?b#c&d", "-dash", "...", "e\u{301}"] {
        std::fs::write(odd.join(name), name).unwrap();
    }
    std::fs::write(odd.join("nothing"), "").unwrap();
    std::os::unix::fs::symlink("nothing", odd.join("link")).unwrap();
    let mut deep = odd.join("deep");
    for _ in 0..40 {
        deep = deep.join("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "deep").unwrap();
}

/// A file with holes and bytes between them: zeros make the same chunk again and again.
pub(crate) fn make_large(path: &Path, bytes: u64, seed: u64) {
    let file = File::create(path).unwrap();
    file.set_len(bytes).unwrap();
    let mut offset = 0;
    while offset + (12 << 20) < bytes {
        file.write_all_at(&Pattern::new(seed + offset, 11 << 20).bytes(), offset).unwrap();
        offset += 61 << 20;
    }
    file.write_all_at(b"the last bytes", bytes - 14).unwrap();
}

#[tokio::test]
async fn files_one_large_file_comes_back_byte_for_byte() {
    let _turn = heavy().await;
    let holder = tempfile::Builder::new().prefix("hay-test-files-").tempdir().unwrap();
    let server = Server::start();
    let credentials = server.credentials();
    let env = [("HAY_CREDENTIALS", credentials.to_str().unwrap())];
    // The whole has more than 2 GiB; the part in `make test` has more chunks than one page of a manifest.
    let bytes = amount("HAY_LARGE_BYTES", (700 << 20) + 12_345, (2 << 30) + (100 << 20) + 12_345);
    let (source, back) = (holder.path().join("large"), holder.path().join("back"));
    make_large(&source, bytes, seed());
    let watch = Stopwatch::start();
    hay(&["put", source.to_str().unwrap(), "/large"], &env).ok();
    let put = watch.seconds();
    let watch = Stopwatch::start();
    hay(&["get", "/large", back.to_str().unwrap()], &env).ok();
    println!("{bytes} bytes: put in {put:.1} s, got back in {:.1} s", watch.seconds());
    assert!(same_bytes(&source, &back), "the large file came back with other bytes");
    let range = server.api().get_with("large", &[("range", "bytes=-14")]).await;
    assert_eq!((range.status, range.body.as_ref()), (206, b"the last bytes".as_slice()));
}
