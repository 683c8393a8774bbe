//! Batches that have an offset and are not durable yet, oldest first.
//!
//! ```text
//!     high watermark                          next offset
//!     ▼                                       ▼
//!     | batch | batch | batch | batch | batch |
//!     └─ written to the open file ─┘└ waiting ┘
//! ```
//! Invariants: contiguous in offset; those written come before those that wait.

use std::collections::VecDeque;

use bmq_proto::record_batch::BatchHeader;
use bmq_proto::{BytePosition, Offset};
use bytes::Bytes;

use crate::append::ReplyToken;

#[derive(Debug)]
pub(super) struct PendingBatch {
    /// As the producer sent it: its own base offset is not the assigned one.
    pub header: BatchHeader,
    pub base_offset: Offset,
    pub next_offset: Offset,
    /// With the assigned offset and epoch in place.
    pub bytes: Bytes,
    /// Where it ends in the open file, once handed to its writer.
    pub end: Option<BytePosition>,
    pub waiting: Vec<Waiting>,
}

/// Somebody to be answered when the batch is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub token: ReplyToken,
    pub deduplicated: bool,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    batches: VecDeque<PendingBatch>,
    /// How many of them were handed to the open file's writer.
    written: usize,
    bytes: usize,
}

impl Pending {
    pub fn push(&mut self, batch: PendingBatch) {
        if let Some(last) = self.batches.back() {
            assert_eq!(last.next_offset, batch.base_offset, "offsets are assigned without gaps");
        }
        self.bytes += batch.bytes.len();
        self.batches.push_back(batch);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Takes the first batch if it ends at or before `durable`.
    pub fn pop_durable(&mut self, durable: BytePosition) -> Option<PendingBatch> {
        let first = self.batches.front()?;
        if first.end? > durable {
            return None;
        }
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.bytes.len();
        self.written -= 1;
        Some(batch)
    }

    /// The batch at `base_offset`, to wait for it.
    pub fn find(&mut self, base_offset: Offset) -> Option<&mut PendingBatch> {
        let found = self.batches.binary_search_by_key(&base_offset, |batch| batch.base_offset).ok()?;
        self.batches.get_mut(found)
    }

    /// Whoever waits for any of the batches. They wait no longer; the batches stay.
    pub fn take_waiting(&mut self) -> impl Iterator<Item = Waiting> + '_ {
        self.batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.waiting))
    }

    /// Takes the next batch to be written at `position`, and notes where it will end.
    pub fn write_next(&mut self, position: BytePosition) -> Option<Bytes> {
        let batch = self.batches.get_mut(self.written)?;
        batch.end = Some(position.plus(batch.bytes.len() as u64));
        self.written += 1;
        Some(batch.bytes.clone())
    }

    /// What was written does not count: every batch is to be written again.
    pub fn rewind(&mut self) {
        for batch in self.batches.range_mut(..self.written) {
            batch.end = None;
        }
        self.written = 0;
    }

    /// As if everything written stood before `position` of a new file. A mistake, made on purpose.
    pub fn skip_rewind(&mut self, position: BytePosition) {
        for batch in self.batches.range_mut(..self.written) {
            batch.end = Some(position.plus(batch.bytes.len() as u64));
        }
    }

    pub fn drain(&mut self) -> impl Iterator<Item = PendingBatch> + '_ {
        self.bytes = 0;
        self.written = 0;
        self.batches.drain(..)
    }
}
