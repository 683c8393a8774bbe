//! One file of the modelled store, as the store's own servers have it.
//!
//! Invariant: `synced ≤ known ≤ bytes.len()` while open: what was synced stays, what the NameNode knows of stays, the
//! rest may go at a crash.

use bmq_storage::SegmentPath;
use bytes::Bytes;

use super::dice::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    Open,
    /// Fenced, and the store is at work to close it.
    Recovering,
    Closed,
}

/// How a sync comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFate {
    Works,
    /// An error, and the bytes are not synced; some of them may be there.
    FailsBefore,
    /// An error, and the bytes are synced.
    FailsAfter,
    /// No answer; the bytes may be synced.
    Hangs,
}

/// A group on its way through the pipeline.
#[derive(Debug)]
pub struct InFlight {
    pub bytes: Vec<u8>,
    pub end: usize,
    pub fate: SyncFate,
    /// Whether there was a fence when the group was handed over: what a writer with its steps in the wrong order asks.
    pub fenced_before: bool,
    pub landed: bool,
}

#[derive(Debug)]
pub struct ModelFile {
    pub path: SegmentPath,
    pub bytes: Vec<u8>,
    pub synced: usize,
    /// The length that the NameNode has told somebody.
    pub known: usize,
    pub state: FileState,
    pub fenced: bool,
    /// Local disk: where the fence says that the file ends.
    pub end_mark: Option<usize>,
    pub in_flight: Option<InFlight>,
    pub index: Option<Bytes>,
    /// The content, shared, once it does not change any more.
    frozen: Option<Bytes>,
}

impl ModelFile {
    pub fn new(path: SegmentPath) -> Self {
        Self {
            path,
            bytes: Vec::new(),
            synced: 0,
            known: 0,
            state: FileState::Open,
            fenced: false,
            end_mark: None,
            in_flight: None,
            index: None,
            frozen: None,
        }
    }

    /// What counts of it: on a local disk, bytes after the marked end do not.
    pub fn length(&self) -> usize {
        self.end_mark.map_or(self.bytes.len(), |mark| mark.min(self.bytes.len()))
    }

    /// Fixes the length for good.
    pub fn close_at(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.synced = length;
        self.state = FileState::Closed;
        self.frozen = None;
    }

    pub fn content(&mut self) -> Bytes {
        let length = self.length();
        if self.state != FileState::Closed {
            return Bytes::copy_from_slice(&self.bytes[..length]);
        }
        self.frozen.get_or_insert_with(|| Bytes::copy_from_slice(&self.bytes[..length])).clone()
    }

    /// Bytes of a group reach the file, all of them or, if the sync is to fail, some.
    pub fn land(&mut self, dice: &mut Dice) {
        let Some(group) = &mut self.in_flight else { return };
        if self.state == FileState::Closed && self.end_mark.is_some() {
            // A local disk takes them, behind the marked end, where they do not count.
            group.landed = matches!(group.fate, SyncFate::Works | SyncFate::FailsAfter);
            return;
        }
        let refused = self.state == FileState::Closed || (self.fenced && self.end_mark.is_none() && dice.chance(500));
        if refused {
            return;
        }
        let whole = match group.fate {
            SyncFate::Works | SyncFate::FailsAfter => true,
            SyncFate::FailsBefore => false,
            SyncFate::Hangs => dice.chance(700),
        };
        let count = if whole { group.bytes.len() } else { dice.below(group.bytes.len() as u64 + 1) as usize };
        group.landed = count == group.bytes.len();
        self.bytes.extend_from_slice(&group.bytes[..count]);
    }

    /// What a loss of power leaves: of the unsynced pages any subset, and any length.
    pub fn lose_power(&mut self, page: usize, dice: &mut Dice) -> bool {
        self.in_flight = None;
        if self.state == FileState::Closed || self.end_mark.is_some() {
            let length = self.length();
            self.bytes.truncate(length);
            return false;
        }
        let mut lost = false;
        let kept = dice.between(self.synced as u64, self.bytes.len() as u64) as usize;
        lost |= kept < self.bytes.len();
        self.bytes.truncate(kept);
        let mut at = self.synced;
        while at < self.bytes.len() {
            let end = ((at / page + 1) * page).min(self.bytes.len());
            if dice.chance(400) {
                self.bytes[at..end].fill(0);
                lost = true;
            }
            at = end;
        }
        lost
    }
}
