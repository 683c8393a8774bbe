//! When to compact, and what of it becomes of the records in metadata.
//!
//! The work on files runs beside everything else. What comes back is swapped in by one command for each new file, from
//! the oldest on. Segments that are being compacted stay on record until then.

use std::collections::VecDeque;
use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{PartitionCommandKind, PartitionView, SegmentRecord};
use bmq_proto::{FileId, Offset};
use bmq_storage::segment::FIRST_BATCH_POSITION;

use super::log_start::{byte_size, is_older, segment_end};
use super::serve::Serving;
use super::{Action, Machine, Now, Phase, StoreFault};
use crate::compaction::{CompactionReport, CompactionRequest, Replacement};
use crate::config::{CompactionRules, PartitionConfig};

/// After failures compaction is tried again, at the latest after so many doublings of its interval.
const MAX_DOUBLINGS: u32 = 8;

/// One partition's compaction.
#[derive(Debug)]
pub(super) struct Compaction {
    checked: Monotonic,
    /// In a row; each doubles the wait for the next try.
    failures: u32,
    /// The first offset of what is being compacted.
    from: Option<Offset>,
    /// What is to be swapped in, the oldest first; the command for the first is on its way.
    swaps: VecDeque<Replacement>,
}

impl Compaction {
    pub fn new(now: Now) -> Self {
        Self { checked: now.monotonic, failures: 0, from: None, swaps: VecDeque::new() }
    }

    /// From here on no segment may leave the records.
    pub fn holds_from(&self) -> Option<Offset> {
        self.from
    }
}

impl Serving {
    pub fn compaction_at(&self, config: &PartitionConfig) -> Option<Monotonic> {
        let possible = config.log.compaction.is_some() && !self.kept.is_empty() && self.compaction.from.is_none();
        let wait = config.compaction_interval.0 * 2_u32.pow(self.compaction.failures.min(MAX_DOUBLINGS));
        possible.then(|| self.compaction.checked + wait)
    }

    /// The closed segments to compact now, if that is worth it: from the oldest that is read on, old enough, and enough
    /// of them not compacted yet.
    fn compactable(&self, rules: &CompactionRules, now: Now) -> Option<Vec<SegmentRecord>> {
        let alive = self.kept.values().skip_while(|segment| segment_end(segment) <= self.log_start);
        let lag_ms = millis(rules.min_lag);
        let ready = |segment: &&SegmentRecord| segment.is_closed() && (lag_ms == 0 || is_older(segment, lag_ms, now));
        let segments: Vec<SegmentRecord> = alive.take_while(ready).cloned().collect();
        let dirty = || segments.iter().filter(|segment| !segment.compacted);
        let (dirty_bytes, bytes): (u64, u64) =
            (dirty().map(byte_size).sum(), segments.iter().map(byte_size).sum::<u64>().max(1));
        let enough = dirty_bytes.saturating_mul(1000) / bytes >= u64::from(rules.min_dirty_per_mille);
        let overdue = dirty().any(|segment| is_older(segment, millis(rules.max_lag), now));
        (dirty_bytes > 0 && (enough || overdue)).then_some(segments)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Machine {
    pub(super) fn compact_if_due(&mut self, now: Now) {
        let config = &self.setup.config;
        let Phase::Serving(serving) = &mut self.phase else { return };
        if self.release.is_some() || serving.compaction_at(config).is_none_or(|at| at > now.monotonic) {
            return;
        }
        serving.compaction.checked = now.monotonic;
        let Some(rules) = config.log.compaction else { return };
        let Some(segments) = serving.compactable(&rules, now) else { return };
        serving.compaction.from = segments.first().map(|first| first.base_offset);
        let epoch = serving.epoch;
        let files = segments.iter().map(|_| FileId { epoch, nonce: self.nonces.next() }).collect();
        self.out.push(Action::Compact(CompactionRequest {
            segments,
            files,
            log_start: serving.log_start,
            delete_retention: rules.delete_retention,
            now_ms: now.wall.0,
            max_file_bytes: config.segment_bytes.0,
            bytes_per_second: config.compaction_bytes_per_second.0,
        }));
    }

    pub(super) fn finish_compaction(&mut self, report: CompactionReport, now: Now) {
        let CompactionReport { done, discard, fault } = report;
        self.out.extend(discard.into_iter().map(Action::Discard));
        let leaving = self.release.is_some();
        let serving = match &mut self.phase {
            Phase::Serving(serving) if !leaving => serving,
            // Nobody swaps it in any more.
            _ => return self.out.extend(done.into_iter().map(|made| Action::Discard(made.file))),
        };
        serving.compaction.failures = if fault.is_some() { serving.compaction.failures + 1 } else { 0 };
        if let Some(StoreFault::Damaged(reason)) = fault {
            self.out.push(Action::Alarm(format!("compaction stops: {reason}")));
        }
        serving.compaction.checked = now.monotonic;
        serving.compaction.swaps = done.into();
        self.swap_next();
    }

    fn swap_next(&mut self) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(next) = serving.compaction.swaps.front() else {
            serving.compaction.from = None;
            return self.move_log_start_if_due();
        };
        self.commands.submit(PartitionCommandKind::ReplaceSegments {
            epoch: serving.epoch,
            replaced: next.replaced.clone(),
            file: next.file,
            start_position: FIRST_BATCH_POSITION,
            end_position: next.end_position,
            max_timestamp_ms: next.max_timestamp_ms,
        });
    }

    pub(super) fn finish_replace(&mut self, view: PartitionView, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(swapped) = serving.compaction.swaps.pop_front() else { return };
        for (base_offset, file) in swapped.replaced {
            serving.kept.remove(&base_offset);
            serving.garbage.add(file, now);
        }
        let new = view.segments.into_iter().filter(|segment| segment.file == swapped.file);
        serving.kept.extend(new.map(|segment| (segment.base_offset, segment)));
        self.swap_next();
    }
}
