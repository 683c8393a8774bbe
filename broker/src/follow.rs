//! Following a partition's tail: what the high watermark has passed, as it passes.

use bmq_partition::{PartitionHandle, PartitionStatus, TailRead};
use bmq_proto::broker::{PartitionBounds, TailEvent, TailStream};
use bmq_proto::{Epoch, ErrorCode, Offset, ServiceError};
use bytes::Bytes;
use tokio::sync::watch;

/// The most bytes in one event, but for a batch that is larger alone.
const MAX_EVENT_BYTES: usize = 1 << 20;

struct Follower {
    partition: PartitionHandle,
    epoch: Epoch,
    next: Offset,
    bounds: watch::Receiver<PartitionBounds>,
    status: watch::Receiver<PartitionStatus>,
    /// The bounds that the last event carried.
    told: Option<PartitionBounds>,
    ended: bool,
}

/// Follows `partition` under `epoch` from `from` on, or from the first batch in memory if that is later.
pub fn follow(partition: PartitionHandle, epoch: Epoch, from: Offset) -> TailStream {
    let follower = Follower {
        bounds: partition.tail().watch(),
        status: partition.status(),
        partition,
        epoch,
        next: from,
        told: None,
        ended: false,
    };
    Box::pin(futures::stream::unfold(follower, |mut follower| async move {
        if follower.ended {
            return None;
        }
        let event = follower.next_event().await;
        follower.ended = event.is_err();
        Some((event, follower))
    }))
}

impl Follower {
    async fn next_event(&mut self) -> Result<TailEvent, ServiceError> {
        loop {
            self.check_ownership()?;
            let bounds = *self.bounds.borrow_and_update();
            match self.partition.tail().read(self.next, MAX_EVENT_BYTES) {
                TailRead::Batches { base_offset, next_offset, bytes } => {
                    self.next = next_offset;
                    return Ok(self.event(base_offset, bytes));
                }
                TailRead::AtEnd if self.told != Some(bounds) => return Ok(self.event(self.next, Bytes::new())),
                TailRead::AtEnd => self.wait().await,
                // Too old for memory: the follower sees a gap and starts anew.
                TailRead::File { .. } | TailRead::NotHeld | TailRead::Damaged => {
                    self.next = self.partition.tail().first_held()
                }
                TailRead::OutOfRange if self.next < bounds.log_start => {
                    self.next = self.partition.tail().first_held().max(bounds.log_start);
                }
                TailRead::OutOfRange => {
                    let message =
                        format!("offset {} lies above the high watermark {}", self.next, bounds.high_watermark);
                    return Err(ServiceError::not_applied(ErrorCode::OutOfRange, message));
                }
            }
        }
    }

    fn check_ownership(&mut self) -> Result<(), ServiceError> {
        let serving = matches!(&*self.status.borrow_and_update(), PartitionStatus::Serving);
        if serving && self.partition.tail().bounds().epoch == self.epoch {
            return Ok(());
        }
        let message = format!("this broker does not serve the partition at epoch {}", self.epoch);
        Err(ServiceError::not_applied(ErrorCode::NotOwner, message))
    }

    fn event(&mut self, base_offset: Offset, batches: Bytes) -> TailEvent {
        let bounds = self.partition.tail().bounds();
        self.told = Some(bounds);
        TailEvent { bounds, base_offset, next_offset: self.next, batches }
    }

    async fn wait(&mut self) {
        tokio::select! {
            // An error means that the partition's task is gone; its status says so.
            _ = self.bounds.changed() => {}
            _ = self.status.changed() => {}
        }
    }
}
