//! The tail of one partition that somebody reads: its ring, its bounds, and the readers that wait. Pure.
//!
//! Invariants:
//! * nothing above the high watermark is held or told;
//! * the epoch and the high watermark never go back;
//! * a reader is woken only when the bytes it waits for are there, or when it has to look elsewhere.

use std::collections::HashMap;

use bmq_proto::broker::{PartitionBounds, TailEvent};
use bmq_proto::{Epoch, Offset};
use tokio::sync::oneshot;

use super::plan::LiveTail;
use super::ring::{PushError, Ring, Slice};

/// See the head of the file.
#[derive(Debug)]
pub struct Tail {
    /// The epoch under which the tail is followed, or was last.
    epoch: Epoch,
    /// Whether a subscription under `epoch` is open and has told the bounds.
    live: bool,
    /// Nobody follows any more.
    closed: bool,
    bounds: Option<PartitionBounds>,
    ring: Ring,
    waiting: HashMap<u64, Waiting>,
    next_waiting: u64,
}

#[derive(Debug)]
struct Waiting {
    offset: Offset,
    min_bytes: u64,
    wake: oneshot::Sender<()>,
}

/// A tail event that cannot be used; the subscription must start anew.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error("the owner answers under epoch {found}, followed is {expected}")]
    OtherEpoch { expected: Epoch, found: Epoch },
    #[error("batches end at {next}, above the high watermark {high_watermark}")]
    AboveHighWatermark { next: Offset, high_watermark: Offset },
    #[error("the high watermark went back from {known} to {found}")]
    WentBack { known: Offset, found: Offset },
    #[error("the batches do not fit")]
    Batches(#[from] PushError),
}

/// What a reader finds.
#[derive(Debug)]
pub enum Readable {
    /// As much as asked for is there, or the reader must look elsewhere.
    Now,
    /// Woken when that is so. The number is for [`Tail::leave`].
    Later(u64, oneshot::Receiver<()>),
}

impl Tail {
    /// A tail not followed yet, which will begin at `offset`.
    pub fn new(offset: Offset) -> Self {
        Self {
            epoch: Epoch::NONE,
            live: false,
            closed: false,
            bounds: None,
            ring: Ring::new(offset),
            waiting: HashMap::new(),
            next_waiting: 0,
        }
    }

    /// What a plan needs to know, while the tail is followed under `epoch`.
    pub fn live(&self, epoch: Epoch) -> Option<LiveTail> {
        let bounds = self.bounds.filter(|_| self.live && self.epoch >= epoch)?;
        Some(LiveTail { ring: self.ring.range(), high_watermark: bounds.high_watermark })
    }

    /// The newest bounds told, live or not.
    pub fn bounds(&self) -> Option<PartitionBounds> {
        self.bounds
    }

    pub fn held(&self) -> usize {
        self.ring.held()
    }

    pub fn read(&self, offset: Offset, max_bytes: usize) -> Option<Slice> {
        self.ring.read(offset, max_bytes)
    }

    pub fn shrink_to(&mut self, bytes: usize) {
        self.ring.shrink_to(bytes);
    }

    /// Begins a subscription under `epoch`, which began at `start`. Returns where to follow from.
    pub fn begin(&mut self, epoch: Epoch, start: Offset) -> Offset {
        if epoch > self.epoch {
            self.ring.truncate(start);
            self.epoch = epoch;
        }
        self.live = false;
        self.ring.range().end
    }

    /// Takes in what the subscription told, and wakes whom it concerns.
    pub fn apply(&mut self, event: TailEvent, max_bytes: usize) -> Result<(), TailError> {
        let TailEvent { bounds, base_offset, next_offset, batches } = event;
        if bounds.epoch != self.epoch {
            return Err(TailError::OtherEpoch { expected: self.epoch, found: bounds.epoch });
        }
        let high_watermark = bounds.high_watermark;
        if next_offset > high_watermark {
            return Err(TailError::AboveHighWatermark { next: next_offset, high_watermark });
        }
        if let Some(known) = self.bounds.map(|known| known.high_watermark)
            && high_watermark < known
        {
            return Err(TailError::WentBack { known, found: high_watermark });
        }
        // The owner may hold less than was asked for, and a subscription may skip: one range, so begin again there.
        if base_offset != self.ring.range().end {
            self.ring = Ring::new(base_offset);
        }
        self.ring.push(base_offset, next_offset, batches)?;
        self.ring.shrink_to(max_bytes);
        self.bounds = Some(bounds);
        self.live = true;
        self.wake();
        Ok(())
    }

    /// The subscription is over; what the ring holds is still true. `broken` if it told what cannot be.
    pub fn end(&mut self, broken: bool) {
        self.live = false;
        if broken {
            self.ring = Ring::new(self.ring.range().end);
        }
    }

    /// Wakes everyone, to look for themselves.
    pub fn wake_all(&mut self) {
        for (_, waiting) in self.waiting.drain() {
            // A reader that has gone need not be woken.
            let _ = waiting.wake.send(());
        }
    }

    /// Ends the tail: nothing is held and nobody waits any more.
    pub fn close(&mut self) {
        self.end(true);
        self.closed = true;
        self.wake_all();
    }

    /// Follow from `offset` instead: what the ring holds does not lead to where the owner is.
    pub fn restart_at(&mut self, offset: Offset) {
        self.ring = Ring::new(offset);
    }

    /// Whether `min_bytes` can be read at `offset`, now or later.
    pub fn wait(&mut self, offset: Offset, min_bytes: u64) -> Readable {
        if self.is_readable(offset, min_bytes) {
            return Readable::Now;
        }
        let (wake, woken) = oneshot::channel();
        let number = self.next_waiting;
        self.next_waiting += 1;
        self.waiting.insert(number, Waiting { offset, min_bytes, wake });
        Readable::Later(number, woken)
    }

    /// A reader waits no more.
    pub fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    fn is_readable(&self, offset: Offset, min_bytes: u64) -> bool {
        let Some(bounds) = self.bounds.filter(|_| self.live) else {
            return self.closed;
        };
        match self.ring.bytes_from(offset) {
            Some(bytes) => bytes >= min_bytes.max(1),
            // Readable, but not here. Above the high watermark: this tail has yet to learn what the reader knows.
            None => offset < bounds.high_watermark,
        }
    }

    fn wake(&mut self) {
        let ready: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| self.is_readable(waiting.offset, waiting.min_bytes))
            .map(|(number, _)| *number)
            .collect();
        for number in ready {
            if let Some(waiting) = self.waiting.remove(&number) {
                // A reader that has gone need not be woken.
                let _ = waiting.wake.send(());
            }
        }
    }
}
