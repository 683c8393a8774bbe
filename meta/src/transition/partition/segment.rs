//! A segment's life: OPEN, SEALED, CLOSED, or garbage if its range is empty.

use bmq_proto::meta::{GarbageRecord, PartitionHead, SegmentEnd, SegmentRecord, SegmentState};
use bmq_proto::{BytePosition, Epoch, ErrorCode, FileId, Offset, ServiceError};

use super::super::refuse;
use super::{Changes, Transition};

/// The segment that shall be open from now on.
pub(super) struct NewSegment {
    pub epoch: Epoch,
    pub file: FileId,
    pub start_position: BytePosition,
    pub base_offset: Offset,
}

impl Transition<'_> {
    pub(super) fn open_segment(&self, new: NewSegment, seal: Option<SegmentEnd>) -> Result<Changes, ServiceError> {
        self.check_held()?;
        let head = self.head();
        let registered = self.records.segments.get(&new.base_offset);
        if registered.is_some_and(|segment| segment.file == new.file && segment.epoch == new.epoch) {
            return Ok(Changes::default());
        }
        if !head.recovered {
            return refuse(ErrorCode::Conflict, format!("epoch {} is not recovered yet", head.epoch));
        }
        if new.file.epoch != new.epoch {
            let message = format!("{} was not created under epoch {}", new.file, new.epoch);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if self.records.garbage.contains_key(&new.file) {
            return refuse(ErrorCode::Conflict, format!("{} is garbage, about to be deleted", new.file));
        }
        let mut changes = match (head.open, seal) {
            (None, None) => Changes::default(),
            (Some(open), Some(end)) if open != new.file => self.seal(open, end)?,
            (Some(open), Some(_)) => return refuse(ErrorCode::Conflict, format!("{open} is open already")),
            (Some(open), None) => return refuse(ErrorCode::Conflict, format!("{open} is open and has no end given")),
            (None, Some(_)) => return refuse(ErrorCode::Conflict, "an end is given, but no segment is open"),
        };
        let mut after = changes.head.take().unwrap_or_else(|| head.clone());
        if new.base_offset != after.sealed_end {
            let message =
                format!("{} cannot start at {}: the log ends at {}", new.file, new.base_offset, after.sealed_end);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        after.open = Some(new.file);
        changes.head = Some(after);
        let record = SegmentRecord {
            file: new.file,
            epoch: new.epoch,
            base_offset: new.base_offset,
            start_position: new.start_position,
            state: SegmentState::Open,
            floor: None,
            created_at_ms: self.now_ms,
            sealed_at_ms: 0,
            max_timestamp_ms: None,
            compacted: false,
        };
        changes.segments.insert(new.base_offset, Some(record));
        Ok(changes)
    }

    pub(super) fn seal_segment(&self, file: FileId, end: SegmentEnd) -> Result<Changes, ServiceError> {
        self.check_held()?;
        let sealed_before = self.records.segments.values().any(|it| it.file == file && it.end() == Some(end));
        if sealed_before || self.records.garbage.contains_key(&file) {
            return Ok(Changes::default());
        }
        self.seal(file, end)
    }

    pub(super) fn close_segment(
        &self,
        base_offset: Offset,
        file: FileId,
        max_timestamp_ms: Option<i64>,
    ) -> Result<Changes, ServiceError> {
        let Some(segment) = self.records.segments.get(&base_offset).filter(|segment| segment.file == file) else {
            return refuse(ErrorCode::Conflict, format!("no segment of {file} starts at {base_offset}"));
        };
        let mut changes = Changes::default();
        match segment.state {
            SegmentState::Open => return refuse(ErrorCode::Conflict, format!("{file} is not sealed yet")),
            SegmentState::Closed { .. } => {}
            SegmentState::Sealed { end } => {
                let closed = SegmentRecord { state: SegmentState::Closed { end }, max_timestamp_ms, ..segment.clone() };
                changes.segments.insert(base_offset, Some(closed));
            }
        }
        Ok(changes)
    }

    /// Fixes the end of the open segment, which must be `file`. An empty range is never sealed: it becomes garbage.
    pub(super) fn seal(&self, file: FileId, end: SegmentEnd) -> Result<Changes, ServiceError> {
        let Some(open) = self.records.open_segment().filter(|open| open.file == file) else {
            return refuse(ErrorCode::Conflict, format!("{file} is not the open segment"));
        };
        let empty = end.offset == open.base_offset;
        if end.offset < open.base_offset || end.position < open.start_position {
            let start = (open.base_offset, open.start_position);
            let message = format!("{file} starts at {start:?} and cannot end at ({}, {})", end.offset, end.position);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if end.offset < self.head().log_start {
            let message = format!("{file} cannot end at {}: the log starts at {}", end.offset, self.head().log_start);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if !empty && end.position == open.start_position {
            return refuse(ErrorCode::InvalidArgument, format!("{file} cannot hold offsets in no bytes"));
        }
        let head = PartitionHead { open: None, sealed_end: end.offset, ..self.head().clone() };
        let mut changes = Changes { head: Some(head), ..Changes::default() };
        if empty {
            changes.segments.insert(open.base_offset, None);
            changes.garbage.insert(file, Some(GarbageRecord { file, dropped_at_ms: self.now_ms }));
        } else {
            let sealed =
                SegmentRecord { state: SegmentState::Sealed { end }, sealed_at_ms: self.now_ms, ..open.clone() };
            changes.segments.insert(open.base_offset, Some(sealed));
        }
        Ok(changes)
    }
}
