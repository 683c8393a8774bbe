//! The commands that change one partition's records. All follow one rule: compare the head, change, bump its version.

use super::{Checkpoint, Owner, PartitionHead, SegmentRecord};
use crate::{BytePosition, Epoch, FileId, Offset, TopicPartition};

/// Most segments that one command drops or replaces: a transaction of a metadata store is bounded.
pub const MAX_DROPPED_SEGMENTS: usize = 32;

/// Where a sealed segment ends: both values are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    pub offset: Offset,
    pub position: BytePosition,
}

/// One change of one partition's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionCommand {
    pub partition: TopicPartition,
    /// Random; the same for each try of the same command, new for each new one.
    pub nonce: u64,
    /// The sender's wall clock, milliseconds since 1970, for the records that tell a time.
    pub now_ms: i64,
    pub kind: PartitionCommandKind,
}

/// What to change. Every kind but `Claim` names the epoch it acts under and is refused with `Fenced` if the head has
/// another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionCommandKind {
    /// Take the partition under the next epoch. The intent must name the node; otherwise `NotOwner`.
    Claim { owner: Owner },
    /// Record how many bytes of the open file the store knew to be covered when it was fenced. Never lowers one.
    RecordFloor { epoch: Epoch, file: FileId, floor: BytePosition },
    /// End recovery: seal the open segment that was found, if any, at `end` (an empty one becomes garbage), start the
    /// epoch in the chain at `start`, and mark the head recovered.
    FinishRecovery { epoch: Epoch, found: Option<(FileId, SegmentEnd)>, start: Offset },
    /// Register a new open segment, sealing the open one at `seal` in the same transaction (an empty one becomes
    /// garbage). `seal` is given exactly if a segment is open.
    OpenSegment {
        epoch: Epoch,
        file: FileId,
        start_position: BytePosition,
        base_offset: Offset,
        seal: Option<SegmentEnd>,
    },
    /// Seal the open segment without a successor (idleness, release).
    SealSegment { epoch: Epoch, file: FileId, end: SegmentEnd },
    /// A sealed segment's file is closed, covers its end, and its index is written, which says the highest timestamp.
    CloseSegment { epoch: Epoch, base_offset: Offset, file: FileId, max_timestamp_ms: Option<i64> },
    /// Nobody reads below `log_start` any more. Sealed segments that end at or below both it and `drop_below` become
    /// garbage, the oldest first and at most [`MAX_DROPPED_SEGMENTS`] of them. With `drop_below` the owner keeps what
    /// it is at work on, and the segment with the newest index, from which the next owner knows the producers.
    MoveLogStart { epoch: Epoch, log_start: Offset, drop_below: Offset },
    /// Put one segment, written by compaction and closed, in the place of closed ones that follow each other: it takes
    /// over their range of offsets, and their files become garbage. At most [`MAX_DROPPED_SEGMENTS`] are replaced.
    ReplaceSegments {
        epoch: Epoch,
        replaced: Vec<(Offset, FileId)>,
        file: FileId,
        start_position: BytePosition,
        end_position: BytePosition,
        max_timestamp_ms: Option<i64>,
    },
    /// Move the checkpoint forward; one that would go back changes nothing. Changes neither head nor its version.
    Checkpoint { checkpoint: Checkpoint },
    /// Give the partition up. Nothing may be open.
    Release { epoch: Epoch },
    /// A garbage file was deleted from the store; forget it.
    ForgetGarbage { epoch: Epoch, file: FileId },
}

impl PartitionCommandKind {
    /// The epoch under which the command acts; `None` for a claim, which makes one.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            PartitionCommandKind::Claim { .. } => None,
            PartitionCommandKind::Checkpoint { checkpoint } => Some(checkpoint.epoch),
            PartitionCommandKind::RecordFloor { epoch, .. }
            | PartitionCommandKind::FinishRecovery { epoch, .. }
            | PartitionCommandKind::OpenSegment { epoch, .. }
            | PartitionCommandKind::SealSegment { epoch, .. }
            | PartitionCommandKind::CloseSegment { epoch, .. }
            | PartitionCommandKind::MoveLogStart { epoch, .. }
            | PartitionCommandKind::ReplaceSegments { epoch, .. }
            | PartitionCommandKind::Release { epoch }
            | PartitionCommandKind::ForgetGarbage { epoch, .. } => Some(*epoch),
        }
    }

    /// The name used in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            PartitionCommandKind::Claim { .. } => "claim",
            PartitionCommandKind::RecordFloor { .. } => "record_floor",
            PartitionCommandKind::FinishRecovery { .. } => "finish_recovery",
            PartitionCommandKind::OpenSegment { .. } => "open_segment",
            PartitionCommandKind::SealSegment { .. } => "seal_segment",
            PartitionCommandKind::CloseSegment { .. } => "close_segment",
            PartitionCommandKind::MoveLogStart { .. } => "move_log_start",
            PartitionCommandKind::ReplaceSegments { .. } => "replace_segments",
            PartitionCommandKind::Checkpoint { .. } => "checkpoint",
            PartitionCommandKind::Release { .. } => "release",
            PartitionCommandKind::ForgetGarbage { .. } => "forget_garbage",
        }
    }
}

/// One partition's records at one revision.
///
/// The answer to a claim holds every segment, ordered by offset, and the checkpoint. The answer to a move of the log
/// start holds the head and the first segment that is left, if any. The answer to any other command holds only the
/// head, and the segments that the command changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionView {
    pub head: PartitionHead,
    pub segments: Vec<SegmentRecord>,
    pub checkpoint: Option<Checkpoint>,
}
