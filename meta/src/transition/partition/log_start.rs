//! Where the log starts: moved up by retention and by users, never back.

use bmq_proto::meta::{GarbageRecord, MAX_DROPPED_SEGMENTS, PartitionHead, SegmentRecord};
use bmq_proto::{ErrorCode, Offset, ServiceError};

use super::super::{mutant, refuse};
use super::{Changes, Transition};

impl Transition<'_> {
    pub(super) fn move_log_start(&self, wanted: Offset, drop_below: Offset) -> Result<Changes, ServiceError> {
        self.check_held()?;
        let head = self.head();
        // What is durable of the open segment only its owner knows.
        if wanted > head.sealed_end && head.open.is_none() {
            let message = format!("the log cannot start at {wanted}: it ends at {}", head.sealed_end);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        let log_start = head.log_start.max(wanted);
        let mut changes = Changes::default();
        let stays = |segment: &&SegmentRecord| !self.may_drop(segment, log_start.min(drop_below));
        let first = self.records.segments.values().find(stays).map_or(head.sealed_end, |first| first.base_offset);
        for segment in self.records.segments.range(..first).map(|(_, segment)| segment).take(MAX_DROPPED_SEGMENTS) {
            let file = segment.file;
            changes.segments.insert(segment.base_offset, None);
            changes.garbage.insert(file, Some(GarbageRecord { file, dropped_at_ms: self.now_ms }));
        }
        if log_start > head.log_start {
            changes.head = Some(PartitionHead { log_start, ..head.clone() });
        }
        Ok(changes)
    }

    /// Whether a segment lies wholly below `limit`, and the next owner does not need it: the newest index is read.
    fn may_drop(&self, segment: &SegmentRecord, limit: Offset) -> bool {
        let below = |end: Offset| end <= limit || mutant::drops_above_log_start();
        segment.end().is_some_and(|end| below(end.offset) && end.offset < self.head().sealed_end)
    }
}
