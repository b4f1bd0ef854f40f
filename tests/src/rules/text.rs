//! Rules of every text file of the tree.

use std::path::PathBuf;

use super::{files, none, root};

/// All files that are text, with their lines.
fn texts() -> Vec<(PathBuf, String)> {
    let readable = |path: PathBuf| {
        let text = String::from_utf8(std::fs::read(root().join(&path)).unwrap()).ok()?;
        Some((path, text))
    };
    files().into_iter().filter_map(readable).collect()
}

/// Lines that hold one of `words`, which are put together here so that this file does not hold them.
fn lines_with(words: &[String], left_out: impl Fn(&PathBuf) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts() {
        if left_out(&path) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn rules_nothing_is_put_off() {
    let words = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X:"),
        ("to", "do!("),
        ("unimple", "mented!("),
        ("#[ig", "nore"),
    ];
    let words: Vec<String> = words.iter().map(|(a, b)| format!("{a}{b}")).collect();
    none(lines_with(&words, |path| path.ends_with("Cargo.lock")), "what is put off");
}

#[test]
fn rules_no_place_of_one_machine_is_named() {
    let words: Vec<String> =
        [("/wo", "rk/"), ("/ro", "ot/"), ("/home", "/")].iter().map(|(a, b)| format!("{a}{b}")).collect();
    none(lines_with(&words, |path| path.ends_with("Cargo.lock")), "paths of one machine");
}

#[test]
fn rules_lines_end_as_they_should() {
    let mut found = Vec::new();
    for (path, text) in texts() {
        if !text.is_empty() && !text.ends_with('\n') {
            found.push(format!("{}: no newline at the end", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                found.push(format!("{}:{}: white space at the end", path.display(), number + 1));
            }
        }
    }
    none(found, "lines");
}
