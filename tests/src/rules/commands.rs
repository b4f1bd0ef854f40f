//! The documents name commands, files and routes that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{files, none, read, root};
use crate::harness::hay;

fn documents() -> Vec<PathBuf> {
    files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "md")).collect()
}

/// The words that follow `command` wherever it begins a line of code or a span of it.
fn after(text: &str, command: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let spans = text.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n'));
    let lines = text.lines().filter_map(|l| l.strip_prefix("    "));
    for code in spans.chain(lines) {
        if let Some(rest) = code.trim().strip_prefix(command).and_then(|rest| rest.strip_prefix(' ')) {
            found.insert(rest.split_whitespace().next().unwrap_or("").to_owned());
        }
    }
    found
}

#[test]
fn rules_make_targets_that_are_named_exist() {
    let makefile = read(Path::new("Makefile"));
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(name, _)| name)
        .filter(|n| !n.contains(' '))
        .collect();
    for needed in ["run", "test"] {
        assert!(targets.contains(needed), "no `make {needed}`");
        assert!(after(&read(Path::new("README.md")), "make").contains(needed), "README.md does not name it");
    }
    let mut missing = Vec::new();
    for document in documents() {
        for word in after(&read(&document), "make") {
            let target = word.trim_end_matches([',', '.', ';', ':']);
            let is_name = !target.is_empty() && target.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if is_name && !targets.contains(target) {
                missing.push(format!("{}: make {target}", document.display()));
            }
        }
    }
    none(missing, "targets that do not exist");
}

#[test]
fn rules_hay_commands_of_the_readme_exist() {
    let text = read(Path::new("README.md"));
    let named = after(&text, "hay");
    assert!(named.len() > 5, "{named:?}");
    for command in named {
        // What is no name of a command says something else.
        if command.starts_with(|c: char| c.is_ascii_lowercase()) {
            hay(&["help", &command], &[]).ok();
        }
    }
}

#[test]
fn rules_links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        let base = root().join(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            let outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !outside && !base.join(target).exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    none(broken, "links that lead nowhere");
}

#[test]
fn rules_tests_that_are_named_exist() {
    let text = read(Path::new("docs/testing.md"));
    let sources: String = super::sources().into_iter().map(|source| source.text).collect();
    let mut missing = Vec::new();
    let mut named = 0;
    for word in text.split("-p hay-tests").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
        let name = word.trim_matches(['`', '|', ',', '.']);
        if name.is_empty() || name.starts_with('-') {
            continue;
        }
        named += 1;
        if !sources.contains(&format!("fn {name}")) {
            missing.push(name.to_owned());
        }
    }
    assert!(named > 5, "docs/testing.md says by which test each point is shown");
    none(missing, "tests that docs/testing.md names and nobody wrote");
}
