//! Rules of the Rust sources.

use std::path::Path;

use super::{files, is_test_file, none, read, rust_files, without_tests};

const LINES_MAX: usize = 600;

#[test]
fn rules_no_file_has_more_than_600_lines_without_its_tests() {
    let lines = |path: &Path, text: &str| match is_test_file(path) {
        // Tests may be long, but not without an end.
        true => text.lines().count() / 2,
        false => without_tests(path, text).lines().count(),
    };
    let long = rust_files().into_iter().filter_map(|(path, text)| {
        let lines = lines(&path, &text);
        (lines > LINES_MAX).then(|| format!("{}: {lines}", path.display()))
    });
    none(long.collect(), "files that are too long");
}

#[test]
fn rules_every_crate_keeps_the_lints_of_the_workspace() {
    let manifests = files().into_iter().filter(|p| p.iter().count() == 2 && p.ends_with("Cargo.toml"));
    let without = manifests.filter(|p| !read(p).contains("[lints]\nworkspace = true"));
    none(without.map(|p| p.display().to_string()).collect(), "crates without `[lints] workspace = true`");
}

#[test]
fn rules_an_exception_from_a_lint_has_a_reason() {
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        let text = without_tests(&path, &text);
        for (at, _) in text.match_indices("#[allow(").chain(text.match_indices("#![allow(")) {
            // An `expect` tells when it is no longer needed; an `allow` stays for ever.
            let inside = &text[at..text[at..].find(']').map_or(text.len(), |end| at + end)];
            if !inside.contains("reason") {
                found.push(format!("{}: {inside}]", path.display()));
            }
        }
        for (at, _) in text.match_indices("#[expect(") {
            let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
            if !text[at..end].contains("reason") {
                found.push(format!("{}: {}", path.display(), &text[at..end]));
            }
        }
    }
    none(found, "exceptions without a reason");
}

#[test]
fn rules_unsafe_stands_nowhere_without_leave() {
    // A file that needs it says so with `#[expect(unsafe_code, reason = …)]`, and is named here.
    const ALLOWED: &[&str] = &[];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        if ALLOWED.iter().any(|allowed| path == Path::new(allowed)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let keyword =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|k| code.contains(k));
            // This file's own words.
            if keyword && !path.ends_with("rules/sources.rs") {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    none(found, "unsafe code");
}

#[test]
fn rules_wire_types_stop_at_grpc_modules() {
    const SERVICES: &[&str] =
        &["master", "volume-server", "filer", "gateway", "consensus", "needle", "common"];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        let of_service = path.iter().next().is_some_and(|first| SERVICES.iter().any(|s| first == *s));
        let grpc = path.iter().any(|part| part.to_string_lossy().starts_with("grpc"));
        if !of_service || grpc {
            continue;
        }
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.contains("hay_proto::v1") || code.contains(" v1::") || code.contains("{v1") {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none(found, "wire types outside of grpc modules");
}

#[test]
fn rules_limits_stand_in_one_file_with_their_units() {
    let path = Path::new("common/src/limits.rs");
    let text = read(path);
    let mut before = "";
    let mut bare = Vec::new();
    for line in text.lines() {
        if line.starts_with("pub const ") && !before.starts_with("///") {
            bare.push(line.to_owned());
        }
        before = line;
    }
    none(bare, "limits without a word on what they bound");

    let mut elsewhere = Vec::new();
    for (path, text) in rust_files() {
        if path == Path::new("common/src/limits.rs") || path.starts_with("tests") {
            continue;
        }
        for line in without_tests(&path, &text).lines() {
            let Some((_, rest)) = line.split_once("const ") else { continue };
            let name = rest.split(':').next().unwrap_or("").trim();
            let duration = rest.contains("Duration");
            let limit = duration && ["_TIMEOUT", "_TTL", "_GRACE"].iter().any(|end| name.ends_with(end));
            if limit && line.trim_start().starts_with("pub ") {
                elsewhere.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    none(elsewhere, "limits outside of common/src/limits.rs");
}

#[test]
fn rules_time_and_randomness_are_passed_in() {
    // Clippy denies the calls; this finds the exceptions from it.
    const ENTRIES: &[&str] = &["common/src/clock.rs", "common/src/random.rs"];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        let code = without_tests(&path, &text);
        let ambient = ["Instant::now()", "SystemTime::now()", "rand::rng()", "rand::random("];
        let allowed = ENTRIES.iter().any(|entry| path == Path::new(entry)) || path.starts_with("tests");
        if !allowed && ambient.iter().any(|word| code.contains(word)) {
            found.push(path.display().to_string());
        }
    }
    none(found, "ambient time or randomness");
}
