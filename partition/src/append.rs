//! A batch on its way into the partition, checked before it reaches the partition's single task.

use bmq_proto::broker::{AckLevel, Appended};
use bmq_proto::record_batch::{BatchHeader, BatchLimits, validate_produced};
use bmq_proto::{Epoch, ErrorCode, ServiceError};
use bytes::Bytes;

/// Finds the waiting caller again; the machine only carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyToken(pub u64);

/// What is said to a caller.
pub type AppendReply = Result<Appended, ServiceError>;

/// Where an append came from: appends of one lane keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The stream between proxy and broker.
    pub stream: u64,
    /// The client connection behind it.
    pub channel: u64,
}

/// A batch whose header, size and checksum were found good.
#[derive(Debug, Clone)]
pub struct ValidatedBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl ValidatedBatch {
    /// Checks a producer's batch. Costs a pass over its bytes, so it is done on the caller's task.
    pub fn check(bytes: Bytes, max_batch_bytes: usize) -> Result<Self, ServiceError> {
        let header = validate_produced(&bytes, &BatchLimits { max_batch_bytes })
            .map_err(|error| ServiceError::not_applied(error.code(), error.to_string()))?;
        Ok(Self { header, bytes })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch's length in bytes.
    #[allow(clippy::len_without_is_empty)] // A batch is never empty.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// One append as the machine takes it. A batch that was found bad comes too: its refusal has its place in the order.
#[derive(Debug, Clone)]
pub struct Append {
    pub token: ReplyToken,
    pub lane: Lane,
    pub generation: u32,
    /// The epoch that the sender believes current.
    pub epoch: Epoch,
    pub ack: AckLevel,
    pub batch: Result<ValidatedBatch, ServiceError>,
}

/// The refusal of whoever does not own the partition: ask metadata who does.
pub fn not_owner(message: &str) -> ServiceError {
    ServiceError::not_applied(ErrorCode::NotOwner, message)
}
