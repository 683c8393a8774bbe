//! What each command does to one partition's records.
//!
//! Invariants, kept by every command that is applied:
//! ```text
//!   first segment ≤ log_start   … sealed segments, without gap or overlap … ≤ sealed_end
//!                                                                           └─ open segment, if `head.open` names one
//! ```
//! * what lies below the log start is read by nobody, and its segments go when the owner can spare them, the newest
//!   sealed one excepted, which tells the next owner of the producers;
//! * at most one segment is open: the last one, the one that `head.open` names;
//! * a sealed end never changes, and a sealed range is never empty;
//! * the epoch grows with each claim, and no command of another epoch than the head's changes anything;
//! * the head's version grows with every change, checkpoints excepted.
//!
//! A command may arrive twice, also after others: whatever it asks for that already is so is answered with the present
//! records and changes nothing. The nonce catches the plain repeat, the content (file names are never used twice) the
//! repeat that others overtook.

mod claim;
mod log_start;
mod replace;
mod segment;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bmq_proto::meta::{
    Checkpoint, GarbageRecord, Intent, MAX_DROPPED_SEGMENTS, PartitionCommand, PartitionCommandKind, PartitionHead,
    PartitionView, SegmentRecord,
};
use bmq_proto::{Epoch, ErrorCode, FileId, Offset, ServiceError};

use super::{mutant, refuse};

/// One partition's records, or those of them that a command needs (see [`apply`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionRecords {
    pub head: PartitionHead,
    pub segments: BTreeMap<Offset, SegmentRecord>,
    pub checkpoint: Option<Checkpoint>,
    pub garbage: BTreeMap<FileId, GarbageRecord>,
}

/// What a command changes: records to write, or `None` to remove. Empty if there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub head: Option<PartitionHead>,
    pub segments: BTreeMap<Offset, Option<SegmentRecord>>,
    pub checkpoint: Option<Checkpoint>,
    pub garbage: BTreeMap<FileId, Option<GarbageRecord>>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

impl PartitionRecords {
    /// The records after `changes`.
    pub fn absorb(&mut self, changes: Changes) {
        if let Some(head) = changes.head {
            self.head = head;
        }
        if changes.checkpoint.is_some() {
            self.checkpoint = changes.checkpoint;
        }
        for (base_offset, segment) in changes.segments {
            match segment {
                Some(segment) => self.segments.insert(base_offset, segment),
                None => self.segments.remove(&base_offset),
            };
        }
        for (file, garbage) in changes.garbage {
            match garbage {
                Some(garbage) => self.garbage.insert(file, garbage),
                None => self.garbage.remove(&file),
            };
        }
    }

    fn open_segment(&self) -> Option<&SegmentRecord> {
        let file = self.head.open?;
        self.segments.get(&self.head.sealed_end).filter(|segment| segment.file == file)
    }
}

/// Which records, besides the head and the open segment, [`apply`] and [`answer`] look at. More do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    pub intent: bool,
    pub checkpoint: bool,
    pub garbage: Option<FileId>,
    pub segments: NeededSegments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NeededSegments {
    #[default]
    None,
    All,
    /// The one that starts there, if any.
    At(Offset),
    /// The last two that start at or below.
    LastUpTo(Offset),
    /// So many from the oldest on.
    First(usize),
    /// Those that start from the first to the second, both included.
    Between(Offset, Offset),
}

/// What must be read for a command.
pub fn needs(command: &PartitionCommandKind) -> Needs {
    let segments = |segments| Needs { segments, ..Needs::default() };
    match command {
        PartitionCommandKind::Claim { .. } => {
            Needs { intent: true, checkpoint: true, garbage: None, segments: NeededSegments::All }
        }
        PartitionCommandKind::RecordFloor { .. } | PartitionCommandKind::Release { .. } => Needs::default(),
        PartitionCommandKind::FinishRecovery { start, .. } => segments(NeededSegments::LastUpTo(*start)),
        PartitionCommandKind::OpenSegment { file, base_offset, .. } => {
            Needs { garbage: Some(*file), ..segments(NeededSegments::LastUpTo(*base_offset)) }
        }
        PartitionCommandKind::SealSegment { file, end, .. } => {
            Needs { garbage: Some(*file), ..segments(NeededSegments::LastUpTo(end.offset)) }
        }
        PartitionCommandKind::CloseSegment { base_offset, .. } => segments(NeededSegments::At(*base_offset)),
        // One more than is dropped: the first that is left.
        PartitionCommandKind::MoveLogStart { .. } => segments(NeededSegments::First(MAX_DROPPED_SEGMENTS + 1)),
        PartitionCommandKind::ReplaceSegments { replaced, file, .. } => {
            let (first, last) = (replaced.first(), replaced.last());
            let between = first.zip(last).map(|(first, last)| NeededSegments::Between(first.0, last.0));
            Needs { garbage: Some(*file), ..segments(between.unwrap_or_default()) }
        }
        PartitionCommandKind::Checkpoint { .. } => Needs { checkpoint: true, ..Needs::default() },
        PartitionCommandKind::ForgetGarbage { file, .. } => Needs { garbage: Some(*file), ..Needs::default() },
    }
}

/// What `command` changes; `records` hold at least the head, the open segment, and what [`needs`] names.
pub fn apply(
    records: &PartitionRecords,
    intent: Option<&Intent>,
    command: &PartitionCommand,
) -> Result<Changes, ServiceError> {
    if command.nonce == 0 {
        return refuse(ErrorCode::InvalidArgument, "a command's nonce must not be 0");
    }
    if command.nonce == records.head.last_nonce {
        return Ok(Changes::default());
    }
    check_epoch(&records.head, &command.kind)?;
    let transition = Transition { records, now_ms: command.now_ms };
    let mut changes = match &command.kind {
        PartitionCommandKind::Claim { owner } => transition.claim(intent, *owner),
        PartitionCommandKind::RecordFloor { file, floor, .. } => transition.record_floor(*file, *floor),
        PartitionCommandKind::FinishRecovery { found, start, .. } => transition.finish_recovery(*found, *start),
        PartitionCommandKind::OpenSegment { epoch, file, start_position, base_offset, seal } => {
            let new = segment::NewSegment {
                epoch: *epoch,
                file: *file,
                start_position: *start_position,
                base_offset: *base_offset,
            };
            transition.open_segment(new, *seal)
        }
        PartitionCommandKind::SealSegment { file, end, .. } => transition.seal_segment(*file, *end),
        PartitionCommandKind::CloseSegment { base_offset, file, max_timestamp_ms, .. } => {
            transition.close_segment(*base_offset, *file, *max_timestamp_ms)
        }
        PartitionCommandKind::MoveLogStart { log_start, drop_below, .. } => {
            transition.move_log_start(*log_start, *drop_below)
        }
        PartitionCommandKind::ReplaceSegments {
            epoch,
            replaced,
            file,
            start_position,
            end_position,
            max_timestamp_ms,
        } => {
            let new = replace::Compacted {
                epoch: *epoch,
                file: *file,
                start_position: *start_position,
                end_position: *end_position,
                max_timestamp_ms: *max_timestamp_ms,
            };
            transition.replace_segments(replaced, new)
        }
        PartitionCommandKind::Checkpoint { checkpoint } => transition.checkpoint(*checkpoint),
        PartitionCommandKind::Release { .. } => transition.release(),
        PartitionCommandKind::ForgetGarbage { file, .. } => transition.forget_garbage(*file),
    }?;
    // A checkpoint alone leaves the head as it is; every other change is one that others must notice.
    if !changes.is_empty() && !matches!(command.kind, PartitionCommandKind::Checkpoint { .. }) {
        let head = changes.head.get_or_insert_with(|| records.head.clone());
        head.version = records.head.version + 1;
        head.last_nonce = command.nonce;
    }
    Ok(changes)
}

/// The answer to a command that was applied, now or before; `records` are those after it.
pub fn answer(records: &PartitionRecords, command: &PartitionCommand) -> PartitionView {
    let head = records.head.clone();
    let mut segments: Vec<_> = records.segments.values().cloned().collect();
    match &command.kind {
        PartitionCommandKind::Claim { .. } => {
            return PartitionView { head, segments, checkpoint: records.checkpoint };
        }
        PartitionCommandKind::RecordFloor { file, .. }
        | PartitionCommandKind::SealSegment { file, .. }
        | PartitionCommandKind::ReplaceSegments { file, .. }
        | PartitionCommandKind::CloseSegment { file, .. } => segments.retain(|segment| segment.file == *file),
        PartitionCommandKind::FinishRecovery { found, .. } => {
            segments.retain(|segment| found.is_some_and(|(file, _)| file == segment.file));
        }
        PartitionCommandKind::OpenSegment { file, base_offset, seal, .. } => segments.retain(|segment| {
            let sealed_now = seal.is_some() && segment.end().is_some_and(|end| end.offset == *base_offset);
            segment.file == *file || sealed_now
        }),
        PartitionCommandKind::MoveLogStart { .. } => segments.truncate(1),
        PartitionCommandKind::Checkpoint { .. }
        | PartitionCommandKind::Release { .. }
        | PartitionCommandKind::ForgetGarbage { .. } => segments.clear(),
    }
    PartitionView { head, segments, checkpoint: None }
}

/// Safety rule 3: after a claim no command of an older epoch succeeds.
fn check_epoch(head: &PartitionHead, command: &PartitionCommandKind) -> Result<(), ServiceError> {
    let Some(epoch) = command.epoch() else { return Ok(()) };
    if epoch == Epoch::NONE {
        return refuse(ErrorCode::InvalidArgument, "epoch 0 is that of a partition that was never claimed");
    }
    if epoch == head.epoch || mutant::drops_epoch_compare(command.name()) {
        return Ok(());
    }
    let message = format!("{} of epoch {epoch}, but the partition is at epoch {}", command.name(), head.epoch);
    refuse(ErrorCode::Fenced, message)
}

/// One command's view of the records before it.
struct Transition<'a> {
    records: &'a PartitionRecords,
    now_ms: i64,
}

impl Transition<'_> {
    fn head(&self) -> &PartitionHead {
        &self.records.head
    }

    fn checkpoint(&self, checkpoint: Checkpoint) -> Result<Changes, ServiceError> {
        let place = |checkpoint: &Checkpoint| (checkpoint.offset, checkpoint.epoch);
        let grows = self.records.checkpoint.as_ref().is_none_or(|present| place(present) < place(&checkpoint));
        Ok(Changes { checkpoint: grows.then_some(checkpoint), ..Changes::default() })
    }

    fn forget_garbage(&self, file: FileId) -> Result<Changes, ServiceError> {
        let mut changes = Changes::default();
        if self.records.garbage.contains_key(&file) {
            changes.garbage.insert(file, None);
        }
        Ok(changes)
    }

    /// Only the holder of a claim that was not released may change what is open.
    fn check_held(&self) -> Result<(), ServiceError> {
        match self.head().owner {
            Some(_) => Ok(()),
            None => refuse(ErrorCode::NotOwner, format!("epoch {} was released", self.head().epoch)),
        }
    }
}
