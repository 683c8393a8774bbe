//! What a broker holds of a partition that runs on it.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::WallMillis;
use bmq_proto::broker::AckLevel;
use bmq_proto::{Epoch, ErrorCode, Offset, ServiceError};
use bmq_storage::ProducerSnapshot;
use bmq_storage::StoreProperties;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::append::{AppendReply, Lane, ValidatedBatch};
use crate::config::PartitionConfig;
use crate::machine::StopReason;
use crate::tail::Tail;

/// Called once with the answer to an append.
pub type ReplySink = Box<dyn FnOnce(AppendReply) + Send>;

/// One append on its way to the partition's task.
pub struct AppendMail {
    pub lane: Lane,
    pub generation: u32,
    pub epoch: Epoch,
    pub ack: AckLevel,
    pub batch: Result<ValidatedBatch, ServiceError>,
    pub reply: ReplySink,
}

/// Told where the log starts after records were deleted.
pub(crate) type DeletionReply = oneshot::Sender<Result<Offset, ServiceError>>;

/// Letters to the partition's task.
pub(crate) enum Mail {
    Append(AppendMail),
    RollWanted,
    DeleteRecords { before: Offset, reply: DeletionReply },
    Producers { reply: oneshot::Sender<Option<ProducerSnapshot>> },
    StreamGone { stream: u64 },
    Release { close_wait: Duration },
}

/// How far a partition has come at this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionStatus {
    /// Being claimed or recovered.
    Starting,
    Serving,
    /// No writes until an operator has looked at the damage.
    Refusing,
    Stopped(StopReason),
}

/// A running partition. Clones are the same partition; it goes on without handles until it is released.
#[derive(Clone)]
pub struct PartitionHandle {
    pub(crate) mail: mpsc::Sender<Mail>,
    pub(crate) tail: Arc<Tail>,
    pub(crate) status: watch::Receiver<PartitionStatus>,
    /// The settings in force; the partition's task follows them.
    pub(crate) config: Arc<watch::Sender<PartitionConfig>>,
    pub(crate) store: StoreProperties,
}

impl PartitionHandle {
    /// Hands an append over. Waits while the task's mailbox is full; answers through the mail's reply.
    pub async fn append(&self, append: AppendMail) {
        if let Err(mpsc::error::SendError(Mail::Append(append))) = self.mail.send(Mail::Append(append)).await {
            let message = "this broker gave the partition up";
            (append.reply)(Err(ServiceError::not_applied(ErrorCode::NotOwner, message)));
        }
    }

    /// The largest batch that the partition takes.
    pub fn max_batch_bytes(&self) -> usize {
        self.config.borrow().max_batch_bytes.0 as usize
    }

    /// What readers see.
    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// How far it has come, to look at or to wait on.
    pub fn status(&self) -> watch::Receiver<PartitionStatus> {
        self.status.clone()
    }

    /// Whether it takes appends just now.
    pub fn is_serving(&self) -> bool {
        *self.status.borrow() == PartitionStatus::Serving
    }

    /// Says that a reader needs what lies in the open file. A full mailbox is no loss: the reader asks again.
    pub fn want_roll(&self) {
        let _ = self.mail.try_send(Mail::RollWanted);
    }

    /// Moves the log start up to `before`, and returns where it is then; it never goes back. `OutOfRange` above the
    /// high watermark.
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let message = "this broker gave the partition up";
        if self.mail.send(Mail::DeleteRecords { before, reply }).await.is_err() {
            return Err(ServiceError::not_applied(ErrorCode::NotOwner, message));
        }
        answer.await.unwrap_or_else(|_| Err(ServiceError::unknown(ErrorCode::NotOwner, message)))
    }

    /// The producers that the partition remembers, with their batches below the high watermark.
    pub async fn producers(&self) -> Result<ProducerSnapshot, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let given_up = || ServiceError::not_applied(ErrorCode::NotOwner, "this broker does not serve the partition");
        self.mail.send(Mail::Producers { reply }).await.map_err(|_| given_up())?;
        answer.await.ok().flatten().ok_or_else(given_up)
    }

    /// Has the partition go on under other settings.
    pub fn reconfigure(&self, config: PartitionConfig) {
        self.config.send_replace(config.within(&self.store));
    }

    /// Checks a producer's batch, and makes it what the topic wants stored. Costs passes over its bytes, so it is done
    /// on the caller's task.
    pub fn check(&self, batch: Bytes, now: WallMillis) -> Result<ValidatedBatch, ServiceError> {
        let (rules, max_bytes) = {
            let config = self.config.borrow();
            (config.batches, config.max_batch_bytes.0 as usize)
        };
        ValidatedBatch::check(batch, max_bytes)?.made_to(&rules, max_bytes, now)
    }

    /// Says that a stream between proxy and broker ended, so that nothing is remembered of its lanes.
    pub async fn stream_gone(&self, stream: u64) {
        let _ = self.mail.send(Mail::StreamGone { stream }).await;
    }

    /// Gives the partition up in good order, and waits for the end. `close_wait` bounds how long sealed files may take
    /// to be closed before the next owner has to do it.
    pub async fn release(&self, close_wait: Duration) -> Option<StopReason> {
        let _ = self.mail.send(Mail::Release { close_wait }).await;
        let mut status = self.status.clone();
        let stopped = status.wait_for(|status| matches!(status, PartitionStatus::Stopped(_))).await.ok()?;
        match &*stopped {
            PartitionStatus::Stopped(reason) => Some(reason.clone()),
            _ => None,
        }
    }
}
