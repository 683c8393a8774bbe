//! Where the log starts: moved up by users who delete records and by retention.
//!
//! One command moves it and drops a bounded number of segments; it is sent again while segments are left that can go.
//! A segment that is being closed or compacted stays until that is done, and so does the last closed one before those.

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{PartitionCommandKind, PartitionView, SegmentRecord};
use bmq_proto::{ErrorCode, Offset, ServiceError};
use bmq_storage::segment::FIRST_BATCH_POSITION;

use super::serve::Serving;
use super::{Action, Machine, Now, Phase};
use crate::append::{ReplyToken, not_owner};
use crate::config::{LogRules, PartitionConfig};

/// Most wishes to delete records that may wait for the metadata service.
const MAX_WAITING: usize = 256;

/// A log start that is to move, and who waits for it.
#[derive(Debug)]
pub(super) struct LogStartMove {
    /// Where it shall be; never below where it is.
    wanted: Offset,
    waiting: Vec<(ReplyToken, Offset)>,
    retention_checked: Monotonic,
}

impl LogStartMove {
    pub fn new(log_start: Offset, now: Now) -> Self {
        Self { wanted: log_start, waiting: Vec::new(), retention_checked: now.monotonic }
    }

    /// Tells everybody who waits that nobody knows.
    pub fn give_up(&mut self, out: &mut Vec<Action>) {
        for (token, _) in self.waiting.drain(..) {
            let message = "the partition's owner changed before the log start had moved";
            out.push(Action::RecordsDeleted {
                token,
                result: Err(ServiceError::unknown(ErrorCode::NotOwner, message)),
            });
        }
    }

    fn answer(&mut self, log_start: Offset, out: &mut Vec<Action>) {
        self.waiting.retain(|(token, before)| {
            let moved = *before <= log_start;
            if moved {
                out.push(Action::RecordsDeleted { token: *token, result: Ok(log_start) });
            }
            !moved
        });
    }
}

impl Serving {
    /// Segments that end at or below this offset are needed by nobody: neither one that is being compacted nor one that
    /// is being closed, nor the last closed one before those, from whose index the producers are known if the next
    /// owner has to close them.
    fn drop_below(&self) -> Offset {
        let closing = self.closings.values().map(|closing| closing.segment.base_offset).min();
        let before = self.kept.range(..closing.unwrap_or(Offset(u64::MAX)));
        let newest_closed = before.rev().find(|(_, segment)| segment.is_closed());
        let newest_index = newest_closed.map_or(Offset::ZERO, |(base_offset, _)| *base_offset);
        let compacting = self.compaction.holds_from().unwrap_or(newest_index);
        newest_index.min(compacting).min(self.moving.wanted)
    }

    fn has_droppable(&self) -> bool {
        let limit = self.drop_below();
        self.kept.values().next().is_some_and(|oldest| segment_end(oldest) <= limit)
    }

    pub fn retention_at(&self, config: &PartitionConfig) -> Option<Monotonic> {
        let limited = config.log.retention_age.is_some() || config.log.retention_bytes.is_some();
        (limited && !self.kept.is_empty()).then(|| self.moving.retention_checked + config.retention_interval.0)
    }

    /// Where the log shall start by the topic's rules: after the closed segments that are too old or too many.
    fn retained_from(&self, rules: &LogRules, now: Now) -> Offset {
        let open = self.open.as_ref().map_or(0, |open| open.stable.since(FIRST_BATCH_POSITION));
        let alive = || self.kept.values().filter(|segment| segment_end(segment) > self.log_start);
        let mut bytes = open + alive().map(byte_size).sum::<u64>();
        let mut start = self.log_start;
        for segment in alive() {
            let size = byte_size(segment);
            let old = rules.retention_age.is_some_and(|age| is_older(segment, age.as_millis() as i64, now));
            let many = rules.retention_bytes.is_some_and(|limit| bytes - size >= limit);
            if self.closings.contains_key(&segment.file) || !(old || many) {
                break;
            }
            bytes -= size;
            start = segment_end(segment);
        }
        start
    }
}

impl Machine {
    pub(super) fn take_delete_records(&mut self, token: ReplyToken, before: Offset) {
        let result = match &mut self.phase {
            Phase::Serving(serving) if self.release.is_none() => match serving.take_delete_records(token, before) {
                Some(result) => result,
                None => return self.move_log_start_if_due(),
            },
            _ => Err(not_owner("the partition is not serving on this broker yet, or not any more")),
        };
        self.out.push(Action::RecordsDeleted { token, result });
    }

    /// Sends the command if there is anything for it to do.
    pub(super) fn move_log_start_if_due(&mut self) {
        let Phase::Serving(serving) = &self.phase else { return };
        let due = serving.moving.wanted > serving.log_start || serving.has_droppable();
        if !due || self.commands.has("move_log_start") {
            return;
        }
        let (epoch, log_start, drop_below) = (serving.epoch, serving.moving.wanted, serving.drop_below());
        self.commands.submit(PartitionCommandKind::MoveLogStart { epoch, log_start, drop_below });
    }

    pub(super) fn finish_move_log_start(&mut self, view: &PartitionView, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let left = view.segments.first().map_or(view.head.sealed_end, |first| first.base_offset);
        let later = serving.kept.split_off(&left);
        for dropped in std::mem::replace(&mut serving.kept, later).into_values() {
            serving.garbage.add(dropped.file, now);
        }
        serving.log_start = view.head.log_start;
        self.out.push(Action::Publish(serving.bounds_only()));
        serving.moving.answer(serving.log_start, &mut self.out);
        if serving.log_start == serving.high_watermark {
            // The open file holds nothing that anybody reads: with a successor its elders can go.
            self.take_roll_wish(now);
        }
        self.move_log_start_if_due();
    }

    pub(super) fn apply_retention_if_due(&mut self, now: Now) {
        let config = &self.setup.config;
        let Phase::Serving(serving) = &mut self.phase else { return };
        if serving.retention_at(config).is_none_or(|at| at > now.monotonic) {
            return;
        }
        serving.moving.retention_checked = now.monotonic;
        let start = serving.retained_from(&config.log, now);
        serving.moving.wanted = serving.moving.wanted.max(start);
        self.move_log_start_if_due();
    }
}

impl Serving {
    /// The answer, if it is known at once.
    fn take_delete_records(&mut self, token: ReplyToken, before: Offset) -> Option<Result<Offset, ServiceError>> {
        if before > self.high_watermark {
            let message = format!("offset {before} lies above the high watermark {}", self.high_watermark);
            return Some(Err(ServiceError::not_applied(ErrorCode::OutOfRange, message)));
        }
        if before <= self.log_start {
            return Some(Ok(self.log_start));
        }
        if self.moving.waiting.len() == MAX_WAITING {
            let message = "too many deletions of records wait already";
            return Some(Err(ServiceError::not_applied(ErrorCode::Busy, message)));
        }
        self.moving.waiting.push((token, before));
        self.moving.wanted = self.moving.wanted.max(before);
        None
    }
}

pub(super) fn segment_end(segment: &SegmentRecord) -> Offset {
    segment.end().map_or(segment.base_offset, |end| end.offset)
}

pub(super) fn byte_size(segment: &SegmentRecord) -> u64 {
    segment.end().map_or(0, |end| end.position.since(segment.start_position))
}

/// Whether the newest record is older than that; if no record tells a time, whether the segment is.
pub(super) fn is_older(segment: &SegmentRecord, age_ms: i64, now: Now) -> bool {
    let newest_ms = segment.max_timestamp_ms.unwrap_or(segment.sealed_at_ms.max(segment.created_at_ms));
    now.wall.0.saturating_sub(newest_ms) > age_ms
}
