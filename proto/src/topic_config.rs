//! What can be set on a topic, under the names that Kafka gives these settings.
//!
//! One table says of each setting what it is called, what it may hold, what it is unless set, and what it means: texts
//! are checked against it when set and described from it when asked for. A topic's record holds the texts as they were
//! given, so reading them back cannot fail except after a newer version wrote them. Nothing is accepted and ignored: a
//! name that is not in the table is refused.

mod setting;

use std::cmp::Reverse;
use std::time::Duration;

use crate::broker::AckLevel;
use crate::meta::TopicConfig;
use crate::record_batch::{Codec, TimestampType};
use crate::{ErrorCode, ServiceError};

use setting::UNSUPPORTED;
pub use setting::{SETTINGS, Setting, SettingKind};

/// No topic may allow a longer batch.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments go by age and size.
    pub delete: bool,
    /// Records go when a later one has their key.
    pub compact: bool,
}

/// The settings of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// `segment.bytes`; `None` follows the broker's own setting, here and in the next two.
    pub segment_bytes: Option<u64>,
    /// `segment.ms`.
    pub segment_age: Option<Duration>,
    /// `max.message.bytes`.
    pub max_batch_bytes: Option<u64>,
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `retention.ms`; `None` keeps records for ever.
    pub retention_age: Option<Duration>,
    /// `retention.bytes`; `None` keeps any number.
    pub retention_bytes: Option<u64>,
    /// `delete.retention.ms`.
    pub delete_retention: Duration,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag: Duration,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag: Duration,
    /// `min.cleanable.dirty.ratio`, in thousandths.
    pub min_dirty_per_mille: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `compression.type`; `None` keeps what the producer chose.
    pub compression: Option<Codec>,
    /// `acks.1`: what Kafka's acks=1 waits for.
    pub ack_one: AckLevel,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self::parse(&TopicConfig::new()).expect("the table's own defaults are allowed")
    }
}

impl TopicSettings {
    /// Reads a topic's settings. `InvalidArgument` names the setting, and for an unknown one the nearest known.
    pub fn parse(config: &TopicConfig) -> Result<Self, ServiceError> {
        for (name, text) in config {
            Setting::find(name).ok_or_else(|| unknown(name))?.check(text)?;
        }
        let set = |name: &str| config.get(name).map(String::as_str);
        let text = |name: &str| set(name).unwrap_or_else(|| default_of(name));
        let number = |name: &str| text(name).parse::<i64>().unwrap_or_default();
        let unlimited = |name: &str| u64::try_from(number(name)).ok();
        let millis = |name: &str| Duration::from_millis(unlimited(name).unwrap_or_default());
        let own = |name: &str| set(name).and_then(|text| text.parse::<u64>().ok());
        let policies: Vec<&str> = items(text("cleanup.policy")).collect();
        let ratio: f64 = text("min.cleanable.dirty.ratio").parse().unwrap_or_default();
        Ok(Self {
            segment_bytes: own("segment.bytes"),
            segment_age: own("segment.ms").map(Duration::from_millis),
            max_batch_bytes: own("max.message.bytes"),
            cleanup: CleanupPolicy { delete: policies.contains(&"delete"), compact: policies.contains(&"compact") },
            retention_age: unlimited("retention.ms").map(Duration::from_millis),
            retention_bytes: unlimited("retention.bytes"),
            delete_retention: millis("delete.retention.ms"),
            min_compaction_lag: millis("min.compaction.lag.ms"),
            max_compaction_lag: millis("max.compaction.lag.ms"),
            min_dirty_per_mille: (ratio * 1000.0).round() as u32,
            timestamp_type: match text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppend,
                _ => TimestampType::Create,
            },
            compression: codec(text("compression.type")),
            ack_one: if text("acks.1") == "memory" { AckLevel::Memory } else { AckLevel::Stored },
        })
    }
}

impl Setting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|known| known.name == name)
    }

    /// Whether the setting may hold `text`; `InvalidArgument` says what it may hold.
    pub fn check(&self, text: &str) -> Result<(), ServiceError> {
        let allowed = match self.kind {
            SettingKind::Int { least, greatest } | SettingKind::Long { least, greatest } => {
                text.parse::<i64>().is_ok_and(|value| (least..=greatest).contains(&value))
            }
            SettingKind::Ratio => text.parse::<f64>().is_ok_and(|value| (0.0..=1.0).contains(&value)),
            SettingKind::Choice(choices) => choices.contains(&text),
            SettingKind::List(choices) => items(text).count() > 0 && items(text).all(|item| choices.contains(&item)),
        };
        if allowed {
            return Ok(());
        }
        Err(invalid(format!("{} is `{}`, it must be {}", self.name, text.escape_debug(), self.kind)))
    }
}

/// The items of a list.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn codec(text: &str) -> Option<Codec> {
    match text {
        "producer" => None,
        "uncompressed" => Some(Codec::None),
        name => Codec::ALL.into_iter().find(|codec| codec.name() == name),
    }
}

fn default_of(name: &str) -> &'static str {
    Setting::find(name).map_or("", |setting| setting.default)
}

fn unknown(name: &str) -> ServiceError {
    if let Some((name, reason)) = UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
        return invalid(format!("the topic setting `{name}` of Kafka is not supported: {reason}"));
    }
    // Of those that share as many words the one with the fewest others is nearest.
    let nearness = |known: &&Setting| (shared_words(known.name, name), Reverse(known.name.split('.').count()));
    let nearest = SETTINGS.iter().rev().max_by_key(nearness).filter(|known| shared_words(known.name, name) > 0);
    let name = name.escape_debug();
    match nearest {
        Some(known) => invalid(format!("no topic setting is called `{name}`, did you mean `{}`?", known.name)),
        None => {
            let names: Vec<&str> = SETTINGS.iter().map(|known| known.name).collect();
            invalid(format!("no topic setting is called `{name}`; there are {}", names.join(", ")))
        }
    }
}

/// How many dotted words two names share: enough to find `segment.size` near `segment.bytes`.
fn shared_words(known: &str, given: &str) -> usize {
    known.split('.').filter(|word| given.split(['.', '_', '-']).any(|other| other == *word)).count()
}

fn invalid(message: String) -> ServiceError {
    ServiceError::not_applied(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<TopicSettings, String> {
        let config = TopicConfig::from([(name.to_owned(), value.to_owned())]);
        TopicSettings::parse(&config).map_err(|error| error.message)
    }

    #[test]
    fn known_settings_are_read() {
        assert_eq!(parse("segment.bytes", "1048576").unwrap().segment_bytes, Some(1 << 20));
        assert_eq!(parse("segment.ms", "5000").unwrap().segment_age, Some(Duration::from_secs(5)));
        assert_eq!(parse("max.message.bytes", "2048").unwrap().max_batch_bytes, Some(2048));
        assert_eq!(parse("retention.ms", "-1").unwrap().retention_age, None);
        assert_eq!(parse("retention.bytes", "0").unwrap().retention_bytes, Some(0));
        let both = CleanupPolicy { delete: true, compact: true };
        assert_eq!(parse("cleanup.policy", "compact, delete").unwrap().cleanup, both);
        assert_eq!(parse("min.cleanable.dirty.ratio", "0.25").unwrap().min_dirty_per_mille, 250);
        assert_eq!(parse("compression.type", "uncompressed").unwrap().compression, Some(Codec::None));
        assert_eq!(parse("compression.type", "gzip").unwrap().compression, Some(Codec::Gzip));
        assert_eq!(parse("acks.1", "memory").unwrap().ack_one, AckLevel::Memory);
        assert_eq!(parse("message.timestamp.type", "LogAppendTime").unwrap().timestamp_type, TimestampType::LogAppend);
    }

    #[test]
    fn what_is_not_set_is_as_the_table_says() {
        let settings = TopicSettings::default();
        assert_eq!((settings.segment_bytes, settings.max_batch_bytes), (None, None));
        assert_eq!(settings.retention_age, Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(settings.retention_bytes, None);
        assert_eq!(settings.cleanup, CleanupPolicy { delete: true, compact: false });
        assert_eq!((settings.compression, settings.ack_one), (None, AckLevel::Stored));
        assert_eq!(settings.min_dirty_per_mille, 500);
    }

    #[test]
    fn the_table_is_in_order_and_allows_its_own_defaults() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        for setting in &SETTINGS {
            assert_eq!(setting.check(setting.default), Ok(()), "{}", setting.name);
        }
        assert!(UNSUPPORTED.iter().all(|(name, _)| Setting::find(name).is_none()));
    }

    #[test]
    fn the_rest_is_refused_with_a_hint() {
        let check = |name: &str, value: &str, hint: &str| {
            let message = parse(name, value).unwrap_err();
            assert!(message.contains(hint), "{message}");
        };
        check("segment.size", "1", "did you mean `segment.bytes`");
        check("log.retention.ms", "1", "did you mean `retention.ms`");
        check("colour", "red", "there are acks.1, cleanup.policy");
        check("segment.bytes", "lots", "must be a number from 65536");
        check("segment.bytes", "1", "must be a number from 65536");
        check("retention.ms", "-2", "must be a number from -1");
        check("cleanup.policy", "", "some of compact, delete");
        check("cleanup.policy", "delete,shred", "some of compact, delete");
        check("compression.type", "none", "one of producer, uncompressed");
        check("min.cleanable.dirty.ratio", "NaN", "from 0 to 1");
        check("min.insync.replicas", "2", "must be 1");
        check("flush.messages", "1", "every stored ack is flushed");
    }
}
