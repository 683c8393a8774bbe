//! What can be set on a topic, under the names that Kafka gives these settings.
//!
//! A topic's record holds the texts as they were given; they are checked when set, so reading them back cannot fail
//! except after a newer version wrote them. A name that is not listed here is refused: nothing is accepted and ignored.

use std::time::Duration;

use crate::meta::TopicConfig;
use crate::{ErrorCode, ServiceError};

/// The settings of one topic; what is `None` follows the broker's own setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicSettings {
    /// `segment.bytes`: a segment is rolled when its file reaches this size.
    pub segment_bytes: Option<u64>,
    /// `segment.ms`: a segment is rolled when it has been open this long.
    pub segment_age: Option<Duration>,
    /// `max.message.bytes`: the largest record batch taken.
    pub max_batch_bytes: Option<u64>,
}

/// One setting that a topic can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingName {
    pub name: &'static str,
    pub help: &'static str,
    /// The least and the greatest value, both allowed.
    pub range: (u64, u64),
}

/// No topic may allow a longer batch.
pub const MAX_BATCH_BYTES: usize = 16 << 20;

/// Every setting, by name.
pub const SETTINGS: [SettingName; 3] = [
    SettingName {
        name: "max.message.bytes",
        help: "the largest record batch taken, in bytes (at most 4 MiB on local disk, 16 MiB on HDFS)",
        range: (1024, MAX_BATCH_BYTES as u64),
    },
    SettingName {
        name: "segment.bytes",
        help: "a segment is rolled when its file reaches this many bytes (on HDFS at most half of the block size)",
        range: (64 << 10, 1 << 30),
    },
    SettingName {
        name: "segment.ms",
        help: "a segment is rolled when it has been open for this many milliseconds",
        range: (1_000, 30 * 24 * 3600 * 1000),
    },
];

impl TopicSettings {
    /// Reads a topic's settings. `InvalidArgument` names the setting, and for an unknown one the nearest known.
    pub fn parse(config: &TopicConfig) -> Result<Self, ServiceError> {
        let mut settings = Self::default();
        for (name, text) in config {
            let known = SETTINGS.iter().find(|known| known.name == name).ok_or_else(|| unknown(name))?;
            let value = parse_value(known, text)?;
            match known.name {
                "segment.bytes" => settings.segment_bytes = Some(value),
                "segment.ms" => settings.segment_age = Some(Duration::from_millis(value)),
                _ => settings.max_batch_bytes = Some(value),
            }
        }
        Ok(settings)
    }
}

fn parse_value(setting: &SettingName, text: &str) -> Result<u64, ServiceError> {
    let (least, greatest) = setting.range;
    match text.parse::<u64>() {
        Ok(value) if (least..=greatest).contains(&value) => Ok(value),
        _ => Err(invalid(format!("{} is `{text}`, it must be a number from {least} to {greatest}", setting.name))),
    }
}

fn unknown(name: &str) -> ServiceError {
    let nearest = SETTINGS.iter().rev().max_by_key(|known| shared_words(known.name, name));
    match nearest.filter(|known| shared_words(known.name, name) > 0) {
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
    }

    #[test]
    fn the_rest_is_refused_with_a_hint() {
        let check = |name: &str, value: &str, hint: &str| {
            let message = parse(name, value).unwrap_err();
            assert!(message.contains(hint), "{message}");
        };
        check("segment.size", "1", "did you mean `segment.bytes`");
        check("colour", "red", "there are max.message.bytes, segment.bytes, segment.ms");
        check("segment.bytes", "lots", "must be a number from 65536");
        check("segment.bytes", "1", "must be a number from 65536");
    }
}
