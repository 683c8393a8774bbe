//! The recent batches of one partition: one contiguous range of offsets in memory. Pure.
//!
//! ```text
//!   start                              end
//!   | chunk | chunk | chunk |  chunk  |   ◀ push
//!   └ dropped first                   └ never above the high watermark
//! ```
//! Invariant: each chunk begins where the one before it ends; a chunk is what came in one message, not copied.

use std::collections::VecDeque;
use std::ops::Range;

use bmq_proto::Offset;
use bmq_proto::record_batch::{BatchError, split_batches};
use bytes::{Bytes, BytesMut};

/// A read copies chunks together only as long as they are small.
const COPY_BELOW_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Chunk {
    base: Offset,
    next: Offset,
    bytes: Bytes,
    /// Where each batch ends: its offset and its last byte, both exclusive.
    batches: Vec<(Offset, usize)>,
    /// Bytes pushed to the ring before this chunk, ever.
    before: u64,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Ring {
    chunks: VecDeque<Chunk>,
    end: Offset,
    /// Bytes pushed, ever.
    pushed: u64,
    held: usize,
}

/// Whole batches and where to go on after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub batches: Bytes,
    pub next_offset: Offset,
}

impl Ring {
    /// Holds nothing; the next chunk begins at `end`.
    pub fn new(end: Offset) -> Self {
        Self { chunks: VecDeque::new(), end, pushed: 0, held: 0 }
    }

    /// The offsets held; empty at the end if there are none.
    pub fn range(&self) -> Range<Offset> {
        self.chunks.front().map_or(self.end, |chunk| chunk.base)..self.end
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Appends the batches of `base..next`, which must begin at the ring's end. `Err` if the bytes are not that.
    pub fn push(&mut self, base: Offset, next: Offset, bytes: Bytes) -> Result<(), PushError> {
        if base != self.end {
            return Err(PushError::Gap { expected: self.end, found: base });
        }
        if bytes.is_empty() {
            return if next == base { Ok(()) } else { Err(PushError::Mismatch { next }) };
        }
        let mut batches = Vec::new();
        let mut position = 0;
        for batch in split_batches(&bytes) {
            let (header, batch) = batch?;
            let last = batches.last().map_or(base, |(end, _)| *end);
            if header.base_offset() < last {
                return Err(PushError::Mismatch { next: header.base_offset() });
            }
            position += batch.len();
            batches.push((header.next_offset(), position));
        }
        // Compaction may leave a gap after the last batch, never a batch beyond the range.
        match batches.last_mut() {
            Some((end, _)) if *end <= next => *end = next,
            _ => return Err(PushError::Mismatch { next }),
        }
        self.held += bytes.len();
        let before = self.pushed;
        self.pushed += bytes.len() as u64;
        self.chunks.push_back(Chunk { base, next, bytes, batches, before });
        self.end = next;
        Ok(())
    }

    /// Drops the oldest chunks until no more than `bytes` are held; the newest chunk stays.
    pub fn shrink_to(&mut self, bytes: usize) {
        while self.held > bytes && self.chunks.len() > 1 {
            self.drop_front();
        }
    }

    /// Drops everything at or above `offset`. Chunks are not cut: what goes too far is read again.
    pub fn truncate(&mut self, offset: Offset) {
        while self.end > offset
            && let Some(chunk) = self.chunks.pop_back()
        {
            self.held -= chunk.bytes.len();
            self.pushed = chunk.before;
            self.end = chunk.base;
        }
    }

    /// How many bytes there are from the batch that holds `offset` on; `None` if the ring does not hold it.
    pub fn bytes_from(&self, offset: Offset) -> Option<u64> {
        if offset == self.end {
            return Some(0);
        }
        let (chunk, batch) = self.find(offset)?;
        Some(self.pushed - chunk.before - chunk.start_of(batch) as u64)
    }

    /// Batches from the one that holds `offset` on: at least one, up to `max_bytes`. `None` if the ring does not hold it.
    pub fn read(&self, offset: Offset, max_bytes: usize) -> Option<Slice> {
        let (first, batch) = self.find(offset)?;
        let mut slice = first.slice(batch, max_bytes);
        let mut copied: Option<BytesMut> = None;
        let first_index = self.chunks.partition_point(|chunk| chunk.next <= offset);
        for chunk in self.chunks.iter().skip(first_index + 1) {
            let have = copied.as_ref().map_or(slice.batches.len(), BytesMut::len);
            let room = max_bytes.saturating_sub(have).min(COPY_BELOW_BYTES);
            if have >= COPY_BELOW_BYTES || chunk.batches[0].1 > room || slice.next_offset != chunk.base {
                break;
            }
            let more = chunk.slice(0, room);
            copied.get_or_insert_with(|| BytesMut::from(&slice.batches[..])).extend_from_slice(&more.batches);
            slice.next_offset = more.next_offset;
        }
        if let Some(copied) = copied {
            slice.batches = copied.freeze();
        }
        Some(slice)
    }

    fn find(&self, offset: Offset) -> Option<(&Chunk, usize)> {
        if !self.range().contains(&offset) {
            return None;
        }
        let chunk = &self.chunks[self.chunks.partition_point(|chunk| chunk.next <= offset)];
        Some((chunk, chunk.batches.partition_point(|(end, _)| *end <= offset)))
    }

    fn drop_front(&mut self) {
        let chunk = self.chunks.pop_front().expect("called only with chunks");
        self.held -= chunk.bytes.len();
    }
}

impl Chunk {
    /// Where a batch begins in the chunk's bytes.
    fn start_of(&self, batch: usize) -> usize {
        batch.checked_sub(1).map_or(0, |before| self.batches[before].1)
    }

    /// Batches from one on: at least that one, up to `max_bytes`.
    fn slice(&self, batch: usize, max_bytes: usize) -> Slice {
        let start = self.start_of(batch);
        let fitting = self.batches.partition_point(|(_, end)| *end <= start.saturating_add(max_bytes));
        let (next_offset, end) = self.batches[fitting.max(batch + 1) - 1];
        Slice { batches: self.bytes.slice(start..end), next_offset }
    }
}

/// Bytes that do not continue the ring.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("batches begin at {found}, expected {expected}")]
    Gap { expected: Offset, found: Offset },
    #[error("batches do not cover the offsets that were told, near {next}")]
    Mismatch { next: Offset },
    #[error("batches cannot be taken apart")]
    Batch(#[from] BatchError),
}
