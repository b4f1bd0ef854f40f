//! The rules that the source tree keeps: each is a test, so that none is forgotten.

mod arrows;
mod commands;
mod sources;
mod text;

use std::path::{Path, PathBuf};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

/// All files of the tree but what is built, fetched or stored, with paths relative to the root.
fn files() -> Vec<PathBuf> {
    const LEFT_OUT: &[&str] = &["target", ".git", ".cache", "data"];
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(&root).unwrap().to_owned();
            if LEFT_OUT.iter().any(|name| relative == Path::new(name)) {
                continue;
            }
            if path.is_dir() { open.push(path) } else { found.push(relative) }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the tree has more files than {}", found.len());
    found
}

fn read(relative: &Path) -> String {
    std::fs::read_to_string(root().join(relative)).unwrap_or_else(|e| panic!("{}: {e}", relative.display()))
}

/// Every Rust file: its path and its text.
fn rust_files() -> Vec<(PathBuf, String)> {
    let rust = files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| (path.clone(), read(&path))).collect()
}

/// Whether a file holds nothing but tests.
fn is_test_file(path: &Path) -> bool {
    let test_module = |part: &std::ffi::OsStr| part == "tests" || part == "testing" || part == "tests.rs";
    path.iter().any(test_module) || path.to_string_lossy().ends_with("_tests.rs")
}

/// What stands outside of `#[cfg(test)] mod … { … }`, and is no test file.
fn without_tests(path: &Path, text: &str) -> String {
    if is_test_file(path) {
        return String::new();
    }
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let test_module = line.trim_start().starts_with("#[cfg(test)]")
            && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod ") && next.ends_with('{'));
        if !test_module {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        // rustfmt puts the closing brace under the attribute.
        let closing = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        for skipped in lines.by_ref() {
            if skipped == closing {
                break;
            }
        }
    }
    kept
}

/// Fails with all that was found, one a line.
#[track_caller]
fn none(found: Vec<String>, what: &str) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

mod tests {
    use super::*;

    #[test]
    fn rules_take_test_modules_for_what_they_are() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        assert_eq!(without_tests(Path::new("x/src/lib.rs"), text), "fn a() {}\nfn c() {}\n");
        assert_eq!(without_tests(Path::new("x/src/tests.rs"), text), "");
    }
}
