//! Durations as people write them: `300ms`, `30s`, `5m`, `1h`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::quantity::{self, Unit};

/// In nanoseconds, which bounds a duration at 584 years.
const UNITS: [Unit; 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// A duration that reads and prints with a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    pub const fn millis(count: u64) -> Self {
        HumanDuration(Duration::from_millis(count))
    }

    pub const fn secs(count: u64) -> Self {
        HumanDuration(Duration::from_secs(count))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Duration {
        duration.0
    }
}

/// The text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("duration `{text}` {reason} (write it like 300ms, 30s, 5m, 1h or 7d)")]
pub struct ParseHumanDurationError {
    text: String,
    reason: String,
}

impl FromStr for HumanDuration {
    type Err = ParseHumanDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = quantity::split(text.trim()).and_then(|(number, unit)| match unit {
            "" => Err("has no unit".to_owned()),
            unit => quantity::scale(number, unit, &UNITS),
        });
        let duration = parsed.map(|nanos| HumanDuration(Duration::from_nanos(nanos)));
        duration.map_err(|reason| ParseHumanDurationError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.pad("0s");
        }
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        f.pad(&quantity::format(nanos, &UNITS))
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HumanDurationVisitor)
    }
}

struct HumanDurationVisitor;

impl Visitor<'_> for HumanDurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"30s\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_displays_without_loss() {
        let check = |text: &str, expect: Duration| {
            assert_eq!(text.parse(), Ok(HumanDuration(expect)), "{text}");
            assert_eq!(HumanDuration(expect).to_string(), text);
        };
        check("0s", Duration::ZERO);
        check("15ns", Duration::from_nanos(15));
        check("250us", Duration::from_micros(250));
        check("300ms", Duration::from_millis(300));
        check("1500ms", Duration::from_millis(1500));
        check("30s", Duration::from_secs(30));
        check("5m", Duration::from_secs(300));
        check("1h", Duration::from_secs(3_600));
        check("7d", Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn refuses() {
        let check = |text: &str, expect: &str| {
            let error = text.parse::<HumanDuration>().unwrap_err().to_string();
            assert!(error.contains(expect) && error.contains(text), "{error}");
        };
        check("", "does not begin with a whole number");
        check("30", "has no unit");
        check("1h30m", "has the unit `h30m`");
        check("3 weeks", "has the unit `weeks`, expected one of ns, us, ms, s, m, h, d");
        check("999999999999d", "is too large");
    }

    #[test]
    fn reads_text_only() {
        assert!(serde_json::from_str::<HumanDuration>("30").is_err());
        let duration: HumanDuration = serde_json::from_str("\"30s\"").unwrap();
        assert_eq!(duration, HumanDuration::secs(30));
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"30s\"");
    }
}
