//! A point in time as people type it.

use std::str::FromStr;

use bmq_common::{Clock, HumanDuration, SystemClock};
use chrono::DateTime;

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointInTime(pub i64);

impl FromStr for PointInTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ago) = text.strip_suffix("-ago") {
            let duration: HumanDuration = ago.parse().map_err(|error| format!("{error}"))?;
            let milliseconds =
                i64::try_from(duration.get().as_millis()).map_err(|_| "that is too long ago".to_owned())?;
            return Ok(Self(SystemClock.wall().0.saturating_sub(milliseconds)));
        }
        let parsed = DateTime::parse_from_rfc3339(text);
        let help = "write a time such as 2026-01-31T18:00:00Z, or 15m-ago";
        parsed.map(|time| Self(time.timestamp_millis())).map_err(|error| format!("{help} ({error})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!("1970-01-01T00:00:01.5Z".parse(), Ok(PointInTime(1_500)));
        assert_eq!("1970-01-01T02:00:00+02:00".parse(), Ok(PointInTime(0)));
        let now = SystemClock.wall().0;
        let PointInTime(ago) = "15m-ago".parse().unwrap();
        assert!((now - ago - 900_000).abs() < 60_000);
        for bad in ["yesterday", "15m", "-ago", "2026-13-01T00:00:00Z"] {
            assert!(bad.parse::<PointInTime>().is_err(), "{bad}");
        }
    }
}
