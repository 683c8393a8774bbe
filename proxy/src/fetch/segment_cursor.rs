//! A reader's place in one CLOSED segment: finds the offset by the index, then reads on, chunk by chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use bmq_proto::meta::{SegmentEnd, SegmentRecord};
use bmq_proto::{BytePosition, ClusterId, Epoch, Offset, TopicPartition};
use bmq_storage::{FolderPath, SegmentPath, StoreError};
use bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

use super::chunk_cache::{Chunk, ChunkCache, ChunkId, FileEnd, SharedError};
use super::ring::Slice;
use super::segment_batches::{Stop, Trust, Wanted, take_batches};

/// Chunks that are loaded ahead of one reader that reads on.
const CHUNKS_AHEAD: usize = 2;

/// What all cursors share.
pub struct SegmentReads {
    pub cluster: ClusterId,
    pub chunks: Arc<ChunkCache>,
}

impl SegmentReads {
    /// Names a segment's files.
    pub fn path(&self, partition: TopicPartition, segment: &SegmentRecord) -> SegmentPath {
        FolderPath::new(self.cluster, partition).segment(segment.file)
    }

    /// A cursor at the batch that holds `offset`, or not far before it.
    pub async fn open(
        &self,
        partition: TopicPartition,
        segment: &SegmentRecord,
        end: SegmentEnd,
        offset: Offset,
    ) -> Result<SegmentCursor, SharedError> {
        let path = self.path(partition, segment);
        let index = match self.chunks.index(path).await {
            Ok(index) => Some(index),
            // The data says all that the index says.
            Err(error) if matches!(*error, StoreError::NotFound { .. } | StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let start = (segment.base_offset, segment.start_position);
        let (expected, position) = index.as_ref().map_or(start, |index| index.lookup_batch(offset));
        Ok(SegmentCursor {
            chunks: Arc::clone(&self.chunks),
            path,
            epoch: segment.epoch,
            compacted: segment.compacted,
            file: FileEnd { position: end.position, index },
            end,
            expected,
            position,
            reads_on: false,
            ahead: VecDeque::new(),
        })
    }
}

/// See the head of the file.
pub struct SegmentCursor {
    chunks: Arc<ChunkCache>,
    path: SegmentPath,
    epoch: Epoch,
    compacted: bool,
    file: FileEnd,
    end: SegmentEnd,
    /// The batch at `position` begins at this offset or, in a compacted file, later.
    expected: Offset,
    position: BytePosition,
    /// Whether the reader has come back for more.
    reads_on: bool,
    ahead: VecDeque<AbortOnDropHandle<()>>,
}

impl SegmentCursor {
    /// Whether the cursor stands exactly at this offset of this segment.
    pub fn is_at(&self, segment: &SegmentRecord, offset: Offset) -> bool {
        self.path.file == segment.file && self.expected == offset
    }

    /// Whole batches, the first holding `offset` or following it: at least one, up to `max_bytes`; none if the rest of
    /// the segment has none. The cursor moves past them.
    pub async fn read(&mut self, offset: Offset, max_bytes: usize) -> Result<Slice, SharedError> {
        // A batch that is cut says how long it is.
        let mut needed = 1;
        while self.position < self.end.position {
            let Chunk { bytes, is_checked, .. } = self.bytes_at_position(needed).await?;
            let remaining = self.end.position.since(self.position);
            let trust = match (is_checked, self.compacted) {
                (true, _) => Trust::Checked,
                (false, false) => Trust::Contiguous { epoch: self.epoch },
                (false, true) => Trust::Compacted { epoch: self.epoch },
            };
            let taken = take_batches(&bytes, Wanted { expected: self.expected, offset, trust, max_bytes, remaining });
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
                    return Err(Arc::new(StoreError::Damaged { path: self.path.data_path(), position, reason }));
                }
                Stop::Full => unreachable!("a full answer holds a batch"),
            }
        }
        self.expected = self.end.offset;
        Ok(Slice { batches: Bytes::new(), next_offset: self.end.offset })
    }

    /// Bytes from the position on: the rest of its chunk, or `needed` of them put together from several, as far as the
    /// segment goes.
    async fn bytes_at_position(&self, needed: usize) -> Result<Chunk, SharedError> {
        let remaining = usize::try_from(self.end.position.since(self.position)).unwrap_or(usize::MAX);
        let needed = needed.min(remaining);
        let mut id = ChunkId::at(self.path, self.position);
        let skip = self.position.since(id.start()) as usize;
        let mut first = self.chunks.chunk(id, &self.file).await?;
        first.bytes = first.bytes.slice(skip.min(first.bytes.len())..);
        if first.bytes.len() >= needed {
            return Ok(first);
        }
        let Chunk { mut is_checked, mut is_damaged, .. } = first;
        let mut whole = BytesMut::with_capacity(needed);
        whole.extend_from_slice(&first.bytes);
        while whole.len() < needed {
            id = id.next();
            let chunk = self.chunks.chunk(id, &self.file).await?;
            is_checked &= chunk.is_checked;
            is_damaged |= chunk.is_damaged;
            whole.extend_from_slice(&chunk.bytes[..chunk.bytes.len().min(needed - whole.len())]);
        }
        Ok(Chunk { bytes: whole.freeze(), is_checked, is_damaged })
    }

    /// Begins to load what comes next, once the reader has shown that it reads on.
    fn read_ahead(&mut self) {
        if !std::mem::replace(&mut self.reads_on, true) {
            return;
        }
        self.ahead.retain(|load| !load.is_finished());
        let mut id = ChunkId::at(self.path, self.position);
        for _ in 0..CHUNKS_AHEAD {
            if self.ahead.len() >= CHUNKS_AHEAD {
                return;
            }
            self.ahead.extend(self.chunks.load_ahead(id, &self.file));
            id = id.next();
        }
    }
}
