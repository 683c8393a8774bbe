//! Sealed segments on their way to CLOSED, in the background: the file is closed, covers its end, has its index.

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_proto::meta::{PartitionCommandKind, SegmentRecord, SegmentState};
use bmq_proto::{FileId, Offset};

use super::event::IndexBytes;
use super::serve::Serving;
use super::{Action, Machine, Now, Phase, ScanReport, StoreFault};

/// Between two tries to close a file.
const CLOSE_RETRY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Closing {
    pub segment: SegmentRecord,
    /// `None` if it has to be made from the file.
    index: Option<IndexBytes>,
    begun: bool,
}

impl Closing {
    pub fn new(segment: SegmentRecord, index: Option<IndexBytes>) -> Self {
        Self { segment, index, begun: false }
    }
}

impl Serving {
    /// What has a closing's file closed. Segments before it are needed only to make an index from scratch.
    fn close_action(closing: &Closing, kept: &BTreeMap<Offset, SegmentRecord>) -> Action {
        let earlier = match closing.index {
            Some(_) => Vec::new(),
            None => kept.range(..closing.segment.base_offset).map(|(_, segment)| segment.clone()).collect(),
        };
        Action::CloseFile { segment: closing.segment.clone(), index: closing.index.clone(), earlier }
    }

    /// Takes over what older owners left sealed, and what recovery itself has just sealed. Returns the sealed segments
    /// that cannot be read.
    pub fn take_over(
        &mut self,
        segments: Vec<SegmentRecord>,
        report: &ScanReport,
        failed: impl Fn(&FileId) -> bool,
        now: Now,
    ) -> Vec<SegmentRecord> {
        let mut unreadable = Vec::new();
        let damaged = |file: &FileId| report.damaged.iter().any(|(damaged, _)| damaged == file);
        for mut segment in segments {
            if let Some(open) = report.open.as_ref().filter(|open| open.file == segment.file) {
                segment.state = SegmentState::Sealed { end: open.end };
                segment.sealed_at_ms = now.wall.0;
            }
            // One that was found empty is no segment any more.
            if segment.end().is_none_or(|end| end.offset == segment.base_offset) {
                continue;
            }
            if failed(&segment.file) || damaged(&segment.file) {
                unreadable.push(segment.clone());
            } else if !segment.is_closed() {
                let index = report.indexes.iter().find(|(file, _)| *file == segment.file);
                let index = index.map(|(_, index)| index.clone());
                self.closings.insert(segment.file, Closing::new(segment.clone(), index));
            }
            self.kept.insert(segment.base_offset, segment);
        }
        unreadable
    }
}

impl Machine {
    /// Starts on every segment that waits to be closed.
    pub(super) fn begin_closing(&mut self, _now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        for closing in serving.closings.values_mut().filter(|closing| !closing.begun) {
            closing.begun = true;
            self.out.push(Serving::close_action(closing, &serving.kept));
        }
    }

    pub(super) fn finish_close(&mut self, file: FileId, result: Result<Option<i64>, StoreFault>, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(closing) = serving.closings.get(&file) else { return };
        match result {
            Ok(max_timestamp_ms) => {
                let (epoch, base_offset) = (serving.epoch, closing.segment.base_offset);
                let command = PartitionCommandKind::CloseSegment { epoch, base_offset, file, max_timestamp_ms };
                self.commands.submit(command);
            }
            Err(StoreFault::NotClosed | StoreFault::NoSpace(_) | StoreFault::Failed(_)) => {
                let again = Serving::close_action(closing, &serving.kept);
                self.later(CLOSE_RETRY, again, now);
            }
            Err(fault @ (StoreFault::NotFound | StoreFault::Damaged(_))) => {
                let segment = closing.segment.clone();
                serving.closings.remove(&file);
                let reason = format!("sealed file {file} cannot be closed, its range cannot be read: {fault:?}");
                self.out.push(Action::Alarm(reason));
                self.out.extend(damaged_range(&segment));
            }
        }
    }

    pub(super) fn finish_close_command(&mut self, base_offset: Offset, file: FileId, max_timestamp_ms: Option<i64>) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        serving.closings.remove(&file);
        if let Some(segment) = serving.kept.get_mut(&base_offset)
            && let Some(end) = segment.end()
        {
            segment.state = SegmentState::Closed { end };
            segment.max_timestamp_ms = max_timestamp_ms;
        }
        self.out.push(Action::Closed { file });
        self.move_log_start_if_due();
    }
}

/// Has readers of a sealed segment told that they wait in vain.
pub(super) fn damaged_range(segment: &SegmentRecord) -> Option<Action> {
    let end = segment.end()?;
    Some(Action::DamagedRange { file: segment.file, range: segment.base_offset..end.offset })
}
