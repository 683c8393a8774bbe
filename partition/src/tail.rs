//! What readers see of a partition: its bounds, the newest batches in memory, and where older ones stand in files that
//! are not closed yet.
//!
//! ```text
//!  log start            closed segments │ unclosed ranges         │ batches in memory │ high watermark
//!  ├──────────────────────────────────────────────────────────────┼───────────────────┤
//! ```
//! Invariants: everything here lies below the high watermark; the batches in memory are contiguous and end at it.

use std::collections::VecDeque;
use std::ops::Range;

use bmq_proto::broker::{PartitionBounds, TimeHint, TimeSearch};
use bmq_proto::record_batch::NO_TIMESTAMP;
use bmq_proto::{BytePosition, FileId, Offset};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::machine::{Published, PublishedBatch};

/// About how many bytes of an unclosed file lie between two entries.
const ENTRY_STEP: u64 = 64 << 10;

/// Shared by the partition's task, which publishes, and its readers.
#[derive(Debug)]
pub struct Tail {
    held: Mutex<Held>,
    bounds: watch::Sender<PartitionBounds>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Held {
    batches: VecDeque<PublishedBatch>,
    bytes: usize,
    /// Oldest first.
    unclosed: VecDeque<UnclosedRange>,
    /// What nobody can read.
    damaged: Vec<Range<Offset>>,
}

/// The part of a file below the high watermark, while nobody else can read it.
#[derive(Debug)]
struct UnclosedRange {
    file: FileId,
    entries: Vec<(Offset, BytePosition)>,
    times: Vec<TimeEntry>,
    end_offset: Offset,
    end_position: BytePosition,
}

/// No record of the range before `from` has a timestamp of `max_timestamp_ms` or later; one from there on, and before
/// the next entry, has it.
#[derive(Debug, Clone, Copy)]
struct TimeEntry {
    max_timestamp_ms: i64,
    from: Offset,
}

/// How a read can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailRead {
    /// From memory: whole batches from the one that holds the offset on, ending before `next_offset`.
    Batches { base_offset: Offset, next_offset: Offset, bytes: Bytes },
    /// From a file that is not closed: the batch that holds the offset begins at or after `start`, and what ends at or
    /// before `end` may be read.
    File { file: FileId, start: BytePosition, end: BytePosition },
    /// The offset is the high watermark: nothing is there yet.
    AtEnd,
    /// The offset lies before everything that is held here.
    NotHeld,
    /// The record is lost: its file cannot be read.
    Damaged,
    /// The offset lies outside the log.
    OutOfRange,
}

impl Tail {
    /// A tail that keeps at most `limit` bytes of batches.
    pub fn new(bounds: PartitionBounds, limit: usize) -> Self {
        Self { held: Mutex::default(), bounds: watch::Sender::new(bounds), limit }
    }

    /// Where the partition stands.
    pub fn bounds(&self) -> PartitionBounds {
        *self.bounds.borrow()
    }

    /// Wakes when the bounds move.
    pub fn watch(&self) -> watch::Receiver<PartitionBounds> {
        self.bounds.subscribe()
    }

    /// Takes what the high watermark has passed.
    pub fn publish(&self, published: Published) {
        let mut held = self.held.lock();
        for batch in published.batches {
            held.note_position(&batch);
            held.bytes += batch.bytes.len();
            held.batches.push_back(batch);
        }
        while held.bytes > self.limit && held.batches.len() > 1 {
            if let Some(dropped) = held.batches.pop_front() {
                held.bytes -= dropped.bytes.len();
            }
        }
        // Under the lock, so that nobody reads batches beyond the bounds they see.
        self.bounds.send_replace(published.bounds);
    }

    /// The file can be read from the store by everybody.
    pub fn closed(&self, file: FileId) {
        self.held.lock().unclosed.retain(|range| range.file != file);
    }

    /// These records cannot be read any more.
    pub fn damaged(&self, file: FileId, range: Range<Offset>) {
        let mut held = self.held.lock();
        held.unclosed.retain(|range| range.file != file);
        held.damaged.push(range);
    }

    /// Plans a read of at least one batch and about `max_bytes`.
    pub fn read(&self, offset: Offset, max_bytes: usize) -> TailRead {
        let held = self.held.lock();
        let bounds = *self.bounds.borrow();
        if offset < bounds.log_start || offset > bounds.high_watermark {
            return TailRead::OutOfRange;
        }
        if offset == bounds.high_watermark {
            return TailRead::AtEnd;
        }
        let here = held.read_batches(offset, max_bytes).or_else(|| held.read_file(offset));
        let lost = held.damaged.iter().any(|range| range.contains(&offset));
        here.unwrap_or(if lost { TailRead::Damaged } else { TailRead::NotHeld })
    }

    /// Looks for a record by time in what is not closed yet. `None` if it is not there.
    pub fn find_time(&self, search: TimeSearch) -> Option<TimeHint> {
        let held = self.held.lock();
        let log_start = self.bounds.borrow().log_start;
        let alive = || held.unclosed.iter().filter(|range| range.end_offset > log_start);
        let timestamp_ms = match search {
            TimeSearch::AtOrAfter(timestamp_ms) => timestamp_ms,
            TimeSearch::Highest => alive().filter_map(UnclosedRange::max_timestamp_ms).max()?,
        };
        let from = alive().find_map(|range| range.lookup_time(timestamp_ms))?;
        Some(TimeHint { from: from.max(log_start), timestamp_ms })
    }

    /// The first offset in memory, or the high watermark if nothing is.
    pub fn first_held(&self) -> Offset {
        let held = self.held.lock();
        held.batches.front().map_or_else(|| self.bounds.borrow().high_watermark, |first| first.base_offset)
    }
}

impl UnclosedRange {
    /// Between two steps a higher timestamp raises the entry that is there: its `from` stays a lower bound.
    fn note_time(&mut self, batch: &PublishedBatch, step: bool) {
        let Some(last) = self.times.last_mut().filter(|last| last.max_timestamp_ms < batch.max_timestamp_ms) else {
            return;
        };
        let recent = self.entries.last().is_some_and(|(offset, _)| last.from >= *offset);
        if recent && !step {
            last.max_timestamp_ms = batch.max_timestamp_ms;
        } else {
            let max_timestamp_ms = batch.max_timestamp_ms;
            self.times.push(TimeEntry { max_timestamp_ms, from: batch.base_offset });
        }
    }

    fn max_timestamp_ms(&self) -> Option<i64> {
        self.times.last().map(|entry| entry.max_timestamp_ms).filter(|timestamp_ms| *timestamp_ms > NO_TIMESTAMP)
    }

    fn lookup_time(&self, timestamp_ms: i64) -> Option<Offset> {
        let first = self.times.partition_point(|entry| entry.max_timestamp_ms < timestamp_ms);
        self.times.get(first).map(|entry| entry.from)
    }
}

impl Held {
    fn note_position(&mut self, batch: &PublishedBatch) {
        let end = batch.position.plus(batch.bytes.len() as u64);
        if self.unclosed.back().is_none_or(|range| range.file != batch.file) {
            self.unclosed.push_back(UnclosedRange {
                file: batch.file,
                entries: vec![(batch.base_offset, batch.position)],
                times: vec![TimeEntry { max_timestamp_ms: batch.max_timestamp_ms, from: batch.base_offset }],
                end_offset: batch.next_offset,
                end_position: end,
            });
            return;
        }
        let Some(range) = self.unclosed.back_mut() else { return };
        let last = range.entries.last().map_or(BytePosition::ZERO, |(_, position)| *position);
        let step = batch.position.since(last) >= ENTRY_STEP;
        if step {
            range.entries.push((batch.base_offset, batch.position));
        }
        range.note_time(batch, step);
        range.end_offset = batch.next_offset;
        range.end_position = end;
    }

    fn read_batches(&self, offset: Offset, max_bytes: usize) -> Option<TailRead> {
        let first = self.batches.partition_point(|batch| batch.next_offset <= offset);
        let base_offset = self.batches.get(first).map(|batch| batch.base_offset).filter(|base| *base <= offset)?;
        let mut taken = 0;
        let mut last = first;
        for batch in self.batches.range(first..) {
            if last > first && taken + batch.bytes.len() > max_bytes {
                break;
            }
            taken += batch.bytes.len();
            last += 1;
        }
        let next_offset = self.batches.get(last - 1)?.next_offset;
        Some(TailRead::Batches { base_offset, next_offset, bytes: self.join(first, last, taken) })
    }

    /// One batch is handed on as it is; several are put together.
    fn join(&self, first: usize, last: usize, bytes: usize) -> Bytes {
        if last - first == 1 {
            return self.batches[first].bytes.clone();
        }
        let mut joined = BytesMut::with_capacity(bytes);
        for batch in self.batches.range(first..last) {
            joined.extend_from_slice(&batch.bytes);
        }
        joined.freeze()
    }

    fn read_file(&self, offset: Offset) -> Option<TailRead> {
        let holds = |range: &&UnclosedRange| {
            range.end_offset > offset && range.entries.first().is_some_and(|(first, _)| *first <= offset)
        };
        let range = self.unclosed.iter().find(holds)?;
        let entry = range.entries.partition_point(|(entry, _)| *entry <= offset).checked_sub(1)?;
        Some(TailRead::File { file: range.file, start: range.entries[entry].1, end: range.end_position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::Epoch;

    fn batch(base: u64, length: usize) -> PublishedBatch {
        PublishedBatch {
            base_offset: Offset(base),
            next_offset: Offset(base + 1),
            file: FileId { epoch: Epoch(1), nonce: 1 },
            position: BytePosition(512 + base * length as u64),
            max_timestamp_ms: base as i64 / 2 * 10,
            bytes: Bytes::from(vec![base as u8; length]),
        }
    }

    fn bounds(high_watermark: u64) -> PartitionBounds {
        PartitionBounds { epoch: Epoch(1), log_start: Offset(0), high_watermark: Offset(high_watermark) }
    }

    fn tail_of(count: u64, length: usize, limit: usize) -> Tail {
        let tail = Tail::new(bounds(0), limit);
        for base in 0..count {
            tail.publish(Published { bounds: bounds(base + 1), batches: vec![batch(base, length)] });
        }
        tail
    }

    #[test]
    fn reads_what_is_held_and_says_what_is_not() {
        let tail = tail_of(10, 100, 500);
        assert_eq!(tail.first_held(), Offset(5));
        assert_eq!(tail.read(Offset(10), 1000), TailRead::AtEnd);
        assert_eq!(tail.read(Offset(11), 1000), TailRead::OutOfRange);
        let TailRead::Batches { base_offset, next_offset, bytes } = tail.read(Offset(7), 250) else { panic!() };
        assert_eq!((base_offset, next_offset, bytes.len()), (Offset(7), Offset(9), 200));
        let TailRead::Batches { next_offset, .. } = tail.read(Offset(7), 1) else { panic!() };
        assert_eq!(next_offset, Offset(8), "one batch comes even if it is larger than asked for");
    }

    #[test]
    fn a_time_is_found_at_or_before_its_first_record() {
        let tail = tail_of(10, 40_000, 80_000);
        let from = |search| tail.find_time(search).map(|hint| (hint.from.0, hint.timestamp_ms));
        assert_eq!(from(TimeSearch::AtOrAfter(-5)), Some((0, -5)));
        assert_eq!(from(TimeSearch::AtOrAfter(20)), Some((4, 20)));
        assert_eq!(from(TimeSearch::AtOrAfter(25)), Some((6, 25)));
        assert_eq!(from(TimeSearch::AtOrAfter(41)), None);
        assert_eq!(from(TimeSearch::Highest), Some((8, 40)));
        tail.publish(Published { bounds: PartitionBounds { log_start: Offset(7), ..bounds(10) }, batches: vec![] });
        assert_eq!(from(TimeSearch::AtOrAfter(20)), Some((7, 20)), "what was deleted is not there any more");
        tail.closed(FileId { epoch: Epoch(1), nonce: 1 });
        assert_eq!(from(TimeSearch::Highest), None);
    }

    #[test]
    fn older_batches_are_found_in_the_file_until_it_is_closed() {
        let tail = tail_of(10, 40_000, 80_000);
        let file = FileId { epoch: Epoch(1), nonce: 1 };
        let end = BytePosition(512 + 400_000);
        let expected = TailRead::File { file, start: BytePosition(512 + 80_000), end };
        assert_eq!(tail.read(Offset(3), 1000), expected);
        tail.closed(file);
        assert_eq!(tail.read(Offset(3), 1000), TailRead::NotHeld);
    }
}
