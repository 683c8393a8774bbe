//! What services said in their JSON logs, and when.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One line.
#[derive(Debug, Clone)]
pub struct LogEvent {
    /// Milliseconds since 1970.
    pub at: i64,
    pub message: String,
    fields: Value,
}

impl LogEvent {
    /// A field as text, empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        self.fields[name].as_str().unwrap_or_default()
    }
}

/// Every line of a log that is JSON; what else stands there is for people.
pub fn read(path: &Path) -> Result<Vec<LogEvent>> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<LogEvent> {
    let fields: Value = serde_json::from_str(line).ok()?;
    let at = unix_ms(fields["timestamp"].as_str()?)?;
    Some(LogEvent { at, message: fields["message"].as_str()?.to_owned(), fields })
}

/// `2026-01-31T12:34:56.789…Z`, always of this shape, in milliseconds since 1970.
fn unix_ms(timestamp: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| timestamp.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hours, minutes, seconds, millis) = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..23)?);
    // Years that begin in March end with the leap day, and their months have lengths that follow a line.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let check = |text: &str, expect: Option<i64>| assert_eq!(unix_ms(text), expect, "{text}");
        check("1970-01-01T00:00:00.000000Z", Some(0));
        check("2000-02-29T23:59:59.999999Z", Some(951_868_799_999));
        check("2026-11-25T18:29:09.123456Z", Some(1_795_631_349_123));
        check("yesterday", None);
    }

    #[test]
    fn only_json_counts() {
        let line =
            r#"{"timestamp":"1970-01-01T00:00:01.000000Z","level":"INFO","message":"claiming","partition":"a/1"}"#;
        let event = parse(line).unwrap();
        assert_eq!((event.at, event.message.as_str(), event.field("partition")), (1000, "claiming", "a/1"));
        assert!(parse("bmq: broker 1 ended").is_none());
    }
}
