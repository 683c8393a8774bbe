//! A segment's index: where offsets and times stand in the data file, the data's checksums, and the producers at its
//! end. Written once the end is fixed; rebuilt from the data where it is missing or damaged.
//! Bytes: `docs/formats/index.md`.
//!
//! Invariants, which `decode` checks:
//! * offset entries grow in offset and in position, and lie before the end;
//! * time entries grow in time and do not go back in offset;
//! * there is one checksum for each chunk that the data file has up to the end.

mod builder;
mod codec;

#[cfg(test)]
mod tests;

use std::ops::Range;

use bmq_proto::{BytePosition, Offset};

pub use builder::{IndexBuilder, IndexedBatch};

use crate::segment::FIRST_BATCH_POSITION;
use crate::{ProducerSnapshot, SegmentPath};

/// How many bytes of the data file one checksum covers; the last chunk may be shorter.
pub const CHUNK_LEN: usize = 1 << 20;

/// About how many bytes of data lie between two entries.
pub const ENTRY_STEP: u64 = 64 << 10;

/// The index of one segment's data file, up to `end_position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIndex {
    pub path: SegmentPath,
    /// The first offset that the segment holds or could hold.
    pub base_offset: Offset,
    /// The offset after the last.
    pub end_offset: Offset,
    /// The position after the last batch.
    pub end_position: BytePosition,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    chunk_checksums: Vec<u32>,
    pub producers: ProducerSnapshot,
}

/// The batch at `position` begins at `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OffsetEntry {
    offset: Offset,
    position: BytePosition,
}

/// No record below `before` has a timestamp above `max_timestamp_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeEntry {
    max_timestamp_ms: i64,
    before: Offset,
}

/// Bytes of a data file that are not what the index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk has {found} bytes of {expected}")]
    Length { found: u64, expected: u64 },
    #[error("chunk checksum is {found:08x}, the index says {expected:08x}")]
    Checksum { found: u32, expected: u32 },
}

impl SegmentIndex {
    /// Where to begin to read for a record at `offset` or after it: the last known batch that begins at or before it.
    pub fn lookup_offset(&self, offset: Offset) -> BytePosition {
        let after = self.offsets.partition_point(|entry| entry.offset <= offset);
        after.checked_sub(1).map_or(FIRST_BATCH_POSITION, |at| self.offsets[at].position)
    }

    /// The last known batch that begins at or before `offset`: its first offset, and where it stands.
    pub fn lookup_batch(&self, offset: Offset) -> (Offset, BytePosition) {
        let after = self.offsets.partition_point(|entry| entry.offset <= offset);
        let found = after.checked_sub(1).map(|at| (self.offsets[at].offset, self.offsets[at].position));
        found.unwrap_or((self.base_offset, FIRST_BATCH_POSITION))
    }

    /// Where to begin to look for the first record with this timestamp or a later one: none of those below the answer
    /// has it. The end offset if the segment has no such record.
    pub fn lookup_time(&self, timestamp_ms: i64) -> Offset {
        let after = self.times.partition_point(|entry| entry.max_timestamp_ms < timestamp_ms);
        after.checked_sub(1).map_or(self.base_offset, |at| self.times[at].before)
    }

    /// The highest timestamp in the segment; `None` if it has no record.
    pub fn max_timestamp_ms(&self) -> Option<i64> {
        self.times.last().map(|entry| entry.max_timestamp_ms)
    }

    /// How many chunks the data file has up to the end.
    pub fn chunks(&self) -> usize {
        self.chunk_checksums.len()
    }

    /// Which bytes of the data file make up a chunk. `number` is below `chunks()`.
    pub fn chunk_range(&self, number: usize) -> Range<BytePosition> {
        assert!(number < self.chunks(), "chunk {number} of {}", self.chunks());
        let start = BytePosition((number * CHUNK_LEN) as u64);
        start..start.plus(CHUNK_LEN as u64).min(self.end_position)
    }

    /// Checks what was read as a chunk. `number` is below `chunks()`.
    pub fn check_chunk(&self, number: usize, bytes: &[u8]) -> Result<(), ChunkError> {
        let range = self.chunk_range(number);
        let (found, expected) = (bytes.len() as u64, range.end.since(range.start));
        if found != expected {
            return Err(ChunkError::Length { found, expected });
        }
        let (found, expected) = (crc32fast::hash(bytes), self.chunk_checksums[number]);
        if found != expected {
            return Err(ChunkError::Checksum { found, expected });
        }
        Ok(())
    }
}
