//! Ranges of producer ids.

use std::ops::Range;

use bmq_proto::rpc::record::CounterRecord;
use bmq_proto::{ErrorCode, ServiceError};

use super::refuse;

/// Most ids of one range.
pub const MAX_RANGE: u32 = 1_000_000;

/// The next range of `count` ids. Kafka's producer ids are signed, so they end at `i64::MAX`.
pub fn allocate(present: Option<CounterRecord>, count: u32) -> Result<Range<u64>, ServiceError> {
    if !(1..=MAX_RANGE).contains(&count) {
        return refuse(ErrorCode::InvalidArgument, format!("{count} producer ids, of 1 to {MAX_RANGE}"));
    }
    let first = present.unwrap_or_default().next;
    let end = first.saturating_add(u64::from(count));
    if end > i64::MAX as u64 {
        return refuse(ErrorCode::Internal, "producer ids are used up");
    }
    Ok(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other_and_end() {
        assert_eq!(allocate(None, 10), Ok(0..10));
        assert_eq!(allocate(Some(CounterRecord { next: 10 }), 1), Ok(10..11));
        assert!(allocate(None, 0).is_err() && allocate(None, MAX_RANGE + 1).is_err());
        assert!(allocate(Some(CounterRecord { next: i64::MAX as u64 }), 1).is_err());
    }
}
