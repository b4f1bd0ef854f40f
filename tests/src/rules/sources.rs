//! Rules of the Rust sources.

use std::path::Path;

use super::{Source, files, none, read, sources};

const LINES_MAX: usize = 600;

#[test]
fn rules_no_file_has_more_than_600_lines_without_its_tests() {
    let long = sources().into_iter().filter_map(|source| {
        // Tests may be long, but not without an end.
        let lines =
            if source.tests_only { source.text.lines().count() / 2 } else { source.code().lines().count() };
        (lines > LINES_MAX).then(|| format!("{}: {lines}", source.path.display()))
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
    for source in sources() {
        let (path, text) = (&source.path, source.code());
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
    const ALLOWED: &[&str] = &["cli/src/allocator.rs", "simulation/src/entropy.rs"];
    let mut found = Vec::new();
    for Source { path, text, .. } in sources() {
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
fn rules_work_that_blocks_asks_the_disk_where_it_is_done() {
    // What runs in the simulation must have no thread of its own there: `common::work` decides it.
    const SIMULATED: &[&str] = &["consensus", "master", "volume-server", "client"];
    // The appender asks the disk itself. Snapshots are files of the machine's own and are not simulated.
    const ALLOWED: &[&str] = &[
        "volume-server/src/store/appender.rs",
        "consensus/src/transfer/receive.rs",
        "consensus/src/transfer/send.rs",
    ];
    let mut found = Vec::new();
    for source in sources() {
        let path = &source.path;
        let is_simulated = SIMULATED.iter().any(|name| source.is_below(name));
        if !is_simulated || ALLOWED.iter().any(|allowed| path == Path::new(allowed)) {
            continue;
        }
        for (number, line) in source.code().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if ["spawn_blocking", "thread::Builder", "thread::spawn", "thread::scope"]
                .iter()
                .any(|w| code.contains(w))
            {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none(found, "threads that a simulation can't do without; see hay_common::work");
}

#[test]
fn rules_wire_types_stop_at_grpc_modules() {
    const SERVICES: &[&str] =
        &["master", "volume-server", "filer", "gateway", "consensus", "needle", "common"];
    let mut found = Vec::new();
    for source in sources() {
        let path = &source.path;
        let of_service = path.iter().next().is_some_and(|first| SERVICES.iter().any(|s| first == *s));
        let grpc = path.iter().any(|part| part.to_string_lossy().starts_with("grpc"));
        if !of_service || grpc {
            continue;
        }
        for (number, line) in source.code().lines().enumerate() {
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
    for source in sources() {
        let path = &source.path;
        if path == Path::new("common/src/limits.rs") || source.is_below("tests") {
            continue;
        }
        for line in source.code().lines() {
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
    for source in sources() {
        let (path, code) = (&source.path, source.code());
        let ambient = ["Instant::now()", "SystemTime::now()", "rand::rng()", "rand::random("];
        let allowed = ENTRIES.iter().any(|entry| path == Path::new(entry)) || source.is_below("tests");
        if !allowed && ambient.iter().any(|word| code.contains(word)) {
            found.push(path.display().to_string());
        }
    }
    none(found, "ambient time or randomness");
}
