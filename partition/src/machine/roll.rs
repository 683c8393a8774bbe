//! From one file to the next.
//!
//! A roll creates a file while the old one still works, then freezes the old one: none of its progress counts from
//! here on. One transaction seals it at the high watermark and registers the new file. Every batch above the high
//! watermark, whatever ack it got, is written again before any new one. The first file of a claim comes about in the
//! same way, with nothing to seal.

use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{PartitionCommandKind, PartitionView, SegmentEnd, SegmentRecord, SegmentState};
use bmq_proto::{ErrorCode, FileId, ServiceError};
use bmq_storage::index::IndexBuilder;
use bmq_storage::segment::FIRST_BATCH_POSITION;
use bmq_storage::{FolderPath, SegmentPath};

use super::close::Closing;
use super::serve::{OpenFile, Serving};
use super::{Action, Machine, Now, Phase, StoreFault};
use crate::mutant::{self, Mutant};

const ROLL_WINDOW: Duration = Duration::from_secs(60);
/// A reader's wish makes a partition roll at most this often.
const WISHED_ROLL_INTERVAL: Duration = Duration::from_secs(60);
/// How far a file may grow past the segment's size while the next one is being created.
const OVERSHOOT: (u64, u64) = (5, 4);
const FIRST_CREATE_RETRY: Duration = Duration::from_millis(20);
const LONGEST_CREATE_RETRY: Duration = Duration::from_secs(2);

/// Why a new file is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollCause {
    /// Nothing is open and batches wait.
    First,
    Size,
    Age,
    /// A reader needs what lies in the open file.
    Wished,
    /// The writer failed.
    Broken(String),
}

impl RollCause {
    /// The name used in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            RollCause::First => "first",
            RollCause::Size => "size",
            RollCause::Age => "age",
            RollCause::Wished => "wished",
            RollCause::Broken(_) => "broken",
        }
    }
}

/// A new file on its way.
#[derive(Debug)]
pub(super) struct Roll {
    /// Files being created. Two at once after a failure: the first to be ready is taken.
    candidates: Vec<FileId>,
    /// When the next candidates are created; `None` while some are on their way.
    pub start_at: Option<Monotonic>,
    /// The file whose registration is on its way.
    registering: Option<FileId>,
    /// What the store said when it had no room for a file.
    no_space: Option<String>,
}

impl Serving {
    /// When the cap on rolls allows the next one.
    fn next_roll_at(&mut self, per_minute: u32, now: Now) -> Monotonic {
        let old = |at: &Monotonic| now.monotonic.saturating_since(*at) >= ROLL_WINDOW;
        while self.rolls.front().is_some_and(old) {
            self.rolls.pop_front();
        }
        if self.rolls.len() < per_minute as usize {
            return now.monotonic;
        }
        self.rolls.front().map_or(now.monotonic, |first| *first + ROLL_WINDOW)
    }

    /// What to tell producers while nothing can be written since the store has no room.
    pub fn no_space(&self) -> Option<String> {
        let reason = self.roll.as_ref()?.no_space.as_ref()?;
        let is_stuck = self.open.as_ref().is_none_or(|open| open.frozen);
        is_stuck.then(|| format!("the partition waits for room: {reason}"))
    }

    /// Where the open segment ends if it is sealed now.
    fn seal_end(&self, open: &OpenFile) -> SegmentEnd {
        if mutant::is_on(Mutant::SealAtWritten) {
            return SegmentEnd { offset: self.next_offset, position: open.written };
        }
        SegmentEnd { offset: self.high_watermark, position: open.stable }
    }

    /// The open segment is sealed at the high watermark: have its file closed, or dropped if nothing is in it.
    pub fn retire(&mut self, open: OpenFile, now: Now) {
        let end = self.seal_end(&open);
        if end.offset == open.base_offset {
            self.garbage.add(open.file, now);
            return;
        }
        let segment = SegmentRecord {
            file: open.file,
            epoch: self.epoch,
            base_offset: open.base_offset,
            start_position: FIRST_BATCH_POSITION,
            state: SegmentState::Sealed { end },
            floor: None,
            created_at_ms: open.opened_wall_ms,
            sealed_at_ms: now.wall.0,
            max_timestamp_ms: None,
            compacted: false,
        };
        let complete = self.producers_are_complete;
        let index = complete.then(|| open.index.finish(self.snapshot()).encode());
        self.kept.insert(segment.base_offset, segment.clone());
        self.closings.insert(open.file, Closing::new(segment, index));
    }
}

impl Machine {
    fn segment_path(&self, file: FileId) -> SegmentPath {
        FolderPath::new(self.setup.cluster, self.setup.partition).segment(file)
    }

    pub(super) fn open_if_needed(&mut self, now: Now) {
        let Phase::Serving(serving) = &self.phase else { return };
        if serving.open.is_none() && !serving.pending.is_empty() {
            self.begin_roll(RollCause::First, now);
        }
    }

    pub(super) fn roll_if_full(&mut self, now: Now) {
        let Phase::Serving(serving) = &self.phase else { return };
        let Some(open) = &serving.open else { return };
        if open.written.0 >= self.setup.config.segment_bytes.0 {
            self.begin_roll(RollCause::Size, now);
        } else if now.monotonic >= open.opened_at + self.setup.config.roll_age() && !open.frozen {
            self.begin_roll(RollCause::Age, now);
        }
    }

    pub(super) fn take_roll_wish(&mut self, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let recent = |at: Monotonic| now.monotonic.saturating_since(at) < WISHED_ROLL_INTERVAL;
        let something = serving.open.as_ref().is_some_and(|open| serving.high_watermark > open.base_offset);
        if something && !serving.last_wished_roll.is_some_and(recent) {
            serving.last_wished_roll = Some(now.monotonic);
            self.begin_roll(RollCause::Wished, now);
        }
    }

    pub(super) fn begin_roll(&mut self, cause: RollCause, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        if let (RollCause::Broken(_), Some(open)) = (&cause, &mut serving.open) {
            open.frozen = true;
            serving.failures += u32::from(open.stable == FIRST_BATCH_POSITION);
        }
        if serving.roll.is_some() || serving.sealing {
            return;
        }
        let start_at = serving.next_roll_at(self.setup.config.rolls_per_minute, now);
        serving.rolls.push_back(start_at);
        let roll = Roll { candidates: Vec::new(), start_at: Some(start_at), registering: None, no_space: None };
        serving.roll = Some(roll);
        self.out.push(Action::RollBegun(cause));
        self.start_roll_if_due(now);
    }

    pub(super) fn start_roll_if_due(&mut self, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(roll) = &mut serving.roll else { return };
        if roll.start_at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        roll.start_at = None;
        let candidates = if serving.failures > 0 { 2 } else { 1 };
        for _ in 0..candidates {
            let file = FileId { epoch: serving.epoch, nonce: self.nonces.next() };
            roll.candidates.push(file);
            self.out.push(Action::Create(file));
        }
    }

    pub(super) fn finish_create(&mut self, file: FileId, result: Result<(), StoreFault>, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return self.out.push(Action::Discard(file)) };
        let Some(roll) = serving.roll.as_mut().filter(|roll| roll.candidates.contains(&file)) else {
            return self.out.push(Action::Discard(file));
        };
        roll.candidates.retain(|candidate| *candidate != file);
        match result {
            Ok(()) if roll.registering.is_none() => self.register(file),
            Ok(()) => self.out.push(Action::Discard(file)),
            Err(fault) => {
                serving.failures += 1;
                if let StoreFault::NoSpace(reason) = fault {
                    roll.no_space = Some(reason);
                }
                if roll.candidates.is_empty() && roll.registering.is_none() {
                    let doublings = serving.failures.min(8);
                    let wait = (FIRST_CREATE_RETRY * 2u32.pow(doublings)).min(LONGEST_CREATE_RETRY);
                    // The wait bounds the tries of one roll; the cap is for rolls, and counting tries would have the
                    // partition stand still long after the store is well again.
                    roll.start_at = Some(now.monotonic + wait);
                }
                self.out.push(Action::Discard(file));
                self.tell_no_space();
            }
        }
    }

    /// Whoever waits while there is no room is told, and may ask again: the batches stay, and will be written.
    fn tell_no_space(&mut self) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(message) = serving.no_space() else { return };
        for waiting in serving.pending.take_waiting() {
            let error = ServiceError::unknown(ErrorCode::Storage, message.clone());
            self.out.push(Action::Reply { token: waiting.token, reply: Err(error) });
        }
    }

    /// Freezes the old file and asks for the transaction that replaces it.
    fn register(&mut self, file: FileId) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        if let Some(roll) = &mut serving.roll {
            roll.registering = Some(file);
        }
        if let Some(open) = &mut serving.open {
            open.frozen = true;
        }
        let seal = serving.open.as_ref().map(|open| serving.seal_end(open));
        let base_offset = seal.map_or(serving.high_watermark, |end| end.offset);
        self.commands.submit(PartitionCommandKind::OpenSegment {
            epoch: serving.epoch,
            file,
            start_position: FIRST_BATCH_POSITION,
            base_offset,
            seal,
        });
    }

    /// The old file is sealed, the new one counts: write again what is not durable.
    pub(super) fn finish_open_segment(&mut self, file: FileId, _view: &PartitionView, now: Now) {
        let path = self.segment_path(file);
        let Phase::Serving(serving) = &mut self.phase else { return };
        let late = serving.roll.take().map(|roll| roll.candidates).unwrap_or_default();
        if let Some(old) = serving.open.take() {
            serving.retire(old, now);
        }
        serving.open = Some(OpenFile {
            file,
            base_offset: serving.high_watermark,
            opened_at: now.monotonic,
            opened_wall_ms: now.wall.0,
            written: FIRST_BATCH_POSITION,
            stable: FIRST_BATCH_POSITION,
            full_at: self.setup.config.segment_bytes.0 * OVERSHOOT.0 / OVERSHOOT.1,
            index: IndexBuilder::new(path, serving.high_watermark),
            frozen: false,
        });
        if mutant::is_on(Mutant::RewriteSkipped) {
            serving.pending.skip_rewind(FIRST_BATCH_POSITION);
        } else {
            serving.pending.rewind();
        }
        serving.write(&mut self.out);
        drop(late); // Their `Created` events find no roll that wants them and discard them.
        self.begin_closing(now);
    }

    pub(super) fn seal_if_idle(&mut self, now: Now) {
        let Phase::Serving(serving) = &self.phase else { return };
        if now.monotonic >= serving.idle_at(&self.setup.config) {
            self.seal_open_file();
        }
    }

    /// Seals the open file without a successor, if nothing is on its way.
    pub(super) fn seal_open_file(&mut self) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        if serving.sealing || serving.roll.is_some() || !serving.pending.is_empty() {
            return;
        }
        let Some(open) = &mut serving.open else { return };
        open.frozen = true;
        serving.sealing = true;
        let file = open.file;
        let Some(open) = &serving.open else { return };
        let end = serving.seal_end(open);
        self.commands.submit(PartitionCommandKind::SealSegment { epoch: serving.epoch, file, end });
    }

    pub(super) fn finish_seal(&mut self, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        serving.sealing = false;
        if let Some(open) = serving.open.take() {
            serving.retire(open, now);
        }
        serving.pending.rewind();
        self.begin_closing(now);
        self.open_if_needed(now);
    }
}
