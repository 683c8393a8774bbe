//! Changes of a topic's settings: a pure function from the settings that stand to those that shall stand.
//!
//! Applying changes twice is the same as applying them once, so that a request whose outcome is unclear may come again.

use std::collections::BTreeMap;

use super::TopicConfig;
use crate::topic_config::{Setting, SettingKind, TopicSettings};
use crate::{ErrorCode, ServiceError};

/// What shall become of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    Set(String),
    /// Back to the default. Nothing happens if it was not set.
    Delete,
    /// Add the items of a comma-separated list that the setting does not have yet.
    Append(String),
    /// Remove the items of a comma-separated list that the setting has.
    Subtract(String),
}

/// Changes by the name of the setting.
pub type ConfigChanges = BTreeMap<String, ConfigChange>;

/// The settings after the changes. `InvalidArgument` if a name is unknown, a value is not allowed, or the change of a
/// list is asked of a setting that is none.
pub fn apply_config_changes(present: &TopicConfig, changes: &ConfigChanges) -> Result<TopicConfig, ServiceError> {
    let mut config = present.clone();
    for (name, change) in changes {
        match change {
            ConfigChange::Set(value) => drop(config.insert(name.clone(), value.clone())),
            ConfigChange::Delete => {
                // One that a newer version wrote can be deleted, although it has no meaning here.
                if config.remove(name).is_none() {
                    setting(name)?;
                }
            }
            ConfigChange::Append(items) => {
                let mut list = list_of(&config, name)?;
                for item in items_of(items) {
                    if !list.contains(&item) {
                        list.push(item);
                    }
                }
                config.insert(name.clone(), list.join(","));
            }
            ConfigChange::Subtract(items) => {
                let mut list = list_of(&config, name)?;
                let removed = items_of(items);
                list.retain(|item| !removed.contains(item));
                config.insert(name.clone(), list.join(","));
            }
        }
    }
    TopicSettings::parse(&config)?;
    Ok(config)
}

/// The items that a list has, those of its default if it is not set.
fn list_of(config: &TopicConfig, name: &str) -> Result<Vec<String>, ServiceError> {
    let setting = setting(name)?;
    if !matches!(setting.kind, SettingKind::List(_)) {
        let message = format!("{name} is no list: it can be set and deleted, nothing can be added to it or taken away");
        return Err(ServiceError::not_applied(ErrorCode::InvalidArgument, message));
    }
    Ok(items_of(config.get(name).map_or(setting.default, String::as_str)))
}

/// The setting of that name; `InvalidArgument` with a hint if there is none.
fn setting(name: &str) -> Result<&'static Setting, ServiceError> {
    match Setting::find(name) {
        Some(setting) => Ok(setting),
        None => {
            let alone = TopicConfig::from([(name.to_owned(), String::new())]);
            Err(TopicSettings::parse(&alone).expect_err("a setting that is not in the table is refused"))
        }
    }
}

fn items_of(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> TopicConfig {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn apply(present: &[(&str, &str)], name: &str, change: ConfigChange) -> Result<TopicConfig, String> {
        let changes = ConfigChanges::from([(name.to_owned(), change)]);
        apply_config_changes(&config(present), &changes).map_err(|error| error.message)
    }

    #[test]
    fn settings_are_set_and_deleted() {
        let set = ConfigChange::Set("5000".to_owned());
        assert_eq!(apply(&[("segment.ms", "1000")], "segment.ms", set), Ok(config(&[("segment.ms", "5000")])));
        assert_eq!(apply(&[("segment.ms", "1000")], "segment.ms", ConfigChange::Delete), Ok(config(&[])));
        assert_eq!(apply(&[], "segment.ms", ConfigChange::Delete), Ok(config(&[])));
        // From a newer version.
        assert_eq!(apply(&[("newer.setting", "1")], "newer.setting", ConfigChange::Delete), Ok(config(&[])));
    }

    #[test]
    fn lists_grow_and_shrink() {
        let policy = |policy: &'static str| [("cleanup.policy", policy)];
        let append = |items: &str| ConfigChange::Append(items.to_owned());
        let subtract = |items: &str| ConfigChange::Subtract(items.to_owned());
        let both = Ok(config(&policy("delete,compact")));
        assert_eq!(apply(&[], "cleanup.policy", append("compact")), both, "added to the default");
        assert_eq!(apply(&policy("delete,compact"), "cleanup.policy", append("compact, delete")), both);
        let compact = Ok(config(&policy("compact")));
        assert_eq!(apply(&policy("delete,compact"), "cleanup.policy", subtract("delete")), compact);
        assert_eq!(apply(&policy("compact"), "cleanup.policy", subtract("delete")), compact);
        assert!(apply(&policy("compact"), "cleanup.policy", subtract("compact")).is_err(), "nothing would be left");
    }

    #[test]
    fn wrong_changes_say_why() {
        let check = |name: &str, change: ConfigChange, hint: &str| {
            let message = apply(&[], name, change).unwrap_err();
            assert!(message.contains(hint), "{message}");
        };
        check("segment.size", ConfigChange::Delete, "did you mean");
        check("segment.size", ConfigChange::Append("1".to_owned()), "did you mean");
        check("segment.ms", ConfigChange::Set("soon".to_owned()), "`soon`");
        check("segment.ms", ConfigChange::Append("1".to_owned()), "no list");
        check("segment.ms", ConfigChange::Subtract("1".to_owned()), "no list");
    }
}
