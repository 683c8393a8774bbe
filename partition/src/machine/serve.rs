//! Serving: take batches in, hand them to the writer, move the high watermark, answer.

use std::collections::{BTreeMap, VecDeque};

use bmq_common::clock::Monotonic;
use bmq_proto::broker::{AckLevel, Appended, PartitionBounds};
use bmq_proto::meta::{Checkpoint, PartitionCommandKind, PartitionHead, SegmentRecord};
use bmq_proto::record_batch::{BatchHeader, TimestampType, assign};
use bmq_proto::{BytePosition, Epoch, ErrorCode, FileId, Offset, ServiceError};
use bmq_storage::index::{IndexBuilder, IndexedBatch};
use bmq_storage::{ProducerSnapshot, WriterProgress, WriterState};
use bytes::Bytes;

use super::close::Closing;
use super::compaction::Compaction;
use super::event::PublishedBatch;
use super::garbage::Garbage;
use super::log_start::LogStartMove;
use super::pending::{Pending, PendingBatch, Waiting};
use super::roll::{Roll, RollCause};
use super::{Action, Machine, Now, Phase, Published, ScanReport};
use crate::append::{Append, Lane, ValidatedBatch, not_owner};
use crate::config::PartitionConfig;
use crate::gate::Gate;
use crate::mutant::{self, Mutant};
use crate::producer_table::{ProducerTable, Sequence};

#[derive(Debug)]
pub(super) struct Serving {
    pub epoch: Epoch,
    pub log_start: Offset,
    pub next_offset: Offset,
    pub high_watermark: Offset,
    pub pending: Pending,
    /// Producers with every batch taken in: judges new ones.
    accepted: ProducerTable,
    /// Whether recovery read everything that could tell of producers. If not, a producer that is not known may have
    /// batches that nobody sees, and no index is made from these tables.
    pub producers_are_complete: bool,
    /// Producers with every batch below the high watermark: goes into the index.
    stable: ProducerTable,
    pub open: Option<OpenFile>,
    pub roll: Option<Roll>,
    /// A command that seals the open file without a successor is on its way.
    pub sealing: bool,
    pub closings: BTreeMap<FileId, Closing>,
    /// The sealed segments on record, by their first offset.
    pub kept: BTreeMap<Offset, SegmentRecord>,
    pub moving: LogStartMove,
    pub compaction: Compaction,
    pub garbage: Garbage,
    /// When the last rolls were, for the cap.
    pub rolls: VecDeque<Monotonic>,
    /// Files that failed before anything was durable in them, in a row.
    pub failures: u32,
    pub last_wished_roll: Option<Monotonic>,
    last_append: Monotonic,
    checkpointed: CheckpointMark,
    pub release_until: Option<ReleaseLimits>,
}

/// The file that batches go to.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub file: FileId,
    pub base_offset: Offset,
    pub opened_at: Monotonic,
    pub opened_wall_ms: i64,
    /// After the last byte handed to the writer.
    pub written: BytePosition,
    /// After the last batch below the high watermark.
    pub stable: BytePosition,
    pub index: IndexBuilder,
    /// From here on batches wait for the next file, which is on its way since the segment's size was reached.
    pub full_at: u64,
    /// No progress counts any more: a successor or a seal is being decided.
    pub frozen: bool,
}

#[derive(Debug, Clone, Copy)]
struct CheckpointMark {
    at: Monotonic,
    bytes_since: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ReleaseLimits {
    /// When outstanding batches are given up.
    pub drain: Monotonic,
    /// When closing sealed files is left to the next owner.
    pub close: Monotonic,
    /// When everything is.
    pub end: Monotonic,
    /// The next of these.
    pub next: Monotonic,
}

impl Serving {
    pub fn new(head: &PartitionHead, report: &ScanReport, now: Now) -> Self {
        let start = head.sealed_end;
        let producers = ProducerTable::from_snapshot(report.producers.clone());
        Self {
            epoch: head.epoch,
            log_start: head.log_start,
            next_offset: start,
            high_watermark: start,
            pending: Pending::default(),
            producers_are_complete: true,
            accepted: producers.clone(),
            stable: producers,
            open: None,
            roll: None,
            sealing: false,
            closings: BTreeMap::new(),
            kept: BTreeMap::new(),
            moving: LogStartMove::new(head.log_start, now),
            compaction: Compaction::new(now),
            garbage: Garbage::default(),
            rolls: VecDeque::new(),
            failures: 0,
            last_wished_roll: None,
            last_append: now.monotonic,
            checkpointed: CheckpointMark { at: now.monotonic, bytes_since: 0 },
            release_until: None,
        }
    }

    pub fn bounds(&self) -> PartitionBounds {
        PartitionBounds { epoch: self.epoch, log_start: self.log_start, high_watermark: self.high_watermark }
    }

    pub fn bounds_only(&self) -> Published {
        Published { bounds: self.bounds(), batches: Vec::new() }
    }

    /// Takes appends in order, and hands what was taken to the writer in one piece.
    pub fn append(
        &mut self,
        appends: Vec<Append>,
        gate: &mut Gate<Lane>,
        config: &PartitionConfig,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let mut parts: Vec<Bytes> = Vec::with_capacity(appends.len());
        let mut shown = Vec::new();
        for append in appends {
            let (token, lane, generation) = (append.token, append.lane, append.generation);
            let taken = gate.check(&lane, generation).and_then(|()| self.take(append, config, out));
            match taken {
                Ok(Some(bytes)) => {
                    if mutant::is_on(Mutant::TailAboveHighWatermark) {
                        shown.push(self.show_last(&bytes));
                    }
                    parts.push(bytes);
                }
                Ok(None) => {}
                Err(error) => {
                    assert_eq!(error.happened, bmq_proto::Happened::NotApplied, "only batches without an offset fail");
                    gate.refuse(lane, generation, now.monotonic);
                    out.push(Action::Reply { token, reply: Err(error) });
                }
            }
        }
        if parts.is_empty() {
            return;
        }
        self.last_append = now.monotonic;
        self.write(out);
        if !shown.is_empty() {
            out.push(Action::Publish(Published { bounds: self.bounds(), batches: shown }));
        }
    }

    /// Takes one append. `Some` bytes if it is new, `None` if it waits for, or was answered by, an earlier one.
    fn take(
        &mut self,
        append: Append,
        config: &PartitionConfig,
        out: &mut Vec<Action>,
    ) -> Result<Option<Bytes>, ServiceError> {
        if append.epoch != self.epoch {
            let message = format!("the partition is at epoch {}, the request names {}", self.epoch, append.epoch);
            return Err(not_owner(&message));
        }
        let batch = append.batch?;
        let header = *batch.header();
        if let Some(key) = header.producer() {
            match self.accepted.judge(key, &header) {
                Sequence::Next => {}
                Sequence::Unknown if self.producers_are_complete || header.base_sequence() == 0 => {}
                Sequence::Unknown => {
                    let message = format!("what producer {} wrote before cannot be read, start a new epoch", key.id);
                    return Err(ServiceError::not_applied(ErrorCode::OutOfOrderSequence, message));
                }
                Sequence::Duplicate { base_offset, .. } => {
                    self.answer_duplicate(append.token, base_offset, out);
                    return Ok(None);
                }
                Sequence::Gap { expected, found } => {
                    let message = format!("producer {} sent sequence {found}, {expected} comes next", key.id);
                    return Err(ServiceError::not_applied(ErrorCode::OutOfOrderSequence, message));
                }
                Sequence::Fenced { current, found } => {
                    let message = format!("producer {} has epoch {current}, the batch has {found}", key.id);
                    return Err(ServiceError::not_applied(ErrorCode::ProducerFenced, message));
                }
            }
        }
        // A hiccup of the store is bridged by the buffer. A full disk may stay full: better to say so than to take more.
        if let Some(message) = self.no_space() {
            return Err(ServiceError::not_applied(ErrorCode::Storage, message));
        }
        if self.pending.bytes() + batch.len() > config.buffer_bytes.0 as usize {
            let message = format!("{} bytes wait for storage, try again", self.pending.bytes());
            return Err(ServiceError::not_applied(ErrorCode::Busy, message));
        }
        Ok(Some(self.accept(append.token, append.ack, batch, out)))
    }

    /// From here on the batch has an offset: its answer is `Ok` or `Unknown`.
    fn accept(
        &mut self,
        token: crate::ReplyToken,
        ack: AckLevel,
        batch: ValidatedBatch,
        out: &mut Vec<Action>,
    ) -> Bytes {
        let header = *batch.header();
        let base_offset = self.next_offset;
        let next_offset = base_offset.plus(header.offset_count());
        let bytes = assign(batch.into_bytes(), base_offset, self.epoch);
        self.accepted.remember(&header, base_offset);
        let mut waiting = Vec::new();
        if ack == AckLevel::Memory || mutant::is_on(Mutant::AckBeforeSync) {
            let append_time_ms = append_time_ms(&header);
            out.push(Action::Reply { token, reply: Ok(Appended { base_offset, deduplicated: false, append_time_ms }) });
        } else {
            waiting.push(Waiting { token, deduplicated: false });
        }
        self.pending.push(PendingBatch { header, base_offset, next_offset, bytes: bytes.clone(), end: None, waiting });
        self.next_offset = next_offset;
        bytes
    }

    /// A duplicate is answered when the high watermark has passed the original, not before.
    fn answer_duplicate(&mut self, token: crate::ReplyToken, base_offset: Offset, out: &mut Vec<Action>) {
        let early = mutant::is_on(Mutant::DuplicateEarly);
        match self.pending.find(base_offset) {
            Some(original) if !early => original.waiting.push(Waiting { token, deduplicated: true }),
            _ => {
                let appended = Appended { base_offset, deduplicated: true, append_time_ms: None };
                out.push(Action::Reply { token, reply: Ok(appended) });
            }
        }
    }

    /// Hands every batch that waits to the open file's writer.
    pub fn write(&mut self, out: &mut Vec<Action>) {
        let Some(open) = self.open.as_mut().filter(|open| !open.frozen) else { return };
        let mut parts = Vec::new();
        while open.written.0 < open.full_at {
            let Some(bytes) = self.pending.write_next(open.written) else { break };
            open.written = open.written.plus(bytes.len() as u64);
            parts.push(bytes);
        }
        if !parts.is_empty() {
            out.push(Action::Write { file: open.file, parts });
        }
    }

    /// Moves the high watermark over every batch that is durable, answers those who wait for them, shows them.
    fn advance(&mut self, durable: BytePosition, out: &mut Vec<Action>) {
        let Some(open) = self.open.as_mut() else { return };
        let mut batches = Vec::new();
        while let Some(batch) = self.pending.pop_durable(durable) {
            let end = batch.end.expect("a durable batch was written");
            let (base_offset, next_offset) = (batch.base_offset, batch.next_offset);
            let max_timestamp_ms = batch.header.max_timestamp();
            open.index.add_batch(IndexedBatch { base_offset, next_offset, max_timestamp_ms }, &batch.bytes);
            open.stable = end;
            self.stable.remember(&batch.header, batch.base_offset);
            assert!(batch.next_offset > self.high_watermark, "the high watermark only grows");
            self.high_watermark = batch.next_offset;
            self.checkpointed.bytes_since += batch.bytes.len() as u64;
            for Waiting { token, deduplicated } in batch.waiting {
                let append_time_ms = append_time_ms(&batch.header).filter(|_| !deduplicated);
                let appended = Appended { base_offset: batch.base_offset, deduplicated, append_time_ms };
                out.push(Action::Reply { token, reply: Ok(appended) });
            }
            let position = BytePosition(end.0 - batch.bytes.len() as u64);
            let (file, bytes) = (open.file, batch.bytes);
            batches.push(PublishedBatch { base_offset, next_offset, file, position, max_timestamp_ms, bytes });
        }
        if !batches.is_empty() {
            self.failures = 0;
            out.push(Action::Publish(Published { bounds: self.bounds(), batches }));
        }
    }

    fn show_last(&self, bytes: &Bytes) -> PublishedBatch {
        let file = FileId { epoch: self.epoch, nonce: 0 };
        let base_offset = Offset(self.next_offset.0 - 1);
        PublishedBatch {
            base_offset,
            next_offset: self.next_offset,
            file,
            position: BytePosition::ZERO,
            max_timestamp_ms: 0,
            bytes: bytes.clone(),
        }
    }

    /// The producers that belong into the index of a segment that ends at the high watermark.
    pub fn snapshot(&self) -> ProducerSnapshot {
        if mutant::is_on(Mutant::SnapshotAtEnqueue) { self.accepted.snapshot() } else { self.stable.snapshot() }
    }

    pub fn idle_at(&self, config: &PartitionConfig) -> Monotonic {
        self.last_append + config.idle_after.0
    }

    fn checkpoint_at(&self, config: &PartitionConfig) -> Option<Monotonic> {
        (self.checkpointed.bytes_since > 0).then(|| self.checkpointed.at + config.checkpoint_interval.0)
    }

    fn checkpoint_is_due(&self, config: &PartitionConfig, now: Now) -> bool {
        self.checkpointed.bytes_since >= config.checkpoint_bytes.0
            || self.checkpoint_at(config).is_some_and(|at| at <= now.monotonic)
    }

    pub fn next_deadline(&self, config: &PartitionConfig) -> Option<Monotonic> {
        let mut deadlines: Vec<Monotonic> = self.garbage.next_deadline().into_iter().collect();
        let writable = self.open.as_ref().is_some_and(|open| !open.frozen);
        deadlines.extend(self.checkpoint_at(config).filter(|_| writable));
        if let Some(roll) = &self.roll {
            deadlines.extend(roll.start_at);
        } else if let Some(open) = self.open.as_ref().filter(|_| !self.sealing) {
            deadlines.push(open.opened_at + config.roll_age());
            deadlines.extend(self.pending.is_empty().then(|| self.idle_at(config)));
        }
        deadlines.extend(self.release_until.map(|limits| limits.next));
        deadlines.extend(self.retention_at(config));
        deadlines.extend(self.compaction_at(config).filter(|_| self.release_until.is_none()));
        deadlines.into_iter().min()
    }
}

impl Machine {
    pub(super) fn take_progress(&mut self, file: FileId, progress: &WriterProgress, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(open) = serving.open.as_ref().filter(|open| open.file == file) else { return };
        let frozen = open.frozen && !mutant::is_on(Mutant::AckFromOldFile);
        match &progress.state {
            WriterState::Healthy if frozen => {}
            WriterState::Healthy => serving.advance(progress.durable, &mut self.out),
            WriterState::Broken { reason } => self.begin_roll(RollCause::Broken(reason.to_string()), now),
            WriterState::Closed { .. } => self.begin_roll(RollCause::Broken("closed".to_owned()), now),
        }
        self.roll_if_full(now);
        self.checkpoint_if_due(now);
    }

    pub(super) fn checkpoint_if_due(&mut self, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let due = serving.checkpoint_is_due(&self.setup.config, now);
        let Some(open) = serving.open.as_ref().filter(|open| due && !open.frozen) else { return };
        if self.commands.has("checkpoint") {
            serving.checkpointed.at = now.monotonic;
            return;
        }
        let checkpoint =
            Checkpoint { epoch: serving.epoch, file: open.file, position: open.stable, offset: serving.high_watermark };
        serving.checkpointed = CheckpointMark { at: now.monotonic, bytes_since: 0 };
        self.commands.submit(PartitionCommandKind::Checkpoint { checkpoint });
    }

    pub(super) fn run_serving_timers(&mut self, now: Now) {
        self.start_roll_if_due(now);
        self.roll_if_full(now);
        self.checkpoint_if_due(now);
        self.seal_if_idle(now);
        self.delete_garbage_if_due(now);
        self.apply_retention_if_due(now);
        self.compact_if_due(now);
        self.continue_release(now);
    }
}

/// When the batch was appended, if its records carry that.
fn append_time_ms(header: &BatchHeader) -> Option<i64> {
    (header.timestamp_type() == TimestampType::LogAppend).then_some(header.max_timestamp())
}
