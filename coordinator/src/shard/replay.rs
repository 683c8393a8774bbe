//! Stored entries made into state again. Pure.
//!
//! A whole snapshot replaces what came before it; one whose end is missing never counted, and its owner never wrote
//! anything behind it.

use bmq_proto::record_batch::{BatchHeader, RecordLimits, records, verify_crc};
use bmq_proto::{Epoch, Offset};
use bytes::Bytes;

use super::ShardState;
use super::entry::{Assembler, EntryError, EntryKind, decode};

/// Makes an empty state.
pub type NewState<S> = dyn Fn() -> S + Send + Sync;

pub struct Replay<'a, S> {
    new_state: &'a NewState<S>,
    state: S,
    /// The state that a snapshot is telling, and its bytes so far.
    candidate: Option<(S, usize)>,
    assembler: Assembler,
    epoch: Epoch,
    sizes: ReplaySizes,
}

/// How much was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplaySizes {
    pub records: usize,
    /// Of the last whole snapshot.
    pub snapshot_bytes: usize,
    /// After it.
    pub since_snapshot: usize,
}

impl<'a, S: ShardState> Replay<'a, S> {
    pub fn new(new_state: &'a NewState<S>) -> Self {
        let (candidate, assembler) = (None, Assembler::default());
        let sizes = ReplaySizes::default();
        Self { new_state, state: new_state(), candidate, assembler, epoch: Epoch::NONE, sizes }
    }

    /// Takes the next batch; its records below `from` are left out. An error says what is wrong with which record.
    pub fn take_batch(&mut self, header: &BatchHeader, batch: &Bytes, from: Offset) -> Result<(), String> {
        let at = |offset: Offset, error: &dyn std::fmt::Display| format!("offset {offset}: {error}");
        verify_crc(batch).map_err(|error| at(header.base_offset(), &error))?;
        let epoch = header.leader_epoch().unwrap_or(Epoch::NONE);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.candidate = None;
            self.assembler.begin_epoch();
        }
        let records = records(batch, &RecordLimits::default()).map_err(|error| at(header.base_offset(), &error))?;
        for record in records {
            let record = record.map_err(|error| at(header.base_offset(), &error))?;
            if record.offset < from {
                continue;
            }
            let taken = self.assembler.take(record.key.as_deref(), record.value);
            let entry = taken.map_err(|error| at(record.offset, &error))?;
            if let Some((kind, value)) = entry {
                self.take_entry(kind, value).map_err(|error| at(record.offset, &error))?;
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, kind: EntryKind, value: Bytes) -> Result<(), EntryError> {
        let bytes = value.len();
        let apply = |state: &mut S| {
            for record in decode::<S::Record>(value)? {
                self.sizes.records += 1;
                state.apply(record).map_err(EntryError::Senseless)?;
            }
            Ok(())
        };
        match kind {
            EntryKind::Append => {
                apply(&mut self.state)?;
                self.sizes.since_snapshot += bytes;
            }
            EntryKind::SnapshotBegin => self.candidate = Some(((self.new_state)(), 0)),
            EntryKind::SnapshotChunk => {
                let (state, told) = self.candidate.as_mut().ok_or(EntryError::OutsideSnapshot)?;
                apply(state)?;
                *told += bytes;
            }
            EntryKind::SnapshotEnd => {
                let (state, told) = self.candidate.take().ok_or(EntryError::OutsideSnapshot)?;
                self.state = state;
                (self.sizes.snapshot_bytes, self.sizes.since_snapshot) = (told, 0);
            }
            EntryKind::Part => unreachable!("the assembler keeps parts to itself"),
        }
        Ok(())
    }

    /// The state, and how much it was made from.
    pub fn finish(self) -> (S, ReplaySizes) {
        (self.state, self.sizes)
    }
}
