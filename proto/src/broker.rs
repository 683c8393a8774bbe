//! The broker service as its callers see it: append to, read from and follow the partitions it owns.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::record_batch::ProducerKey;
use crate::{Epoch, Offset, ServiceError, TopicId, TopicPartition};

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckLevel {
    /// When the owner has buffered it: fast, lost if the owner dies.
    Memory,
    /// When it is durable in storage and visible.
    Stored,
}

/// One record batch on its way to its owner.
///
/// Order: items of one (stream, `channel`, partition) are applied in the order sent. After one of them is refused with
/// `NotApplied`, every later one is refused with `OutOfTurn` until an item with a higher `generation` comes: the sender
/// starts again, from the first that was refused, under the next generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendItem {
    /// Chosen by the sender, unique within the stream; the answer carries it.
    pub id: u64,
    /// The client connection that the batch came from.
    pub channel: u64,
    pub generation: u32,
    pub partition: TopicPartition,
    /// The epoch that the sender believes current; `Fenced` if the owner has a newer one, `NotOwner` if it is not it.
    pub epoch: Epoch,
    pub ack: AckLevel,
    /// Exactly one v2 record batch, as the producer made it.
    pub batch: Bytes,
}

/// What became of an [`AppendItem`]. Answers may come in any order across partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendAnswer {
    pub id: u64,
    pub result: Result<Appended, ServiceError>,
}

/// A batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// The batch had been appended before, at `base_offset`.
    pub deduplicated: bool,
    /// The time of the append in milliseconds since 1970, where the topic gives that to the records, unless the batch
    /// had been appended before.
    pub append_time_ms: Option<i64>,
}

/// A long-lived stream of appends: many partitions, many client connections. Dropping `items` ends it; `answers` ends
/// when the owner is gone, and what was not answered then is unknown.
pub struct AppendStream {
    pub items: mpsc::Sender<Vec<AppendItem>>,
    pub answers: BoxStream<'static, Vec<AppendAnswer>>,
}

/// A read from the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRead {
    pub partition: TopicPartition,
    /// `Fenced` if the owner has another.
    pub epoch: Epoch,
    pub offset: Offset,
    /// At least one batch comes, even if it alone is larger.
    pub max_bytes: u32,
}

/// Where a partition stands, as its owner knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionBounds {
    pub epoch: Epoch,
    pub log_start: Offset,
    pub high_watermark: Offset,
}

/// What is looked for by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSearch {
    /// The first record with this timestamp, in milliseconds since 1970, or a later one.
    AtOrAfter(i64),
    /// The first record with the highest timestamp there is.
    Highest,
}

/// Where to look for a record by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeHint {
    /// The record is here or later: none below has its timestamp. The first one found from here on that has
    /// `timestamp_ms` or a later one is it.
    pub from: Offset,
    /// The timestamp that was looked for; for [`TimeSearch::Highest`] the highest.
    pub timestamp_ms: i64,
}

/// An idempotent producer that a partition remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    pub key: ProducerKey,
    /// Of its last record below the high watermark.
    pub last_sequence: i32,
    /// The highest timestamp of its last batch, in milliseconds since 1970.
    pub last_timestamp_ms: i64,
}

/// Batches below the high watermark, the first holding the offset asked for or following it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerBatches {
    pub bounds: PartitionBounds,
    /// Whole batches, back to back; empty exactly at the high watermark.
    pub batches: Bytes,
}

/// One step of a tail subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailEvent {
    pub bounds: PartitionBounds,
    /// First offset of `batches`; equal to the end of the previous event, or a gap that makes the follower start anew.
    pub base_offset: Offset,
    /// End of `batches`, exclusive; never above the high watermark.
    pub next_offset: Offset,
    /// Whole batches, back to back; may be empty when only the bounds moved.
    pub batches: Bytes,
}

/// A tail subscription; it ends with an error (`NotOwner` after a move).
pub type TailStream = BoxStream<'static, Result<TailEvent, ServiceError>>;

/// The broker service.
#[async_trait]
pub trait BrokerService: Send + Sync + 'static {
    /// Opens a stream of appends.
    async fn append_stream(&self) -> Result<AppendStream, ServiceError>;

    /// Reads batches that the owner still holds. `Unavailable` (retriable) if it does not hold them and they will be
    /// readable from storage soon: the owner has then begun what makes them so. `OutOfRange` outside the log.
    async fn read(&self, request: OwnerRead) -> Result<OwnerBatches, ServiceError>;

    /// Where the partition stands. Waits for nothing. `NotOwner` if this broker is not serving it.
    async fn bounds(&self, partition: TopicPartition) -> Result<PartitionBounds, ServiceError>;

    /// Follows a partition from `from` on, or from the first batch still held in memory if that is later.
    async fn follow(&self, partition: TopicPartition, epoch: Epoch, from: Offset) -> Result<TailStream, ServiceError>;

    /// Moves the log start up to `before`, at most to the high watermark, and returns where it is then; it never goes
    /// back. `OutOfRange` above the high watermark, `Fenced` if the owner has another epoch.
    async fn delete_records(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        before: Offset,
    ) -> Result<Offset, ServiceError>;

    /// Looks for a record by time among those below the high watermark that are not in closed segments, which everybody
    /// can search. `None` if there is none.
    async fn offset_for_time(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError>;

    /// The idempotent producers that the partition remembers, by id. `Fenced` if the owner has another epoch.
    async fn producers(&self, partition: TopicPartition, epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError>;

    /// Deletes a deleted topic's folder from the store. Idempotent.
    async fn delete_topic_data(&self, topic: TopicId) -> Result<(), ServiceError>;
}

/// Finds the service of a broker that has a session: in one process the broker itself, across processes a gRPC client
/// that is kept and shared.
pub trait BrokerConnector: Send + Sync + 'static {
    /// Never blocks; an address that does not answer shows at the first call.
    fn connect(&self, broker: &crate::meta::SessionRecord) -> std::sync::Arc<dyn BrokerService>;
}
