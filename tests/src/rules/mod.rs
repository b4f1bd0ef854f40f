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

/// A Rust file.
struct Source {
    path: PathBuf,
    text: String,
    /// It holds nothing but tests and what they need: its module is declared under `#[cfg(test)]`.
    tests_only: bool,
}

impl Source {
    /// What is not for tests.
    fn code(&self) -> String {
        if self.tests_only { String::new() } else { without_tests(&self.text) }
    }

    fn is_below(&self, directory: &str) -> bool {
        self.path.starts_with(directory)
    }
}

/// Every Rust file of the tree.
fn sources() -> Vec<Source> {
    let rust = files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let texts: Vec<(PathBuf, String)> = rust.map(|path| (path.clone(), read(&path))).collect();
    let test_modules: Vec<PathBuf> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let of_tests =
        |path: &Path| test_modules.iter().any(|m| path.starts_with(m) || path == m.with_extension("rs"));
    texts.into_iter().map(|(path, text)| Source { tests_only: of_tests(&path), path, text }).collect()
}

/// The modules in files of their own that `path` declares under `#[cfg(test)]`, as paths without `.rs`.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| path.ends_with(name));
    let base = if is_root {
        path.parent().expect("a file lies somewhere").to_owned()
    } else {
        path.with_extension("")
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        let (_, name) = pair[1].split_once("mod ")?;
        Some(base.join(name.strip_suffix(';')?))
    });
    declared.collect()
}

/// What stands outside of `#[cfg(test)] mod … { … }`.
fn without_tests(text: &str) -> String {
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
        assert_eq!(without_tests(text), "fn a() {}\nfn c() {}\n");
        let text = "mod a;\n#[cfg(test)]\npub(crate) mod model;\n#[cfg(test)]\nmod tests;\n";
        for (file, expected) in [
            ("x/src/y/mod.rs", ["x/src/y/model", "x/src/y/tests"]),
            ("x/src/y.rs", ["x/src/y/model", "x/src/y/tests"]),
        ] {
            assert_eq!(test_modules(Path::new(file), text), expected.map(PathBuf::from));
        }
    }
}
