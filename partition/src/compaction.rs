//! Compaction's work on files: of each key the last record stays.
//!
//! ```text
//!  compacted before         │ dirty: read for the keys     │ too new, or not closed yet
//!  ├── written anew, without the records that a later one replaces ──┤
//! ```
//! Invariants:
//! * a record goes only if a later one of its key stays, or if it has no value and its time is over;
//! * segments are written anew from the oldest on, and after a failure none that is newer: a record without a value is
//!   never gone before what it deletes;
//! * memory is bounded by the number of keys, and reading by a rate, one compaction at a time on a node.

mod key_map;
mod output;
mod segment_reader;

use std::sync::Arc;
use std::time::Duration;

use bmq_proto::meta::{MAX_DROPPED_SEGMENTS, SegmentRecord};
use bmq_proto::record_batch::{BatchError, BatchHeader, Record, RecordLimits, Retained, Verdict, records, retain};
use bmq_proto::{BytePosition, FileId, Offset};
use bmq_storage::{FolderPath, SegmentStore};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::machine::StoreFault;
use key_map::KeyMap;
use output::Output;
use segment_reader::SegmentReader;

/// Most keys remembered at once: about 100 MiB.
const MAX_KEYS: usize = 2 << 20;

/// How many compactions may run at once on a node. Clones share them.
#[derive(Debug, Clone)]
pub struct CompactionSlots(Arc<Semaphore>);

impl Default for CompactionSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// What to compact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionRequest {
    /// Closed segments that follow each other, from the oldest that is read on.
    pub segments: Vec<SegmentRecord>,
    /// Names for new files, as many as there are segments.
    pub files: Vec<FileId>,
    pub log_start: Offset,
    /// How long a record without a value stays after it was first met here.
    pub delete_retention: Duration,
    pub now_ms: i64,
    /// Segments are joined while they have at most so many bytes together.
    pub max_file_bytes: u64,
    pub bytes_per_second: u64,
}

/// What came of it. What is to be done is done in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactionReport {
    pub done: Vec<Replacement>,
    /// Files that were begun and are of no use.
    pub discard: Vec<FileId>,
    pub fault: Option<StoreFault>,
}

impl CompactionReport {
    /// Every file that was begun.
    pub fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.done.iter().map(|made| made.file).chain(self.discard.iter().copied())
    }
}

/// A closed file with its index, to be put in the place of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    pub replaced: Vec<(Offset, FileId)>,
    pub file: FileId,
    pub end_position: BytePosition,
    pub max_timestamp_ms: Option<i64>,
}

/// Does what the machine asked for.
pub async fn run(
    store: &dyn SegmentStore,
    folder: FolderPath,
    request: CompactionRequest,
    slots: CompactionSlots,
) -> CompactionReport {
    let _slot = slots.0.acquire().await;
    let mut report = CompactionReport::default();
    let work = Work { store, folder, request: &request };
    if let Err(fault) = work.run(KeyMap::new(MAX_KEYS), &mut report).await {
        report.fault = Some(fault);
    }
    report
}

struct Work<'a> {
    store: &'a dyn SegmentStore,
    folder: FolderPath,
    request: &'a CompactionRequest,
}

impl Work<'_> {
    async fn run(&self, mut keys: KeyMap, report: &mut CompactionReport) -> Result<(), StoreFault> {
        let covered = self.read_keys(&mut keys).await?;
        let mut files = self.request.files.iter().copied();
        for group in groups(&self.request.segments[..covered], self.request.max_file_bytes) {
            if group.iter().all(|segment| segment.compacted) && !self.has_stale(group, &keys).await? {
                continue;
            }
            let Some(file) = files.next() else { break };
            report.discard.push(file);
            let replacement = self.rewrite(group, file, &keys).await?;
            report.discard.pop();
            report.done.push(replacement);
        }
        Ok(())
    }

    /// Learns the last offset of each key in the dirty segments. Returns how many segments, clean ones included, may be
    /// written anew by that.
    async fn read_keys(&self, keys: &mut KeyMap) -> Result<usize, StoreFault> {
        let segments = &self.request.segments;
        let first = segments.iter().position(|segment| !segment.compacted).unwrap_or(segments.len());
        for (number, segment) in segments.iter().enumerate().skip(first) {
            let mut reader = self.open(segment).await?;
            while let Some((_, batch)) = reader.next().await? {
                for record in records(&batch, &limits()).map_err(|error| damaged(segment, &error))? {
                    let record = record.map_err(|error| damaged(segment, &error))?;
                    let Some(key) = &record.key else { continue };
                    while !keys.note(key, record.offset) {
                        if number > first {
                            return Ok(number);
                        }
                        // One segment has more keys than can be remembered: some of them wait for another time.
                        keys.halve();
                    }
                }
            }
        }
        Ok(segments.len())
    }

    async fn open(&self, segment: &SegmentRecord) -> Result<SegmentReader<'_>, StoreFault> {
        SegmentReader::open(self.store, self.folder, segment, self.request.bytes_per_second).await
    }

    async fn has_stale(&self, group: &[SegmentRecord], keys: &KeyMap) -> Result<bool, StoreFault> {
        for segment in group {
            let mut reader = self.open(segment).await?;
            while let Some((_, batch)) = reader.next().await? {
                if self.retain(segment, &batch, keys)? != Retained::Unchanged {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Writes a group of segments anew, as one file that is closed and has its index.
    async fn rewrite(&self, group: &[SegmentRecord], file: FileId, keys: &KeyMap) -> Result<Replacement, StoreFault> {
        let first = group.first().ok_or_else(|| StoreFault::Failed("there is nothing to compact".to_owned()))?;
        let mut output = Output::create(self.store, self.folder.segment(file), first.base_offset).await?;
        let mut end = first.base_offset;
        let mut producers = Default::default();
        for segment in group {
            let mut reader = self.open(segment).await?;
            while let Some((_, batch)) = reader.next().await? {
                match self.retain(segment, &batch, keys)? {
                    Retained::Unchanged => output.write(batch).await?,
                    Retained::Batch(batch) => output.write(batch).await?,
                    Retained::Nothing => {}
                }
            }
            end = segment.end().map_or(end, |end| end.offset);
            // What the last segment says of producers holds at its end, and so at the new one's.
            producers = reader.into_producers();
        }
        let (end_position, max_timestamp_ms) = output.close(end, producers).await?;
        let replaced = group.iter().map(|segment| (segment.base_offset, segment.file)).collect();
        Ok(Replacement { replaced, file, end_position, max_timestamp_ms })
    }

    fn retain(&self, segment: &SegmentRecord, batch: &Bytes, keys: &KeyMap) -> Result<Retained, StoreFault> {
        let keep_for = i64::try_from(self.request.delete_retention.as_millis()).unwrap_or(i64::MAX);
        let horizon_ms = self.request.now_ms.saturating_add(keep_for);
        let judge = |header: &BatchHeader, record: &Record| self.judge(header, record, keys);
        retain(batch, &limits(), Some(horizon_ms), judge).map_err(|error| damaged(segment, &error))
    }

    fn judge(&self, header: &BatchHeader, record: &Record, keys: &KeyMap) -> Verdict {
        // A record without a key is none that compaction keeps, as in Kafka.
        let Some(key) = record.key.as_ref().filter(|_| record.offset >= self.request.log_start) else {
            return Verdict::Drop;
        };
        let newest = keys.newest(key);
        if newest.is_some_and(|newest| newest > record.offset) {
            return Verdict::Drop;
        }
        if record.value.is_some() {
            return Verdict::Keep;
        }
        if header.has_delete_horizon() && header.base_timestamp() < self.request.now_ms {
            return Verdict::Drop;
        }
        // Only of a key that was looked for is it certain that nothing older stays.
        if newest.is_some() { Verdict::KeepTombstone } else { Verdict::Keep }
    }
}

/// Neighbours that fit into one file and one transaction.
fn groups(segments: &[SegmentRecord], max_file_bytes: u64) -> Vec<&[SegmentRecord]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (number, segment) in segments.iter().enumerate() {
        let size = segment.end().map_or(0, |end| end.position.0);
        if number > start && (bytes + size > max_file_bytes || number - start == MAX_DROPPED_SEGMENTS) {
            groups.push(&segments[start..number]);
            (start, bytes) = (number, 0);
        }
        bytes += size;
    }
    if start < segments.len() {
        groups.push(&segments[start..]);
    }
    groups
}

fn limits() -> RecordLimits {
    RecordLimits::default()
}

fn damaged(segment: &SegmentRecord, error: &BatchError) -> StoreFault {
    StoreFault::Damaged(format!("{} has a batch that cannot be read: {error}", segment.file))
}
