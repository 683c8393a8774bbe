//! Builds an index batch by batch, as a segment is written or scanned.

use bmq_proto::{BytePosition, Offset};

use super::{CHUNK_LEN, ENTRY_STEP, OffsetEntry, SegmentIndex, TimeEntry};
use crate::segment::{FIRST_BATCH_POSITION, SegmentHeader};
use crate::{ProducerSnapshot, SegmentPath};

/// What the index takes from a batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedBatch {
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
    pub max_timestamp_ms: i64,
}

/// An index that grows with its segment.
#[derive(Debug, Clone)]
pub struct IndexBuilder {
    path: SegmentPath,
    base_offset: Offset,
    next_offset: Offset,
    position: BytePosition,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    max_timestamp_ms: Option<i64>,
    checksums: ChunkChecksums,
}

impl IndexBuilder {
    /// For a data file that has its header and nothing else, and whose first offset will be `base_offset` or later.
    pub fn new(path: SegmentPath, base_offset: Offset) -> Self {
        let mut checksums = ChunkChecksums::default();
        checksums.add(&SegmentHeader::of(path).encode());
        Self {
            path,
            base_offset,
            next_offset: base_offset,
            position: FIRST_BATCH_POSITION,
            offsets: Vec::new(),
            times: Vec::new(),
            max_timestamp_ms: None,
            checksums,
        }
    }

    /// Where the next batch will stand.
    pub fn position(&self) -> BytePosition {
        self.position
    }

    /// The offset after the last batch added.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Adds the batch that stands at `position()`; `bytes` are as in the file. Its offsets begin at `next_offset()` or,
    /// in a compacted file, later.
    pub fn add_batch(&mut self, batch: IndexedBatch, bytes: &[u8]) {
        assert!(
            batch.base_offset >= self.next_offset,
            "offsets go back to {} at {}",
            batch.base_offset,
            self.next_offset
        );
        assert!(batch.next_offset > batch.base_offset, "a batch holds an offset");
        assert!(!bytes.is_empty(), "a batch has bytes");
        if self.offsets.last().is_none_or(|last| self.position.since(last.position) >= ENTRY_STEP) {
            self.add_time_entry();
            self.offsets.push(OffsetEntry { offset: batch.base_offset, position: self.position });
        }
        self.checksums.add(bytes);
        self.position = self.position.plus(bytes.len() as u64);
        self.next_offset = batch.next_offset;
        self.max_timestamp_ms = self.max_timestamp_ms.max(Some(batch.max_timestamp_ms));
    }

    /// Says that the segment goes on to this offset without another batch, as a compacted one may.
    pub fn extend_to(&mut self, end: Offset) {
        assert!(end >= self.next_offset, "the segment holds batches up to {}, beyond {end}", self.next_offset);
        self.next_offset = end;
    }

    /// The index up to here, with the producers as they are here.
    pub fn finish(mut self, producers: ProducerSnapshot) -> SegmentIndex {
        self.add_time_entry();
        SegmentIndex {
            path: self.path,
            base_offset: self.base_offset,
            end_offset: self.next_offset,
            end_position: self.position,
            offsets: self.offsets,
            times: self.times,
            chunk_checksums: self.checksums.finish(),
            producers,
        }
    }

    /// Notes the highest timestamp so far, in place of an entry that says the same of fewer records.
    fn add_time_entry(&mut self) {
        let Some(max_timestamp_ms) = self.max_timestamp_ms else { return };
        self.times.pop_if(|last| last.max_timestamp_ms == max_timestamp_ms);
        self.times.push(TimeEntry { max_timestamp_ms, before: self.next_offset });
    }
}

/// CRC-32 of each chunk of a file, fed in order.
#[derive(Debug, Clone, Default)]
struct ChunkChecksums {
    finished: Vec<u32>,
    hasher: crc32fast::Hasher,
    in_chunk: usize,
}

impl ChunkChecksums {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_LEN - self.in_chunk));
            self.hasher.update(now);
            self.in_chunk += now.len();
            if self.in_chunk == CHUNK_LEN {
                self.end_chunk();
            }
            bytes = later;
        }
    }

    fn end_chunk(&mut self) {
        self.finished.push(std::mem::take(&mut self.hasher).finalize());
        self.in_chunk = 0;
    }

    fn finish(mut self) -> Vec<u32> {
        if self.in_chunk > 0 {
            self.end_chunk();
        }
        self.finished
    }
}
