//! Configuration in layers: defaults → TOML file → `BMQ_…` environment → flags.
//!
//! A layer may only set keys that the configuration has. Which keys it has is found by a round trip:
//! the merged tree is read into the configuration and written out again, and a key that does not
//! come back is unknown. So optional keys and maps work without a schema; a configuration must write
//! every key it reads (no `serde(alias)`, no `skip_serializing_if` on what was set) and should leave
//! `deny_unknown_fields` away, whose message knows less.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

/// `BMQ_LOG__FILTER` sets `log.filter`.
pub const ENVIRONMENT_PREFIX: &str = "BMQ_";
const ENVIRONMENT_NESTING: &str = "__";

/// How alike a known key must be (Jaro-Winkler) to be suggested.
const ALIKE: f64 = 0.8;

/// The configuration cannot be used; none of it may be.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the configuration file {} is not TOML", path.display())]
    Syntax {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("unknown key `{key}` in {origin}{}", suggest(suggestion))]
    UnknownKey { key: String, origin: String, suggestion: Option<String> },
    #[error("{origin} does not fit: {reason}")]
    Value { origin: String, reason: String },
    #[error("the default configuration cannot be written as TOML")]
    Default(#[source] Box<toml::ser::Error>),
}

fn suggest(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |known| format!(", did you mean `{known}`?"))
}

/// Merges the layers, later ones winning key by key.
///
/// `environment` is usually `std::env::vars()`; names without the prefix are passed over.
/// `overrides` are pairs of a dotted key and a value, from the command line. Values of both may be
/// plain text or TOML (`true`, `7`, `["a", "b"]`), whichever the key takes.
pub fn load<T: DeserializeOwned + Serialize + Default>(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let mut layers = Layers::<T>::from_defaults()?;
    if let Some(path) = file {
        layers.merge_file(path)?;
    }
    let mut variables: Vec<_> = environment.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
    // The environment has no order of its own; errors should not depend on luck.
    variables.sort();
    for (name, value) in variables {
        let key = name[ENVIRONMENT_PREFIX.len()..].replace(ENVIRONMENT_NESTING, ".").to_lowercase();
        layers.set(&key, &value, format!("the environment variable {name}"))?;
    }
    for (key, value) in overrides {
        layers.set(key, value, format!("--set {key}"))?;
    }
    Ok(layers.config)
}

/// The configuration in force, as a file that could be loaded again.
pub fn effective_toml<T: Serialize>(config: &T) -> String {
    toml::to_string_pretty(config).expect("`load` wrote the same type as TOML before")
}

/// Invariant: `tree` is what `config` writes.
struct Layers<T> {
    tree: Table,
    config: T,
}

impl<T: DeserializeOwned + Serialize + Default> Layers<T> {
    fn from_defaults() -> Result<Self, ConfigError> {
        let config = T::default();
        let tree = Table::try_from(&config).map_err(|error| ConfigError::Default(Box::new(error)))?;
        Ok(Layers { tree, config })
    }

    fn merge_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let layer: Table =
            text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        self.merge(&layer, &format!("the file {}", path.display()))
    }

    /// Sets one key from text, which is taken as it is if the key takes text, and as TOML otherwise.
    fn set(&mut self, key: &str, text: &str, origin: String) -> Result<(), ConfigError> {
        let as_text = self.merge(&nested(key, Value::String(text.to_owned())), &origin);
        let Err(ConfigError::Value { .. }) = as_text else {
            return as_text;
        };
        match format!("value = {text}").parse::<Table>() {
            Ok(mut parsed) if parsed.len() == 1 => {
                let value = parsed.remove("value").expect("it is what was parsed");
                self.merge(&nested(key, value), &origin)
            }
            _ => as_text,
        }
    }

    fn merge(&mut self, layer: &Table, origin: &str) -> Result<(), ConfigError> {
        let mut merged = self.tree.clone();
        overlay(&mut merged, layer);
        let config: T = merged.try_into().map_err(|error: toml::de::Error| ConfigError::Value {
            origin: origin.to_owned(),
            reason: error.to_string().trim_end().replace('\n', " "),
        })?;
        let tree = Table::try_from(&config)
            .map_err(|error| ConfigError::Value { origin: origin.to_owned(), reason: error.to_string() })?;
        if let Some(key) = first_unknown(layer, &tree, "") {
            return Err(ConfigError::UnknownKey { suggestion: closest(&key, &tree), key, origin: origin.to_owned() });
        }
        *self = Layers { tree, config };
        Ok(())
    }
}

/// A tree with the one leaf at the dotted key.
fn nested(key: &str, value: Value) -> Table {
    match key.split_once('.') {
        Some((section, rest)) => Table::from_iter([(section.to_owned(), Value::Table(nested(rest, value)))]),
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

fn overlay(tree: &mut Table, layer: &Table) {
    for (key, value) in layer {
        match (tree.get_mut(key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            _ => drop(tree.insert(key.clone(), value.clone())),
        }
    }
}

/// The first key of `layer`, dotted, that `known` does not have.
fn first_unknown(layer: &Table, known: &Table, parent: &str) -> Option<String> {
    layer.iter().find_map(|(key, value)| {
        let path = join(parent, key);
        match known.get(key) {
            Some(counterpart) => first_unknown_in_value(value, counterpart, &path),
            // An empty section says nothing, so there is nothing that could be lost.
            None if value.as_table().is_some_and(Table::is_empty) => None,
            None => Some(path),
        }
    })
}

fn first_unknown_in_value(value: &Value, known: &Value, path: &str) -> Option<String> {
    match (value, known) {
        (Value::Table(value), Value::Table(known)) => first_unknown(value, known, path),
        (Value::Array(values), Value::Array(known)) => {
            let mut pairs = values.iter().zip(known);
            pairs.find_map(|(value, known)| first_unknown_in_value(value, known, path))
        }
        _ => None,
    }
}

/// The known key most like `key`: a sibling, or the same name in another section.
fn closest(key: &str, tree: &Table) -> Option<String> {
    let mut known = Vec::new();
    collect_keys(tree, "", &mut known);
    let (parent, name) = key.rsplit_once('.').unwrap_or(("", key));
    let likeness = |candidate: &String| {
        let (section, candidate_name) = candidate.rsplit_once('.').unwrap_or(("", candidate));
        match section == parent {
            true => strsim::jaro_winkler(name, candidate_name),
            // A misspelled section, or a key that belongs elsewhere.
            false if candidate_name == name => ALIKE.max(strsim::jaro_winkler(key, candidate)),
            false => 0.0,
        }
    };
    let rated = known.into_iter().map(|candidate| (likeness(&candidate), candidate));
    let best = rated.filter(|(rate, _)| *rate >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, candidate)| candidate)
}

fn collect_keys(tree: &Table, parent: &str, keys: &mut Vec<String>) {
    for (key, value) in tree {
        let path = join(parent, key);
        if let Value::Table(section) = value {
            collect_keys(section, &path, keys);
        }
        keys.push(path);
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        return key.to_owned();
    }
    format!("{parent}.{key}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::error::Error;

    use serde::Deserialize;

    use super::*;
    use crate::{ByteSize, HumanDuration};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Sample {
        node: String,
        listen: Listen,
        segment: Segment,
        labels: BTreeMap<String, String>,
        peers: Vec<Listen>,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Listen {
        port: u16,
        tls: bool,
        advertised: Option<String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Segment {
        max_size: ByteSize,
        max_age: HumanDuration,
    }

    impl Default for Segment {
        fn default() -> Self {
            Segment { max_size: ByteSize::mib(64), max_age: HumanDuration::secs(60) }
        }
    }

    impl Default for Sample {
        fn default() -> Self {
            Sample {
                node: "one".to_owned(),
                listen: Listen::default(),
                segment: Segment::default(),
                labels: BTreeMap::new(),
                peers: Vec::new(),
            }
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn load_sample(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Sample, ConfigError> {
        let path = std::env::temp_dir().join(format!("bmq-config-{}.toml", crate::Random::from_os().next_u64()));
        std::fs::write(&path, file).unwrap();
        let loaded = load(Some(&path), pairs(environment).into_iter(), &pairs(flags));
        std::fs::remove_file(&path).unwrap();
        loaded
    }

    #[test]
    fn nothing_given_means_defaults() {
        assert_eq!(load_sample("", &[], &[]).unwrap(), Sample::default());
    }

    #[test]
    fn later_layers_win_key_by_key() {
        let file = "node = 'file'\n[listen]\nport = 1\ntls = true\n[segment]\nmax_size = '1GiB'";
        let environment = [("BMQ_LISTEN__PORT", "2"), ("BMQ_NODE", "env"), ("PATH", "/bin")];
        let config = load_sample(file, &environment, &[("node", "flag")]).unwrap();
        assert_eq!(config.node, "flag");
        assert_eq!((config.listen.port, config.listen.tls), (2, true));
        assert_eq!(config.segment.max_size, ByteSize::gib(1));
        assert_eq!(config.segment.max_age, HumanDuration::secs(60));
    }

    #[test]
    fn text_values_become_what_the_key_takes() {
        let flags = [
            ("node", "7"),
            ("listen.port", "7"),
            ("listen.tls", "true"),
            ("listen.advertised", "7"),
            ("segment.max_size", "7"),
            ("segment.max_age", "7d"),
            ("labels.room", "b"),
            ("peers", "[{ port = 9 }]"),
        ];
        let config = load_sample("", &[], &flags).unwrap();
        assert_eq!(config.node, "7");
        assert_eq!((config.listen.port, config.listen.tls), (7, true));
        assert_eq!(config.listen.advertised.as_deref(), Some("7"));
        assert_eq!(config.segment.max_size, ByteSize(7));
        assert_eq!(config.segment.max_age.to_string(), "7d");
        assert_eq!(config.labels["room"], "b");
        assert_eq!(config.peers[0].port, 9);
    }

    fn check_refused(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)], expect: &[&str]) {
        let error = load_sample(file, environment, flags).unwrap_err();
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {cause}");
        for part in expect {
            assert!(text.contains(part), "no `{part}` in: {text}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_in_every_layer() {
        check_refused(
            "[listen]\nprot = 1",
            &[],
            &[],
            &["unknown key `listen.prot` in the file ", "did you mean `listen.port`?"],
        );
        check_refused(
            "",
            &[("BMQ_SEGMENT__MAXSIZE", "1")],
            &[],
            &["`segment.maxsize` in the environment variable BMQ_SEGMENT__MAXSIZE", "`segment.max_size`?"],
        );
        check_refused("", &[], &[("nod", "x")], &["`nod` in --set nod", "did you mean `node`?"]);
        check_refused("[segmnt]\nmax_age = '1s'", &[], &[], &["unknown key `segmnt`", "`segment`?"]);
        check_refused("[[peers]]\nprt = 1", &[], &[], &["unknown key `peers.prt`"]);
        let error = load_sample("zzz = 1", &[], &[]).unwrap_err();
        assert!(error.to_string().ends_with(".toml"), "suggests something: {error}");
    }

    #[test]
    fn values_that_do_not_fit_name_the_key_and_the_layer() {
        check_refused("[listen]\nport = 'x'", &[], &[], &["the file ", "does not fit", "listen.port", "u16"]);
        check_refused("[listen]\nport = 70000", &[], &[], &["70000", "listen.port"]);
        check_refused("", &[("BMQ_LISTEN__PORT", "x")], &[], &["BMQ_LISTEN__PORT", "listen.port", "\"x\""]);
        check_refused("", &[], &[("segment.max_size", "64MB")], &["`64MB`", "`MB`", "segment.max_size"]);
        check_refused("", &[], &[("listen.port.x", "1")], &["listen.port"]);
        check_refused("node = ", &[], &[], &["is not TOML", "line 1"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Sample>(Some(Path::new("absent.toml")), std::iter::empty(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration file absent.toml");
    }

    #[test]
    fn the_effective_configuration_loads_again() {
        let config = load_sample("", &[], &[("listen.advertised", "a:1"), ("segment.max_age", "300ms")]).unwrap();
        let text = effective_toml(&config);
        assert!(text.contains("max_size = \"64MiB\"") && text.contains("max_age = \"300ms\""), "{text}");
        assert_eq!(load_sample(&text, &[], &[]).unwrap(), config);
    }
}
