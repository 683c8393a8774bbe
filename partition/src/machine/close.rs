//! Sealed segments on their way to CLOSED, in the background: the file is closed, covers its end, has its index.

use std::time::Duration;

use bmq_proto::FileId;
use bmq_proto::meta::{PartitionCommandKind, SegmentRecord};

use super::event::IndexBytes;
use super::serve::Serving;
use super::{Action, Machine, Now, Phase, ScanReport, StoreFault};

/// Between two tries to close a file.
const CLOSE_RETRY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Closing {
    segment: SegmentRecord,
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
    fn close_action(closing: &Closing, earlier: &[SegmentRecord]) -> Action {
        let before = |earlier: &&SegmentRecord| earlier.base_offset < closing.segment.base_offset;
        let earlier = match closing.index {
            Some(_) => Vec::new(),
            None => earlier.iter().filter(before).cloned().collect(),
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
    ) -> Vec<SegmentRecord> {
        let mut unreadable = Vec::new();
        let damaged = |file: &FileId| report.damaged.iter().any(|(damaged, _)| damaged == file);
        for mut segment in segments {
            if let Some(open) = report.open.as_ref().filter(|open| open.file == segment.file) {
                segment.state = bmq_proto::meta::SegmentState::Sealed { end: open.end };
            }
            let empty = segment.end().is_none_or(|end| end.offset == segment.base_offset);
            if segment.end().is_some() && (failed(&segment.file) || damaged(&segment.file)) {
                unreadable.push(segment.clone());
            } else if !segment.is_closed() && !empty {
                let index = report.indexes.iter().find(|(file, _)| *file == segment.file);
                let index = index.map(|(_, index)| index.clone());
                self.closings.insert(segment.file, Closing::new(segment.clone(), index));
            }
            self.earlier.push(segment);
        }
        if self.producers_are_complete && self.closings.values().all(|closing| closing.index.is_some()) {
            self.earlier.clear();
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
            self.out.push(Serving::close_action(closing, &serving.earlier));
        }
    }

    pub(super) fn finish_close(&mut self, file: FileId, result: Result<(), StoreFault>, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(closing) = serving.closings.get(&file) else { return };
        match result {
            Ok(()) => {
                let (epoch, base_offset) = (serving.epoch, closing.segment.base_offset);
                self.commands.submit(PartitionCommandKind::CloseSegment { epoch, base_offset, file });
            }
            Err(StoreFault::NotClosed | StoreFault::NoSpace(_) | StoreFault::Failed(_)) => {
                let again = Serving::close_action(closing, &serving.earlier);
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

    pub(super) fn finish_close_command(&mut self, file: FileId) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        serving.closings.remove(&file);
        self.out.push(Action::Closed { file });
    }
}

/// Has readers of a sealed segment told that they wait in vain.
pub(super) fn damaged_range(segment: &SegmentRecord) -> Option<Action> {
    let end = segment.end()?;
    Some(Action::DamagedRange { file: segment.file, range: segment.base_offset..end.offset })
}
