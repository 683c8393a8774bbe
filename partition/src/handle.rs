//! What a broker holds of a partition that runs on it.

use std::sync::Arc;
use std::time::Duration;

use bmq_proto::broker::AckLevel;
use bmq_proto::{Epoch, ErrorCode, ServiceError};
use tokio::sync::{mpsc, watch};

use crate::append::{AppendReply, Lane, ValidatedBatch};
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

/// Letters to the partition's task.
pub(crate) enum Mail {
    Append(AppendMail),
    RollWanted,
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
    pub(crate) max_batch_bytes: usize,
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
        self.max_batch_bytes
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
