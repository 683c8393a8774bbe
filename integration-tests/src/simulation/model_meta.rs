//! A model of the metadata service: the real transitions over records in memory, one command at a time.
//!
//! What is uncertain about it, answers that are lost or late, happens on the way to it and back.

use std::collections::BTreeMap;

use bmq_meta::transition::{PartitionRecords, answer, apply};
use bmq_proto::meta::{Intent, PartitionCommand, PartitionCommandKind, PartitionView, SegmentEnd, SegmentRecord};
use bmq_proto::{Epoch, ErrorCode, FileId, NodeId, ServiceError, Term};

use super::env::Env;
use super::happening::FileKey;
use super::model_store::Known;

pub struct ModelMeta {
    pub partitions: Vec<PartitionMeta>,
    pub down_until: u64,
}

pub struct PartitionMeta {
    pub records: PartitionRecords,
    /// The node, by its number in the run, that shall own the partition.
    pub wanted: usize,
    /// Grows with each change of what is wanted.
    pub intent_version: u64,
    /// The records as they were some time ago.
    pub copy: Option<PartitionRecords>,
    /// Every file ever registered, and under which epoch.
    pub registered: BTreeMap<FileId, Epoch>,
}

/// What a command did.
#[derive(Debug)]
pub struct Applied {
    pub result: Result<PartitionView, ServiceError>,
    /// Whether the head changed.
    pub changed: bool,
    /// A segment that got its end.
    pub sealed: Option<(FileId, SegmentEnd)>,
    /// The segment that was open and was dropped, since it ended where it began.
    pub dropped: Option<FileId>,
}

impl ModelMeta {
    pub fn new(partitions: usize) -> Self {
        let partition = || PartitionMeta {
            records: PartitionRecords::default(),
            wanted: 0,
            intent_version: 0,
            copy: None,
            registered: BTreeMap::new(),
        };
        Self { partitions: (0..partitions).map(|_| partition()).collect(), down_until: 0 }
    }

    pub fn execute(&mut self, partition: usize, command: &PartitionCommand, env: &mut Env) -> Applied {
        let this = &mut self.partitions[partition];
        let intent = Intent { node: NodeId(this.wanted as u32), term: Term(1) };
        let before = this.records.head.clone();
        let repeated = command.nonce == before.last_nonce;
        let changes = match apply(&this.records, Some(&intent), command) {
            Ok(changes) => changes,
            Err(error) => {
                note_refusal(&error, env);
                return Applied { result: Err(error), changed: false, sealed: None, dropped: None };
            }
        };
        if let Some(epoch) = command.kind.epoch().filter(|epoch| *epoch != before.epoch) {
            let name = command.kind.name();
            env.violated(|| format!("{name} of epoch {epoch} was accepted at epoch {}", before.epoch));
        }
        env.coverage.hit(if repeated { "command: repeated" } else { coverage_name(&command.kind) });
        let open = before.open;
        let changed = changes.head.is_some();
        this.records.absorb(changes);
        if let PartitionCommandKind::OpenSegment { file, epoch, .. } = &command.kind {
            this.registered.insert(*file, *epoch);
        }
        let ended = open.filter(|open| this.records.head.open != Some(*open));
        let record = ended.and_then(|file| this.records.segments.values().find(|segment| segment.file == file));
        let sealed = record.and_then(|record| Some((record.file, record.end()?)));
        let dropped = ended.filter(|_| record.is_none());
        if let Err(reason) = check_records(&this.records) {
            env.violated(|| format!("after {command:?}: {reason}"));
        }
        Applied { result: Ok(answer(&this.records, command)), changed, sealed, dropped }
    }

    pub fn segment(&self, key: FileKey) -> Option<&SegmentRecord> {
        self.partitions[key.partition].records.segments.values().find(|segment| segment.file == key.file)
    }

    /// What is on record of a file that says how much of it is durable.
    pub fn known(&self, key: FileKey) -> Known {
        let Some(segment) = self.segment(key) else { return Known::Nothing };
        match (segment.end(), segment.floor) {
            (Some(end), _) => Known::SealedAt(end.position.0 as usize),
            (None, Some(floor)) => {
                let checkpoint = self.partitions[key.partition].records.checkpoint;
                let here = checkpoint.filter(|checkpoint| checkpoint.file == key.file);
                let checkpoint = here.map_or(0, |checkpoint| checkpoint.position.0 as usize);
                Known::Open { floor: floor.0 as usize, checkpoint }
            }
            (None, None) => Known::Nothing,
        }
    }
}

fn note_refusal(error: &ServiceError, env: &mut Env) {
    match error.code {
        ErrorCode::Fenced => env.coverage.hit("command: fenced"),
        ErrorCode::NotOwner => env.coverage.hit("command: claim refused"),
        _ => {}
    }
}

fn coverage_name(kind: &PartitionCommandKind) -> &'static str {
    match kind {
        PartitionCommandKind::Claim { .. } => "command: claim",
        PartitionCommandKind::RecordFloor { .. } => "command: record_floor",
        PartitionCommandKind::FinishRecovery { .. } => "command: finish_recovery",
        PartitionCommandKind::OpenSegment { .. } => "command: open_segment",
        PartitionCommandKind::SealSegment { .. } => "command: seal_segment",
        PartitionCommandKind::CloseSegment { .. } => "command: close_segment",
        PartitionCommandKind::ReplaceSegments { .. } => "command: replace_segments",
        PartitionCommandKind::MoveLogStart { .. } => "command: move_log_start",
        PartitionCommandKind::Checkpoint { .. } => "command: checkpoint",
        PartitionCommandKind::Release { .. } => "command: release",
        PartitionCommandKind::ForgetGarbage { .. } => "command: forget_garbage",
    }
}

/// Segments are contiguous and hold everything from the log start on, and only the last may be open, which is then the
/// one that the head names.
fn check_records(records: &PartitionRecords) -> Result<(), String> {
    let head = &records.head;
    let mut next = records.segments.keys().next().copied().unwrap_or(head.sealed_end);
    if next > head.log_start {
        return Err(format!("the log starts at {}, the first record is {next}", head.log_start));
    }
    for (base_offset, segment) in &records.segments {
        if *base_offset != segment.base_offset || segment.base_offset != next {
            return Err(format!("segment {segment:?} does not start at {next}"));
        }
        match segment.end() {
            Some(end) if end.offset > next => next = end.offset,
            Some(_) => return Err(format!("segment {segment:?} is empty")),
            None if head.open == Some(segment.file) && next == head.sealed_end => {}
            None => return Err(format!("segment {segment:?} is open, the head names {:?}", head.open)),
        }
    }
    if next != head.sealed_end {
        return Err(format!("segments end at {next}, the head says {}", head.sealed_end));
    }
    let open_is_there = |file: &FileId| records.segments.values().any(|segment| segment.file == *file);
    if !head.open.as_ref().is_none_or(open_is_there) {
        return Err(format!("the head names {:?}, which has no record", head.open));
    }
    Ok(())
}
