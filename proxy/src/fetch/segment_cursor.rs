//! A reader's place in one CLOSED segment: finds the offset by the index, then reads on in large pieces.
//!
//! Bounds: pieces that outlive a call, read ahead or left over, count against one budget of all readers; without room
//! there nothing is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_proto::meta::{SegmentEnd, SegmentRecord};
use bmq_proto::{BytePosition, ClusterId, Epoch, Offset, TopicPartition};
use bmq_storage::{FolderPath, SegmentIndex, SegmentPath, SegmentStore, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::ring::Slice;
use super::segment_batches::{Stop, Wanted, take_batches, whole_batches_len};

/// Indexes kept, so that short reads of the same segments need not load them again.
const INDEXES: usize = 64;

/// What all cursors share.
pub struct SegmentReads {
    store: Arc<dyn SegmentStore>,
    cluster: ClusterId,
    piece_bytes: usize,
    deadline: Duration,
    /// Bytes that pieces kept may hold.
    budget: Arc<Semaphore>,
    indexes: Mutex<VecDeque<Arc<SegmentIndex>>>,
}

impl SegmentReads {
    pub fn new(
        store: Arc<dyn SegmentStore>,
        cluster: ClusterId,
        piece_bytes: usize,
        budget_bytes: usize,
        deadline: Duration,
    ) -> Self {
        let budget = Arc::new(Semaphore::new(budget_bytes.min(Semaphore::MAX_PERMITS)));
        Self { store, cluster, piece_bytes, deadline, budget, indexes: Mutex::default() }
    }

    /// A cursor at the batch that holds `offset`, or not far before it.
    pub async fn open(
        self: &Arc<Self>,
        partition: TopicPartition,
        segment: &SegmentRecord,
        end: SegmentEnd,
        offset: Offset,
    ) -> Result<SegmentCursor, StoreError> {
        let path = FolderPath::new(self.cluster, partition).segment(segment.file);
        let (expected, position) = match self.index(path).await {
            Ok(index) => index.lookup_batch(offset),
            // The data says all that the index says.
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => {
                (segment.base_offset, segment.start_position)
            }
            Err(error) => return Err(error),
        };
        let reads = Arc::clone(self);
        Ok(SegmentCursor { reads, path, epoch: segment.epoch, end, expected, position, kept: None, ahead: None })
    }

    async fn index(&self, path: SegmentPath) -> Result<Arc<SegmentIndex>, StoreError> {
        if let Some(index) = self.indexes.lock().iter().find(|index| index.path == path) {
            return Ok(Arc::clone(index));
        }
        let bytes = self.in_time(path, "index read", self.store.read_index(path)).await?;
        let index = SegmentIndex::decode(&bytes, path).inspect_err(|error| {
            warn!(%error, "a segment's index is damaged, reading its data from the start");
        })?;
        let index = Arc::new(index);
        let mut indexes = self.indexes.lock();
        indexes.truncate(INDEXES - 1);
        indexes.push_front(Arc::clone(&index));
        Ok(index)
    }

    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        self.in_time(path, "read", self.store.read(path, start, end)).await
    }

    async fn in_time<T>(
        &self,
        path: SegmentPath,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let deadline = self.deadline;
        let late = |_| StoreError::Deadline { path: path.data_path(), operation, deadline };
        with_deadline(operation, deadline, call).await.map_err(late)?
    }

    /// Room to keep a piece.
    fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        Arc::clone(&self.budget).try_acquire_many_owned(bytes).ok()
    }
}

/// Bytes of the file from `start` on.
struct Piece {
    start: BytePosition,
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

struct Ahead {
    start: BytePosition,
    task: AbortOnDropHandle<Result<Piece, StoreError>>,
}

/// See the head of the file.
pub struct SegmentCursor {
    reads: Arc<SegmentReads>,
    path: SegmentPath,
    epoch: Epoch,
    end: SegmentEnd,
    /// The batch at `position` begins at this offset.
    expected: Offset,
    position: BytePosition,
    kept: Option<Piece>,
    ahead: Option<Ahead>,
}

impl SegmentCursor {
    /// Whether the cursor stands exactly at this offset of this segment.
    pub fn is_at(&self, segment: &SegmentRecord, offset: Offset) -> bool {
        self.path.file == segment.file && self.expected == offset
    }

    /// Whole batches, the first holding `offset`: at least one, up to `max_bytes`; none if the rest of the segment has
    /// none. The cursor moves past them.
    pub async fn read(&mut self, offset: Offset, max_bytes: usize) -> Result<Slice, StoreError> {
        // One piece more is enough for any batch: a batch that is cut says how long it is.
        let mut needed = 1;
        while self.position < self.end.position {
            let bytes = self.bytes_at_position(needed, max_bytes).await?;
            let remaining = self.end.position.since(self.position);
            let (expected, epoch) = (self.expected, self.epoch);
            let taken = take_batches(&bytes, Wanted { expected, offset, epoch, max_bytes, remaining });
            let begun_at = self.position;
            self.position = self.position.plus(taken.consumed as u64);
            self.expected = taken.expected;
            if !taken.batches.is_empty() {
                self.read_ahead();
                return Ok(Slice { batches: taken.batches, next_offset: taken.expected });
            }
            match taken.stop {
                Stop::Cut { needed: more } => needed = more,
                Stop::Damaged { at, reason } => {
                    let position = begun_at.plus(at as u64).0;
                    return Err(StoreError::Damaged { path: self.path.data_path(), position, reason });
                }
                Stop::Full => unreachable!("a full answer holds a batch"),
            }
        }
        Ok(Slice { batches: Bytes::new(), next_offset: self.end.offset })
    }

    /// Bytes from the position on: at least `needed`, or all up to the segment's end.
    async fn bytes_at_position(&mut self, needed: usize, max_bytes: usize) -> Result<Bytes, StoreError> {
        let remaining = usize::try_from(self.end.position.since(self.position)).unwrap_or(usize::MAX);
        let needed = needed.min(remaining);
        if let Some(kept) = self.kept_from_position().filter(|kept| kept.len() >= needed) {
            return Ok(kept);
        }
        self.kept = None;
        if let Some(ahead) = self.ahead.take().filter(|ahead| ahead.start == self.position) {
            match ahead.task.await {
                Ok(piece) => self.kept = Some(piece?),
                Err(error) => warn!(%error, "reading ahead failed"),
            }
            if let Some(kept) = self.kept_from_position().filter(|kept| kept.len() >= needed) {
                return Ok(kept);
            }
        }
        let whole = self.reads.piece_bytes.max(needed).min(remaining);
        let room = self.reads.room(whole);
        let length = if room.is_some() { whole } else { whole.min(max_bytes.max(needed)) };
        let end = self.position.plus(length as u64);
        let bytes = self.reads.read(self.path, self.position, end).await?;
        self.kept = room.map(|room| Piece { start: self.position, bytes: bytes.clone(), _room: room });
        Ok(bytes)
    }

    fn kept_from_position(&self) -> Option<Bytes> {
        let kept = self.kept.as_ref().filter(|kept| kept.start <= self.position)?;
        let skip = usize::try_from(self.position.since(kept.start)).ok()?;
        (skip <= kept.bytes.len()).then(|| kept.bytes.slice(skip..))
    }

    /// Begins to read what follows the kept piece's last whole batch.
    fn read_ahead(&mut self) {
        let Some(rest) = self.kept_from_position() else {
            return;
        };
        let start = self.position.plus(whole_batches_len(&rest, 0) as u64);
        if start >= self.end.position || self.ahead.as_ref().is_some_and(|ahead| ahead.start == start) {
            return;
        }
        let end = start.plus(self.reads.piece_bytes as u64).min(self.end.position);
        let Some(room) = self.reads.room(end.since(start) as usize) else {
            return;
        };
        let (reads, path) = (Arc::clone(&self.reads), self.path);
        let task = tokio::spawn(async move {
            let bytes = reads.read(path, start, end).await?;
            Ok(Piece { start, bytes, _room: room })
        });
        self.ahead = Some(Ahead { start, task: AbortOnDropHandle::new(task) });
    }
}
