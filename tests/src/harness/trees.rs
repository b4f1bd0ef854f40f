//! Directory trees, compared byte for byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A regular file of a tree.
#[derive(Debug, Clone)]
pub struct TreeFile {
    /// Relative to the root.
    pub relative: PathBuf,
    pub bytes: u64,
}

/// All regular files below `root` in the order of their names; links are neither followed nor listed, directories
/// that may not be read are left out.
pub fn regular_files(root: &Path) -> Vec<TreeFile> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.map_while(Result::ok) {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let Ok(meta) = entry.metadata() else { continue };
                let relative = path.strip_prefix(root).expect("it lies below the root").to_owned();
                found.push(TreeFile { relative, bytes: meta.len() });
            }
        }
    }
    found.sort_by(|a, b| a.relative.cmp(&b.relative));
    found
}

/// Every regular file that is missing, extra or not the same in `right`, each in a few words.
pub fn compare_trees(left: &Path, right: &Path) -> Vec<String> {
    let mut differences = Vec::new();
    let mut others: BTreeMap<PathBuf, u64> =
        regular_files(right).into_iter().map(|f| (f.relative, f.bytes)).collect();
    for file in regular_files(left) {
        let what = match others.remove(&file.relative) {
            None => Some("missing"),
            Some(bytes) if bytes != file.bytes => Some("of another length"),
            Some(_) if !same_bytes(&left.join(&file.relative), &right.join(&file.relative)) => {
                Some("of other bytes")
            }
            Some(_) => None,
        };
        differences.extend(what.map(|what| format!("{}: {what}", file.relative.display())));
    }
    differences.extend(others.into_keys().map(|path| format!("{}: there without a reason", path.display())));
    differences
}

/// Whether two files hold the same bytes.
pub fn same_bytes(left: &Path, right: &Path) -> bool {
    let (mut left, mut right) = (File::open(left).unwrap(), File::open(right).unwrap());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (n, m) = (fill(&mut left, &mut a), fill(&mut right, &mut b));
        if n != m || a[..n] != b[..m] {
            return false;
        }
        if n == 0 {
            return true;
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..]).unwrap() {
            0 => break,
            n => done += n,
        }
    }
    done
}

mod tests {
    use super::*;

    #[test]
    fn trees_differ_where_a_file_does() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            std::fs::create_dir(dir.path().join("d")).unwrap();
            std::fs::write(dir.path().join("d/same"), b"x").unwrap();
        }
        assert!(compare_trees(a.path(), b.path()).is_empty());
        std::fs::write(a.path().join("only"), b"x").unwrap();
        std::fs::write(b.path().join("extra"), b"x").unwrap();
        std::fs::write(a.path().join("long"), b"xy").unwrap();
        std::fs::write(b.path().join("long"), b"x").unwrap();
        std::fs::write(a.path().join("other"), b"x").unwrap();
        std::fs::write(b.path().join("other"), b"y").unwrap();
        assert_eq!(compare_trees(a.path(), b.path()).len(), 4);
    }
}
