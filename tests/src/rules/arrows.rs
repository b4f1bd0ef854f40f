//! Which crate may depend on which (docs/ARCHITECTURE.md).

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{none, root};

/// What each crate may name, in its code and in its tests. `hay-cli` and the tests of the whole may name all.
const ARROWS: &[(&str, &[&str])] = &[
    ("hay-common", &[]),
    ("hay-needle", &["hay-common"]),
    ("hay-proto", &["hay-common"]),
    ("hay-consensus", &["hay-common", "hay-proto"]),
    ("hay-client", &["hay-common", "hay-proto"]),
    ("hay-master", &["hay-common", "hay-proto", "hay-consensus"]),
    ("hay-volume-server", &["hay-common", "hay-needle", "hay-proto", "hay-client"]),
    ("hay-filer", &["hay-common", "hay-proto", "hay-client", "hay-consensus"]),
    ("hay-gateway", &["hay-common", "hay-proto", "hay-client"]),
];
const MAY_ALL: &[&str] = &["hay-cli", "hay-simulation", "hay-tests"];
const SERVICES: &[&str] = &["hay-master", "hay-volume-server", "hay-filer", "hay-gateway"];

/// Each crate of the workspace with those of the workspace that it names, in its code or its tests, and how.
///
/// Cargo is asked, and not by the crate for that: it wants another `serde_json`, and everything would be built twice.
fn dependencies() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"]);
    let told = command.current_dir(root()).output().expect("cargo metadata");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout).expect("JSON of cargo");
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let all = |value: &Value| value.as_array().cloned().expect("a list");
    let named = |package: Value| {
        let theirs = all(&package["dependencies"]).into_iter().map(|d| (text(&d["name"]), text(&d["kind"])));
        (text(&package["name"]), theirs.filter(|(name, _)| name.starts_with("hay-")).collect())
    };
    all(&metadata["packages"]).into_iter().map(named).collect()
}

#[test]
fn rules_arrows_between_crates_hold() {
    let found = dependencies();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).chain(MAY_ALL.iter().copied()).collect();
    let there: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(there, known, "every crate has its line in the table");
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        for (other, kind) in &found[*name] {
            if !allowed.contains(&other.as_str()) {
                wrong.push(format!("{name} → {other} ({kind})"));
            }
        }
    }
    none(wrong, "dependencies against the arrows");
}

#[test]
fn rules_services_never_name_one_another() {
    let found = dependencies();
    for service in SERVICES {
        for other in found[*service].keys() {
            assert!(!SERVICES.contains(&other.as_str()), "{service} → {other}");
        }
    }
}

#[test]
fn rules_nobody_needs_the_simulation() {
    let mut wrong = Vec::new();
    for (name, others) in dependencies() {
        if others.contains_key("hay-simulation") {
            wrong.push(name.clone());
        }
        // What it needs must not become a part of anything that runs.
        if name == "hay-simulation" {
            let built = others.iter().filter(|(_, kind)| *kind != "dev");
            wrong.extend(built.map(|(other, kind)| format!("hay-simulation → {other} ({kind})")));
        }
    }
    none(wrong, "the simulation is for tests alone");
}

#[test]
fn rules_the_tests_do_not_link_the_services() {
    // They drive the real binary: linking RocksDB a second time would bring nothing.
    let linked: Vec<String> = dependencies()["hay-tests"].keys().cloned().collect();
    assert_eq!(linked, ["hay-client", "hay-common", "hay-proto"]);
}
