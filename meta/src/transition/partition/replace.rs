//! Compaction's swap: one closed segment takes the place of others.

use bmq_proto::meta::{GarbageRecord, MAX_DROPPED_SEGMENTS, SegmentEnd, SegmentRecord, SegmentState};
use bmq_proto::{BytePosition, Epoch, ErrorCode, FileId, Offset, ServiceError};

use super::super::refuse;
use super::{Changes, Transition};

/// The segment that compaction wrote.
pub(super) struct Compacted {
    pub epoch: Epoch,
    pub file: FileId,
    pub start_position: BytePosition,
    pub end_position: BytePosition,
    pub max_timestamp_ms: Option<i64>,
}

impl Transition<'_> {
    pub(super) fn replace_segments(
        &self,
        replaced: &[(Offset, FileId)],
        new: Compacted,
    ) -> Result<Changes, ServiceError> {
        self.check_held()?;
        let Some((base_offset, _)) = replaced.first().copied().filter(|_| replaced.len() <= MAX_DROPPED_SEGMENTS)
        else {
            let message = format!("{} segments to replace, of 1 to {MAX_DROPPED_SEGMENTS}", replaced.len());
            return refuse(ErrorCode::InvalidArgument, message);
        };
        if self.records.segments.get(&base_offset).is_some_and(|segment| segment.file == new.file) {
            return Ok(Changes::default());
        }
        if new.file.epoch != new.epoch || new.end_position < new.start_position {
            let message = format!("{} is not a file that epoch {} compacted", new.file, new.epoch);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if self.records.garbage.contains_key(&new.file) {
            return refuse(ErrorCode::Conflict, format!("{} is garbage, about to be deleted", new.file));
        }
        let mut changes = Changes::default();
        let mut next = base_offset;
        let mut sealed_at_ms = 0;
        for (base_offset, file) in replaced {
            let record = self.records.segments.get(base_offset).filter(|segment| segment.file == *file);
            let closed = record.filter(|segment| segment.is_closed() && *base_offset == next);
            let Some((segment, end)) = closed.and_then(|segment| Some((segment, segment.end()?))) else {
                return refuse(ErrorCode::Conflict, format!("{file} is not the closed segment at {base_offset}"));
            };
            next = end.offset;
            sealed_at_ms = segment.sealed_at_ms.max(sealed_at_ms);
            changes.segments.insert(*base_offset, None);
            changes.garbage.insert(*file, Some(GarbageRecord { file: *file, dropped_at_ms: self.now_ms }));
        }
        let end = SegmentEnd { offset: next, position: new.end_position };
        let record = SegmentRecord {
            file: new.file,
            epoch: new.epoch,
            base_offset,
            start_position: new.start_position,
            state: SegmentState::Closed { end },
            floor: None,
            created_at_ms: self.now_ms,
            sealed_at_ms,
            max_timestamp_ms: new.max_timestamp_ms,
            compacted: true,
        };
        changes.segments.insert(base_offset, Some(record));
        Ok(changes)
    }
}
