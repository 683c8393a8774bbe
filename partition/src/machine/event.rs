//! What happens to a partition, and what it wants done.

use std::ops::Range;
use std::time::Duration;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::broker::PartitionBounds;
use bmq_proto::meta::{GarbageRecord, PartitionCommand, PartitionHead, PartitionView, SegmentEnd, SegmentRecord};
use bmq_proto::{BytePosition, Epoch, ErrorCode, FileId, Offset, ServiceError};
use bmq_storage::ProducerSnapshot;
use bmq_storage::{FenceOutcome, FoundFile, StoreError, WriterProgress};
use bytes::Bytes;

use super::roll::RollCause;
use crate::append::{Append, AppendReply, ReplyToken};
use crate::compaction::{CompactionReport, CompactionRequest};
use crate::config::PartitionConfig;

/// The time, as the driver reads it before each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For every decision.
    pub monotonic: Monotonic,
    /// For records that people read.
    pub wall: WallMillis,
}

/// A store's failure, as far as the machine's decisions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFault {
    NotFound,
    /// Still being recovered: ask again.
    NotClosed,
    /// The file cannot be what the records say it is.
    Damaged(String),
    /// There is no room just now.
    NoSpace(String),
    /// Anything else; may be tried again.
    Failed(String),
}

impl From<StoreError> for StoreFault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => StoreFault::NotFound,
            StoreError::NotClosed { .. } => StoreFault::NotClosed,
            StoreError::Damaged { .. } | StoreError::PastEnd { .. } => StoreFault::Damaged(error.to_string()),
            StoreError::NoSpace { .. } => StoreFault::NoSpace(error.to_string()),
            _ => StoreFault::Failed(error.to_string()),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Claim the partition.
    Start,
    /// The result of [`Action::Command`].
    CommandDone { nonce: u64, result: Result<PartitionView, ServiceError> },
    /// The result of [`Action::ReadHead`].
    HeadRead(Result<PartitionHead, ServiceError>),
    /// The result of [`Action::ListFolder`].
    Listed(Result<Vec<FoundFile>, StoreFault>),
    /// The result of [`Action::Fence`].
    Fenced { file: FileId, result: Result<FenceOutcome, StoreFault> },
    /// The result of [`Action::Recover`]: the file's final length.
    Recovered { file: FileId, result: Result<BytePosition, StoreFault> },
    /// The result of [`Action::Scan`].
    Scanned(Result<ScanReport, StoreFault>),
    /// The result of [`Action::Create`].
    Created { file: FileId, result: Result<(), StoreFault> },
    /// How far a writer has come.
    Progress { file: FileId, progress: WriterProgress },
    /// The result of [`Action::CloseFile`]: the highest timestamp that the index tells, if any record has one.
    FileClosed { file: FileId, result: Result<Option<i64>, StoreFault> },
    /// The result of [`Action::Discard`].
    Discarded { file: FileId, deleted: bool },
    /// The result of [`Action::Compact`].
    Compacted(CompactionReport),
    /// The result of [`Action::ListGarbage`].
    GarbageListed(Result<Vec<GarbageRecord>, ServiceError>),
    /// Batches to append, in order.
    Appends(Vec<Append>),
    /// A reader wants what lies in the open file and cannot be served otherwise.
    RollWanted,
    /// Records below `before` are no longer wanted.
    DeleteRecords { token: ReplyToken, before: Offset },
    /// The settings changed.
    Reconfigure(Box<PartitionConfig>),
    /// A stream between proxy and broker ended.
    StreamGone { stream: u64 },
    /// Give the partition up in good order, waiting at most so long for sealed files to be closed.
    Release { close_wait: Duration },
    /// A deadline has come.
    Tick,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the command to the metadata service.
    Command(PartitionCommand),
    /// Read the head, linearizably.
    ReadHead,
    /// List the partition's folder.
    ListFolder,
    /// Fence a file that an older owner may be writing.
    Fence(FileId),
    /// Have a fenced file closed.
    Recover(FileId),
    /// Read the producers from the newest intact index, and every batch after it.
    Scan(ScanRequest),
    /// Create a file with the right header.
    Create(FileId),
    /// Hand bytes to the file's writer, which the machine knows to be the newest.
    Write { file: FileId, parts: Vec<Bytes> },
    /// Close a sealed segment's file, check that it covers the end, and write its index. Without one, make it from the
    /// file and the `earlier` segments.
    CloseFile { segment: SegmentRecord, index: Option<IndexBytes>, earlier: Vec<SegmentRecord> },
    /// Write segments anew without the records that later ones replace.
    Compact(CompactionRequest),
    /// A file that no record names and none can name any more: abandon and delete it.
    Discard(FileId),
    /// Answer an append.
    Reply { token: ReplyToken, reply: AppendReply },
    /// Answer a wish to delete records: where the log starts now.
    RecordsDeleted { token: ReplyToken, result: Result<Offset, ServiceError> },
    /// Show batches and bounds to readers.
    Publish(Published),
    /// Read the partition's garbage records.
    ListGarbage,
    /// This file can be read from the store by everybody.
    Closed { file: FileId },
    /// These records cannot be read, from whomever.
    DamagedRange { file: FileId, range: Range<Offset> },
    /// For the log: a roll has begun.
    RollBegun(RollCause),
    /// A person must look.
    Alarm(String),
    /// The end. Writers still open are to be closed if the partition was released, else abandoned.
    Stopped(StopReason),
}

/// Batches that the high watermark has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub bounds: PartitionBounds,
    /// The open file and where each batch ends in it; empty when only the bounds moved.
    pub batches: Vec<PublishedBatch>,
}

/// One batch below the high watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedBatch {
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub file: FileId,
    pub position: BytePosition,
    pub max_timestamp_ms: i64,
    pub bytes: Bytes,
}

/// What recovery must read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRequest {
    /// Every segment with a fixed end whose file is closed, oldest first.
    pub sealed: Vec<SegmentRecord>,
    /// The segment that was open, and its file's final length.
    pub open: Option<(SegmentRecord, BytePosition)>,
    /// Count an index that cannot be read as missing.
    pub without_indexes: bool,
}

/// The finished content of an index file.
pub type IndexBytes = Bytes;

/// What the scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanReport {
    /// The producers after the last batch found.
    pub producers: ProducerSnapshot,
    /// A compacted segment had to be read for the producers, and does not hold all that it once told of them.
    pub forgetful: bool,
    /// Sealed segments whose content fails; they stay as they are.
    pub damaged: Vec<(FileId, String)>,
    /// Indexes of the segments read that have none, the open one's included.
    pub indexes: Vec<(FileId, IndexBytes)>,
    pub open: Option<OpenScan>,
}

/// How far the open segment's file is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenScan {
    pub file: FileId,
    pub length: BytePosition,
    /// After the last good batch.
    pub end: SegmentEnd,
    pub stop: ScanStop,
}

/// Why a scan stopped where it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanStop {
    /// At the end of the file.
    Clean,
    /// The file ends inside its own header: nothing was ever written behind it.
    TornHeader,
    /// The header is all there and is wrong. A file is registered only once its header is on its way, so no loss of
    /// power explains that.
    BadHeader(String),
    /// The file ends inside a batch that looks right as far as it goes.
    TornBatch,
    /// A batch fails, and the file does not end inside it.
    BadBatch(String),
}

/// Bytes that should be there and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub epoch: Epoch,
    pub reason: String,
}

impl Damage {
    /// What producers are told.
    pub fn refusal(&self) -> ServiceError {
        let message = format!("the partition refuses writes until an operator accepts the loss: {}", self.reason);
        ServiceError::not_applied(ErrorCode::Damaged, message)
    }
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// As asked.
    Released,
    /// A newer claim exists, or the intent names another.
    Superseded(ServiceError),
    /// A command was refused that should not have been.
    Refused { command: &'static str, error: ServiceError },
    /// Metadata is older than the files: it must be an old copy.
    OldMetadata { file: FileId, known: Epoch },
}
