//! Decides where the batches at an offset are read. Pure.

use std::ops::Range;

use bmq_proto::Offset;
use bmq_proto::meta::SegmentRecord;

use super::segment_list::{Lookup, SegmentList};

/// Where to turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The ring holds the offset.
    FromRing,
    /// The offset is the high watermark, as the live tail knows: there is nothing yet.
    AtEnd,
    /// A CLOSED segment holds it.
    FromSegment(SegmentRecord),
    /// It lies in a sealed range, but the segments there are not known, or are known from before the head changed.
    LoadSegments,
    /// Only the owner can have it.
    FromOwner,
    /// It seems to lie outside the log: verify, since what is known here may be old.
    CheckRange,
}

/// What is known of the partition when the plan is made.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The tail, if it is followed under the newest epoch known.
    pub tail: Option<&'a LiveTail>,
    /// Version of the newest head known.
    pub head_version: u64,
    /// First offset that no sealed segment holds, by that head.
    pub sealed_end: Offset,
    pub segments: Option<&'a SegmentList>,
}

/// A followed tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTail {
    /// Offsets that the ring holds; empty at its end if it holds none.
    pub ring: Range<Offset>,
    pub high_watermark: Offset,
}

/// Plans the read at `offset`.
pub fn plan(offset: Offset, known: Known<'_>) -> Plan {
    if let Some(tail) = known.tail {
        if tail.ring.contains(&offset) {
            return Plan::FromRing;
        }
        if offset == tail.high_watermark {
            return Plan::AtEnd;
        }
        if offset > tail.high_watermark {
            return Plan::CheckRange;
        }
    }
    if offset >= known.sealed_end {
        return Plan::FromOwner;
    }
    match known.segments.map_or(Lookup::Unknown, |segments| segments.lookup(offset)) {
        Lookup::Closed(segment) => Plan::FromSegment(segment.clone()),
        Lookup::NotClosed { as_of } if as_of >= known.head_version => Plan::FromOwner,
        Lookup::BelowAll { as_of } if as_of >= known.head_version => Plan::CheckRange,
        Lookup::NotClosed { .. } | Lookup::BelowAll { .. } | Lookup::Unknown => Plan::LoadSegments,
    }
}

#[cfg(test)]
mod tests {
    use bmq_proto::meta::{PartitionHead, PartitionView, SegmentEnd, SegmentState};
    use bmq_proto::{BytePosition, Epoch, FileId};

    use super::*;

    fn segment(base: u64, end: Option<(u64, bool)>) -> SegmentRecord {
        let state = match end {
            None => SegmentState::Open,
            Some((offset, closed)) => {
                let end = SegmentEnd { offset: Offset(offset), position: BytePosition(10_000) };
                if closed { SegmentState::Closed { end } } else { SegmentState::Sealed { end } }
            }
        };
        SegmentRecord {
            file: FileId { epoch: Epoch(1), nonce: base },
            epoch: Epoch(1),
            base_offset: Offset(base),
            start_position: BytePosition(512),
            state,
            floor: None,
            created_at_ms: 0,
            sealed_at_ms: 0,
            max_timestamp_ms: None,
            compacted: false,
        }
    }

    /// Log start 10; closed 10..20, sealed 20..30, open 30...; head version 7.
    fn list(version: u64) -> SegmentList {
        let segments = vec![segment(10, Some((20, true))), segment(20, Some((30, false))), segment(30, None)];
        let head = PartitionHead { version, ..Default::default() };
        SegmentList::new(Offset(0), PartitionView { head, segments, checkpoint: None })
    }

    fn planned(offset: u64, tail: Option<&LiveTail>, segments: Option<&SegmentList>) -> Plan {
        plan(Offset(offset), Known { tail, head_version: 7, sealed_end: Offset(30), segments })
    }

    #[test]
    fn without_a_tail() {
        let list = list(7);
        assert_eq!(planned(15, None, None), Plan::LoadSegments);
        assert_eq!(planned(15, None, Some(&list)), Plan::FromSegment(segment(10, Some((20, true)))));
        assert_eq!(planned(20, None, Some(&list)), Plan::FromOwner);
        assert_eq!(planned(30, None, Some(&list)), Plan::FromOwner);
        assert_eq!(planned(99, None, Some(&list)), Plan::FromOwner);
        assert_eq!(planned(9, None, Some(&list)), Plan::CheckRange);
    }

    #[test]
    fn a_tail_answers_first() {
        let list = list(7);
        let tail = LiveTail { ring: Offset(40)..Offset(50), high_watermark: Offset(50) };
        assert_eq!(planned(40, Some(&tail), Some(&list)), Plan::FromRing);
        assert_eq!(planned(49, Some(&tail), Some(&list)), Plan::FromRing);
        assert_eq!(planned(50, Some(&tail), Some(&list)), Plan::AtEnd);
        assert_eq!(planned(51, Some(&tail), Some(&list)), Plan::CheckRange);
        assert_eq!(planned(39, Some(&tail), Some(&list)), Plan::FromOwner);
        assert_eq!(planned(12, Some(&tail), Some(&list)), Plan::FromSegment(segment(10, Some((20, true)))));
    }

    #[test]
    fn what_old_records_say_of_a_segments_absence_is_not_believed() {
        let old = list(6);
        assert_eq!(planned(9, None, Some(&old)), Plan::LoadSegments);
        assert_eq!(planned(25, None, Some(&old)), Plan::LoadSegments);
        // A closed segment stays what it is.
        assert_eq!(planned(15, None, Some(&old)), Plan::FromSegment(segment(10, Some((20, true)))));
    }
}
