//! From the start to the first append: check the folder, claim, fence older writers, find the true end.
//!
//! ```text
//! OPEN file:    fence ─▶ record the floor ─▶ recover ─▶┐
//! SEALED files: fence ──────────────────────▶ recover ─┴▶ scan ─▶ judge ─▶ finish
//! ```
//! The floor is recorded before anything else is done to the file, so that a later claimer has it too.

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{Checkpoint, PartitionCommandKind, PartitionHead, PartitionView, SegmentRecord, SegmentState};
use bmq_proto::{BytePosition, Epoch, FileId, ServiceError};
use bmq_storage::{FenceOutcome, FoundFile};

use super::close::damaged_range;
use super::event::ScanRequest;
use super::serve::Serving;
use super::timer::STORE_RETRY;
use super::{Action, Damage, Machine, Now, Phase, ScanReport, StopReason, StoreFault, judge};
use crate::mutant::{self, Mutant};

/// How long to wait before asking again whether a file's recovery has ended.
const RECOVER_POLL: Duration = Duration::from_millis(20);

/// After so many scans that failed, indexes that cannot be read count as missing: everything is in the data as well.
const SCANS_WITH_INDEXES: u32 = 5;
/// Every so many failed scans a person is told.
const SCANS_PER_ALARM: u32 = 10;
const LONGEST_SCAN_RETRY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Recovering {
    pub head: PartitionHead,
    pub segments: Vec<SegmentRecord>,
    checkpoint: Option<Checkpoint>,
    /// Files that are not closed as far as metadata knows: the open one and the sealed ones.
    files: BTreeMap<FileId, FileState>,
    /// When sealed files are no longer waited for.
    sealed_until: Monotonic,
    /// When a scan that failed is tried again.
    scan_again_at: Option<Monotonic>,
    scan_failures: u32,
    scan: ScanProgress,
}

#[derive(Debug)]
enum ScanProgress {
    NotYet,
    Running,
    Done(Box<ScanReport>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum FileState {
    Fencing,
    RecordingFloor,
    Recovering,
    Ready(BytePosition),
    /// It cannot be what the records say.
    Failed,
}

impl Recovering {
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let waiting = matches!(self.scan, ScanProgress::NotYet) && self.open_ready().is_some();
        waiting.then(|| self.scan_again_at.unwrap_or(self.sealed_until))
    }

    fn epoch(&self) -> Epoch {
        self.head.epoch
    }

    fn segment(&mut self, file: FileId) -> Option<&mut SegmentRecord> {
        self.segments.iter_mut().find(|segment| segment.file == file)
    }

    fn is_open(&self, file: FileId) -> bool {
        self.head.open == Some(file)
    }

    /// The open segment and its final length, once that is known. The outer `None`: not known yet.
    fn open_ready(&self) -> Option<Option<(SegmentRecord, BytePosition)>> {
        let Some(file) = self.head.open else { return Some(None) };
        let segment = self.segments.iter().find(|segment| segment.file == file)?;
        match self.files.get(&file) {
            Some(FileState::Ready(length)) => Some(Some((segment.clone(), *length))),
            _ => None,
        }
    }

    fn sealed_settled(&self) -> bool {
        let settled = |state: &FileState| matches!(state, FileState::Ready(_) | FileState::Failed);
        self.files.iter().all(|(file, state)| self.is_open(*file) || settled(state))
    }

    /// Sealed segments that can be read now.
    fn readable(&self) -> Vec<SegmentRecord> {
        let ready = |segment: &&SegmentRecord| match segment.state {
            SegmentState::Open => false,
            SegmentState::Closed { .. } => true,
            SegmentState::Sealed { .. } => matches!(self.files.get(&segment.file), Some(FileState::Ready(_))),
        };
        self.segments.iter().filter(ready).cloned().collect()
    }

    fn note_scan_failure(&mut self) -> Duration {
        self.scan = ScanProgress::NotYet;
        self.scan_failures += 1;
        (STORE_RETRY * 2u32.pow(self.scan_failures.min(10))).min(LONGEST_SCAN_RETRY)
    }

    /// Says what is missing, if anything is that was known to be there.
    fn find_damage(&self, report: &ScanReport) -> Option<String> {
        if mutant::is_on(Mutant::FloorIgnored) {
            return None;
        }
        let open = report.open.as_ref()?;
        if open.end.offset < self.head.log_start {
            let (file, found, start) = (open.file, open.end.offset, self.head.log_start);
            return Some(format!("file {file} holds records up to {found}, all up to {start} were durable"));
        }
        let segment = self.segments.iter().find(|segment| segment.file == open.file)?;
        let checkpoint = self.checkpoint.filter(|checkpoint| checkpoint.file == segment.file);
        let checkpoint = checkpoint.map(|checkpoint| checkpoint.position).unwrap_or_default();
        judge::damage(open, segment.floor.unwrap_or_default(), checkpoint)
    }
}

impl Machine {
    /// First the folder is listed and then the head read: if a file's epoch is above the head's, metadata is an old copy.
    /// This comes before the claim, because a claim would lift the head's epoch to that of files it does not know.
    pub(super) fn begin_check(&mut self) {
        assert!(matches!(self.phase, Phase::New), "a machine claims once");
        self.phase = Phase::Checking { newest: None };
        self.out.push(Action::ListFolder);
    }

    pub(super) fn finish_listing(&mut self, result: Result<Vec<FoundFile>, StoreFault>, now: Now) {
        let Phase::Checking { newest } = &mut self.phase else { return };
        match result {
            Ok(files) => {
                *newest = files.iter().map(|found| found.file).max();
                self.out.push(Action::ReadHead);
            }
            Err(_) => self.later(STORE_RETRY, Action::ListFolder, now),
        }
    }

    pub(super) fn finish_head_read(&mut self, result: Result<PartitionHead, ServiceError>, now: Now) {
        let Phase::Checking { newest } = &self.phase else { return };
        let head = match result {
            Ok(head) => head,
            Err(_) => return self.later(STORE_RETRY, Action::ReadHead, now),
        };
        match newest.filter(|file| file.epoch > head.epoch) {
            None => {
                self.phase = Phase::Claiming;
                self.commands.submit(PartitionCommandKind::Claim { owner: self.setup.me });
            }
            Some(file) => {
                self.out.push(Action::Alarm(format!(
                    "file {file} has an epoch above the {} that metadata knows: metadata is an old copy, nothing is \
                     claimed",
                    head.epoch
                )));
                self.stop(StopReason::OldMetadata { file, known: head.epoch });
            }
        }
    }

    pub(super) fn finish_claim(&mut self, view: PartitionView, now: Now) {
        assert!(matches!(self.phase, Phase::Claiming), "a claim ends where it began");
        self.begin_recovering(view, now);
    }

    fn begin_recovering(&mut self, view: PartitionView, now: Now) {
        let PartitionView { head, segments, checkpoint } = view;
        let mut files = BTreeMap::new();
        for segment in segments.iter().filter(|segment| !segment.is_closed()) {
            let forgotten = segment.end().is_some() && mutant::is_on(Mutant::SealedForgotten);
            if !forgotten {
                files.insert(segment.file, FileState::Fencing);
                self.out.push(Action::Fence(segment.file));
            }
        }
        let sealed_until = now.monotonic + self.setup.config.sealed_wait.0;
        let recovering = Recovering {
            head,
            segments,
            checkpoint,
            files,
            sealed_until,
            scan_again_at: None,
            scan_failures: 0,
            scan: ScanProgress::NotYet,
        };
        self.phase = Phase::Recovering(Box::new(recovering));
    }

    pub(super) fn finish_fence(&mut self, file: FileId, result: Result<FenceOutcome, StoreFault>, now: Now) {
        let Phase::Recovering(recovering) = &mut self.phase else { return };
        let open = recovering.is_open(file);
        let state = match result {
            Ok(FenceOutcome::Closed { length }) => FileState::Ready(length),
            Ok(FenceOutcome::Open { floor }) => {
                let known = recovering.segment(file).and_then(|segment| segment.floor);
                if open && known.is_none_or(|known| known < floor) {
                    let epoch = recovering.epoch();
                    self.commands.submit(PartitionCommandKind::RecordFloor { epoch, file, floor });
                    FileState::RecordingFloor
                } else {
                    self.out.push(Action::Recover(file));
                    FileState::Recovering
                }
            }
            Err(StoreFault::NotFound) => return self.file_is_missing(file),
            Err(_) => return self.later(STORE_RETRY, Action::Fence(file), now),
        };
        recovering.files.insert(file, state);
        self.scan_if_ready(now);
    }

    pub(super) fn finish_record_floor(&mut self, file: FileId, floor: BytePosition) {
        let Phase::Recovering(recovering) = &mut self.phase else { return };
        if let Some(segment) = recovering.segment(file) {
            segment.floor = Some(floor);
        }
        recovering.files.insert(file, FileState::Recovering);
        self.out.push(Action::Recover(file));
    }

    pub(super) fn finish_recover(&mut self, file: FileId, result: Result<BytePosition, StoreFault>, now: Now) {
        let Phase::Recovering(recovering) = &mut self.phase else { return };
        match result {
            Ok(length) => {
                recovering.files.insert(file, FileState::Ready(length));
                self.scan_if_ready(now);
            }
            Err(StoreFault::NotClosed) => self.later(RECOVER_POLL, Action::Recover(file), now),
            Err(StoreFault::NotFound) => self.file_is_missing(file),
            Err(_) => self.later(STORE_RETRY, Action::Recover(file), now),
        }
    }

    /// Creating a file promises that it is there, so a registered one that is not was lost.
    fn file_is_missing(&mut self, file: FileId) {
        let Phase::Recovering(recovering) = &mut self.phase else { return };
        if recovering.is_open(file) {
            let epoch = recovering.epoch();
            return self.refuse_writes(Damage { epoch, reason: format!("file {file} does not exist") });
        }
        recovering.files.insert(file, FileState::Failed);
        self.out.push(Action::Alarm(format!("sealed file {file} does not exist: its range cannot be read")));
    }

    pub(super) fn scan_if_ready(&mut self, now: Now) {
        let Phase::Recovering(recovering) = &mut self.phase else { return };
        let waits = recovering.scan_again_at.is_some_and(|at| now.monotonic < at);
        if waits || !matches!(recovering.scan, ScanProgress::NotYet) {
            return;
        }
        let Some(open) = recovering.open_ready() else { return };
        if !recovering.sealed_settled() && now.monotonic < recovering.sealed_until {
            return;
        }
        let without_indexes = recovering.scan_failures >= SCANS_WITH_INDEXES;
        let request = ScanRequest { sealed: recovering.readable(), open, without_indexes };
        recovering.scan = ScanProgress::Running;
        self.out.push(Action::Scan(request));
    }

    pub(super) fn finish_scan(&mut self, result: Result<ScanReport, StoreFault>, now: Now) {
        let Phase::Recovering(recovering) = &mut self.phase else { return };
        let report = match result {
            Ok(report) => report,
            Err(StoreFault::Damaged(reason)) => {
                let epoch = recovering.epoch();
                return self.refuse_writes(Damage { epoch, reason });
            }
            Err(fault) => {
                let wait = recovering.note_scan_failure();
                recovering.scan_again_at = Some(now.monotonic + wait);
                if recovering.scan_failures.is_multiple_of(SCANS_PER_ALARM) {
                    let message = format!("recovery cannot read the partition's files and goes on trying: {fault:?}");
                    self.out.push(Action::Alarm(message));
                }
                return;
            }
        };
        for (file, reason) in &report.damaged {
            self.out.push(Action::Alarm(format!("sealed file {file} is damaged: {reason}")));
        }
        let start = report.open.as_ref().map_or(recovering.head.sealed_end, |open| open.end.offset);
        if let Some(reason) = recovering.find_damage(&report) {
            let epoch = recovering.epoch();
            return self.refuse_writes(Damage { epoch, reason });
        }
        let found = report.open.as_ref().map(|open| (open.file, open.end));
        let epoch = recovering.epoch();
        recovering.scan = ScanProgress::Done(Box::new(report));
        self.commands.submit(PartitionCommandKind::FinishRecovery { epoch, found, start });
    }

    pub(super) fn finish_recovery(&mut self, view: PartitionView, now: Now) {
        let Phase::Recovering(recovering) = std::mem::replace(&mut self.phase, Phase::New) else {
            unreachable!("recovery ends where it began")
        };
        let Recovering { segments, files, scan, .. } = *recovering;
        let ScanProgress::Done(report) = scan else { unreachable!("recovery is finished with a report of the scan") };
        let unread = |state: &FileState| !matches!(state, FileState::Ready(_));
        let mut serving = Serving::new(&view.head, &report, now);
        let complete = !files.values().any(unread) && report.damaged.is_empty() && !report.forgetful;
        serving.producers_are_complete = complete;
        let failed = |file: &FileId| files.get(file) == Some(&FileState::Failed);
        let unreadable = serving.take_over(segments, &report, failed, now);
        self.out.push(Action::Publish(serving.bounds_only()));
        self.out.extend(unreadable.iter().filter_map(damaged_range));
        self.out.push(Action::ListGarbage);
        self.phase = Phase::Serving(Box::new(serving));
        self.begin_closing(now);
    }

    pub(super) fn refuse_writes(&mut self, damage: Damage) {
        self.out.push(Action::Alarm(damage.refusal().message));
        self.commands.clear();
        self.phase = Phase::Refusing(damage);
    }
}
