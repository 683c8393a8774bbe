//! The arrows between crates (`docs/ARCHITECTURE.md`), as data, and the check that nothing else
//! points anywhere. Dependencies of tests are free.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use toml::{Table, Value};

use crate::finding::Finding;

const PREFIX: &str = "bmq-";

/// What a crate may depend on.
#[derive(Clone, Copy)]
enum Allowed {
    Only(&'static [&'static str]),
    EverythingBut(&'static [&'static str]),
}

use Allowed::{EverythingBut, Only};

const ARROWS: &[(&str, Allowed)] = &[
    ("common", Only(&[])),
    ("proto", Only(&["common"])),
    ("storage", Only(&["proto", "common"])),
    ("partition", Only(&["storage", "proto", "common"])),
    ("meta", Only(&["proto", "common"])),
    ("broker", Only(&["partition", "storage", "proto", "common"])),
    ("coordinator", Only(&["partition", "storage", "proto", "common"])),
    ("proxy", Only(&["storage", "kafka", "proto", "common"])),
    ("kafka", Only(&["proto", "common"])),
    ("controller", Only(&["proto", "common"])),
    ("client", Only(&["proto", "common"])),
    ("cli", EverythingBut(&["integration-tests", "xtask"])),
    ("integration-tests", EverythingBut(&["xtask"])),
    ("bench", EverythingBut(&["cli", "integration-tests", "xtask"])),
    ("xtask", Only(&[])),
];

const SERVICES: &[&str] = &["meta", "broker", "coordinator", "proxy", "controller"];

/// Checks every member of the workspace.
pub fn run(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let workspace = read_toml(&root.join("Cargo.toml"))?;
    let members = workspace["workspace"]["members"].as_array().context("Cargo.toml has no workspace.members")?;
    let mut findings = Vec::new();
    for member in members.iter().filter_map(Value::as_str) {
        let manifest = Path::new(member).join("Cargo.toml");
        let parsed = read_toml(&root.join(&manifest))?;
        let messages = check_crate(member, &parsed);
        findings.extend(messages.into_iter().map(|message| Finding::new(&manifest, 0, message)));
    }
    Ok(findings)
}

fn read_toml(path: &Path) -> anyhow::Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

fn check_crate(folder: &str, manifest: &Table) -> Vec<String> {
    let mut messages = Vec::new();
    let name = manifest.get("package").and_then(|package| package.get("name"));
    let expected = format!("{PREFIX}{folder}");
    if name.and_then(Value::as_str) != Some(&expected) {
        messages.push(format!("the crate in {folder}/ is to be named {expected}"));
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == folder) else {
        messages
            .push(format!("`{folder}` has no arrows yet: add it to docs/ARCHITECTURE.md and xtask/src/check_deps.rs"));
        return messages;
    };
    let dependencies = project_dependencies(manifest);
    let forbidden = dependencies.iter().filter(|dependency| !allows(*allowed, dependency));
    messages.extend(forbidden.map(|dependency| objection(folder, dependency, *allowed)));
    messages
}

fn allows(allowed: Allowed, dependency: &str) -> bool {
    match allowed {
        Only(names) => names.contains(&dependency),
        EverythingBut(names) => !names.contains(&dependency),
    }
}

fn objection(folder: &str, dependency: &str, allowed: Allowed) -> String {
    let rule = if SERVICES.contains(&folder) && SERVICES.contains(&dependency) {
        "services never depend on services, they meet in proto's traits".to_owned()
    } else {
        match allowed {
            Only([]) => "it may depend on no other crate of the project".to_owned(),
            Only(names) => format!("it may depend on {}", names.join(", ")),
            EverythingBut(names) => format!("it may depend on everything but {}", names.join(", ")),
        }
    };
    format!("`{folder}` must not depend on `{dependency}`: {rule} (docs/ARCHITECTURE.md)")
}

/// The folders of the project's crates that a manifest depends on, outside of tests, sorted.
fn project_dependencies(manifest: &Table) -> Vec<String> {
    let per_target = manifest.get("target").and_then(Value::as_table);
    let targets = per_target.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    let mut found = BTreeMap::new();
    for table in targets.chain([manifest]) {
        for section in ["dependencies", "build-dependencies"] {
            let entries = table.get(section).and_then(Value::as_table);
            for (key, value) in entries.into_iter().flatten() {
                let package = value.get("package").and_then(Value::as_str).unwrap_or(key);
                if let Some(folder) = package.strip_prefix(PREFIX) {
                    found.insert(folder.to_owned(), ());
                }
            }
        }
    }
    found.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folder: &str, sections: &str, expect: &[&str]) {
        let manifest = format!("package.name = 'bmq-{folder}'\n{sections}");
        let messages = check_crate(folder, &manifest.parse().unwrap());
        assert_eq!(messages.len(), expect.len(), "{messages:?}");
        for (message, expect) in messages.iter().zip(expect) {
            assert!(message.contains(expect), "{message}");
        }
    }

    #[test]
    fn allowed_arrows_pass() {
        check("common", "[dependencies]\nserde = '1'", &[]);
        check("broker", "[dependencies]\nbmq-partition.workspace = true\nbmq-proto.workspace = true", &[]);
        check("cli", "[dependencies]\nbmq-bench.workspace = true\nbmq-broker.workspace = true", &[]);
        check("proto", "[dev-dependencies]\nbmq-storage.workspace = true", &[]);
    }

    #[test]
    fn other_arrows_are_objected_to() {
        check("common", "[dependencies]\nbmq-proto.workspace = true", &["it may depend on no other crate"]);
        check(
            "proto",
            "[build-dependencies]\nbmq-meta = { path = '../meta' }",
            &["`proto` must not depend on `meta`: it may depend on common"],
        );
        check("broker", "[dependencies]\nbmq-meta.workspace = true", &["services never depend on services"]);
        check("client", "[dependencies]\nq = { package = 'bmq-storage', path = '../storage' }", &["`storage`"]);
        check("client", "[target.'cfg(unix)'.dependencies]\nbmq-storage.workspace = true", &["`storage`"]);
        check("cli", "[dependencies]\nbmq-integration-tests.workspace = true", &["everything but integration-tests"]);
    }

    #[test]
    fn crates_are_named_and_known() {
        check("novel", "", &["`novel` has no arrows yet"]);
        let messages = check_crate("proto", &"package.name = 'proto'".parse().unwrap());
        assert_eq!(messages, ["the crate in proto/ is to be named bmq-proto"]);
    }

    /// The table itself: what it allows has no cycle, so that no order of edits could make one.
    #[test]
    fn arrows_point_downwards() {
        let only = |name: &str| ARROWS.iter().find(|(n, _)| *n == name).map(|(_, allowed)| *allowed);
        for (name, allowed) in ARROWS {
            let Only(targets) = allowed else { continue };
            for target in *targets {
                let back = only(target).expect("arrows point at crates in the table");
                assert!(!allows(back, name), "{name} and {target} point at each other");
            }
        }
    }
}
