//! Sizes as people write them: `64MiB`, `512KiB`, `100` (bytes).

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::quantity::{self, Unit};

const UNITS: [Unit; 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub const fn kib(count: u64) -> Self {
        ByteSize(count << 10)
    }

    pub const fn mib(count: u64) -> Self {
        ByteSize(count << 20)
    }

    pub const fn gib(count: u64) -> Self {
        ByteSize(count << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The text is no size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("size `{text}` {reason} (write it like 64MiB, 512KiB or 100)")]
pub struct ParseByteSizeError {
    text: String,
    reason: String,
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = quantity::split(text.trim()).and_then(|(number, unit)| {
            let unit = if unit.is_empty() { "B" } else { unit };
            quantity::scale(number, unit, &UNITS)
        });
        parsed.map(ByteSize).map_err(|reason| ParseByteSizeError { text: text.to_owned(), reason })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&quantity::format(self.0, &UNITS))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\" or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        let bytes = u64::try_from(bytes).map_err(|_| E::custom("a size is not negative"))?;
        Ok(ByteSize(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let check = |text: &str, expect: ByteSize| assert_eq!(text.parse(), Ok(expect), "{text}");
        check("0", ByteSize(0));
        check("100", ByteSize(100));
        check("100B", ByteSize(100));
        check("512KiB", ByteSize::kib(512));
        check("64MiB", ByteSize::mib(64));
        check(" 1 GiB ", ByteSize::gib(1));
        check("2TiB", ByteSize(2 << 40));
    }

    #[test]
    fn refuses() {
        let check = |text: &str, expect: &str| {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(expect) && error.contains(text), "{error}");
        };
        check("", "does not begin with a whole number");
        check("-1", "does not begin with a whole number");
        check("1.5GiB", "has the unit `.5GiB`");
        check("64MB", "has the unit `MB`, expected one of B, KiB, MiB, GiB, TiB");
        check("99999999999999999999", "is too large");
        check("99999999999TiB", "is too large");
    }

    #[test]
    fn displays_without_loss() {
        let check = |size: ByteSize, expect: &str| {
            assert_eq!(size.to_string(), expect);
            assert_eq!(expect.parse(), Ok(size));
        };
        check(ByteSize(0), "0B");
        check(ByteSize(1_000), "1000B");
        check(ByteSize(1536), "1536B");
        check(ByteSize::mib(64), "64MiB");
        check(ByteSize::mib(1536), "1536MiB");
        check(ByteSize::gib(1024), "1TiB");
    }

    #[test]
    fn reads_text_and_numbers() {
        let check = |json: &str, expect: Option<ByteSize>| {
            assert_eq!(serde_json::from_str::<ByteSize>(json).ok(), expect, "{json}");
        };
        check("\"1KiB\"", Some(ByteSize::kib(1)));
        check("7", Some(ByteSize(7)));
        check("-7", None);
        check("true", None);
        assert_eq!(serde_json::to_string(&ByteSize::kib(1)).unwrap(), "\"1KiB\"");
    }
}
