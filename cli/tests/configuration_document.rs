//! `docs/CONFIGURATION.md` names every setting of every service, and no other.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the error")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use toml::{Table, Value};

const DOCUMENT: &str = include_str!("../../docs/CONFIGURATION.md");

/// A table's header and rows.
type Rows<'a> = Vec<Vec<&'a str>>;

fn tables() -> Vec<Rows<'static>> {
    let mut tables: Vec<Rows> = Vec::new();
    let mut is_within = false;
    for line in DOCUMENT.lines() {
        let row = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        let Some(row) = row else {
            is_within = false;
            continue;
        };
        if !is_within {
            tables.push(Vec::new());
        }
        is_within = true;
        if !row.starts_with("---") {
            tables.last_mut().unwrap().push(row.split('|').map(str::trim).collect());
        }
    }
    tables
}

/// What stands in backticks.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The services that have each section.
fn services_by_section() -> BTreeMap<&'static str, Vec<&'static str>> {
    let tables = tables();
    let table = tables.iter().find(|table| table[0][0] == "section").unwrap();
    let mut services = BTreeMap::new();
    for row in &table[1..] {
        let having: Vec<_> = table[0].iter().zip(row).skip(1).filter(|(_, cell)| **cell == "●").collect();
        for section in names(row[0]) {
            services.insert(section, having.iter().map(|(service, _)| **service).collect());
        }
    }
    services
}

fn documented(service: &str) -> BTreeSet<String> {
    let services = services_by_section();
    let mut keys = BTreeSet::new();
    for table in tables().iter().filter(|table| table[0][0].starts_with("key")) {
        let sections: Vec<_> = names(table[0][0]).map(|section| format!("{section}.")).collect();
        let sections = if sections.is_empty() { vec![String::new()] } else { sections };
        let keys_in = |section: &String| {
            let section = section.clone();
            table[1..].iter().flat_map(|row| names(row[0])).map(move |key| format!("{section}{key}"))
        };
        for key in sections.iter().flat_map(keys_in) {
            let having = services.get(key.split('.').next().unwrap()).unwrap_or_else(|| panic!("whose is {key}?"));
            if having.contains(&service) {
                assert!(keys.insert(key.clone()), "{key} stands there twice");
            }
        }
    }
    keys
}

fn collect_keys(table: &Table, parent: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            Value::Table(section) => collect_keys(section, &format!("{parent}{key}."), keys),
            _ => drop(keys.insert(format!("{parent}{key}"))),
        }
    }
}

fn printed(service: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmq"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BMQ_")) {
        command.env_remove(name);
    }
    command.args([service, "--print-config"]);
    for section in ["grpc", "kafka"] {
        if services_by_section()[section].contains(&service) {
            // Without a value it is not printed.
            command.args(["--set", &format!("{section}.advertised=127.0.0.1:1")]);
        }
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{service}: {}", String::from_utf8_lossy(&output.stderr));
    let mut keys = BTreeSet::new();
    collect_keys(&String::from_utf8(output.stdout).unwrap().parse().unwrap(), "", &mut keys);
    keys
}

#[test]
fn every_setting_is_documented_and_every_documented_one_can_be_set() {
    for service in ["standalone", "meta", "controller", "broker", "coordinator", "proxy"] {
        let (documented, printed) = (documented(service), printed(service));
        let missing: Vec<_> = printed.difference(&documented).collect();
        let gone: Vec<_> = documented.difference(&printed).collect();
        assert!(missing.is_empty() && gone.is_empty(), "{service}: not documented {missing:?}, no setting {gone:?}");
    }
}
