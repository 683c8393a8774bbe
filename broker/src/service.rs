//! The broker service over the hosted partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bmq_common::clock::SharedClock;
use bmq_common::tasks::Tasks;
use bmq_partition::append::not_owner;
use bmq_partition::{Hosting, PartitionHandle, TailRead};
use bmq_proto::broker::{
    ActiveProducer, AppendStream, BrokerService, OwnerBatches, OwnerRead, PartitionBounds, TailStream, TimeHint,
    TimeSearch,
};
use bmq_proto::record_batch::ProducerKey;
use bmq_proto::{ClusterId, Epoch, ErrorCode, FileId, Offset, ServiceError, TopicId, TopicPartition};
use bmq_storage::{FolderPath, ProducerEntry, SegmentStore};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::append_stream::{AppendStreamTask, answer_stream, permits_of};
use crate::{follow, open_file_read};

/// Messages of a stream that may wait for its task.
const STREAM_QUEUE: usize = 16;
/// A reader never gets more at once, whatever it asks for.
const MAX_READ_BYTES: usize = 8 << 20;

pub struct Service {
    pub cluster: ClusterId,
    pub hosting: Hosting,
    pub store: Arc<dyn SegmentStore>,
    pub clock: SharedClock,
    pub tasks: Tasks,
    pub stream_buffer_bytes: u64,
    pub next_stream: AtomicU64,
}

impl Service {
    fn serving(&self, partition: TopicPartition) -> Result<PartitionHandle, ServiceError> {
        match self.hosting.find(partition) {
            Some(handle) if handle.is_serving() => Ok(handle),
            Some(_) => Err(not_owner("the partition is not serving on this broker yet, or not any more")),
            None => Err(not_owner("the partition does not run on this broker")),
        }
    }

    fn at_epoch(&self, partition: TopicPartition, epoch: Epoch) -> Result<PartitionHandle, ServiceError> {
        let handle = self.serving(partition)?;
        let current = handle.tail().bounds().epoch;
        if current != epoch {
            let message = format!("the partition is at epoch {current}, the request names {epoch}");
            return Err(ServiceError::not_applied(ErrorCode::Fenced, message));
        }
        Ok(handle)
    }

    async fn read_file(
        &self,
        request: OwnerRead,
        handle: &PartitionHandle,
        file: FileId,
        range: std::ops::Range<bmq_proto::BytePosition>,
    ) -> Result<Bytes, ServiceError> {
        if !self.store.properties().open_files_readable {
            handle.want_roll();
            let message = "these records can be read from storage soon";
            return Err(ServiceError::not_applied(ErrorCode::Unavailable, message));
        }
        let path = FolderPath::new(self.cluster, request.partition).segment(file);
        let max_bytes = (request.max_bytes as usize).min(MAX_READ_BYTES);
        open_file_read::read(self.store.as_ref(), path, range.start, range.end, request.offset, max_bytes).await
    }
}

#[async_trait]
impl BrokerService for Service {
    async fn append_stream(&self) -> Result<AppendStream, ServiceError> {
        let (items, items_receiver) = mpsc::channel(STREAM_QUEUE);
        let (answers, answers_receiver) = mpsc::unbounded_channel();
        let permits = permits_of(self.stream_buffer_bytes);
        let task = AppendStreamTask {
            stream: self.next_stream.fetch_add(1, Ordering::Relaxed),
            hosting: self.hosting.clone(),
            clock: self.clock.clone(),
            room: Arc::new(Semaphore::new(permits)),
            permits,
            answers,
            gate: Arc::default(),
        };
        let shutdown = self.tasks.shutdown().clone();
        self.tasks.spawn("append stream", task.run(items_receiver, shutdown));
        Ok(AppendStream { items, answers: answer_stream(answers_receiver) })
    }

    async fn read(&self, request: OwnerRead) -> Result<OwnerBatches, ServiceError> {
        let handle = self.at_epoch(request.partition, request.epoch)?;
        let max_bytes = (request.max_bytes as usize).min(MAX_READ_BYTES);
        let batches = match handle.tail().read(request.offset, max_bytes) {
            TailRead::Batches { bytes, .. } => bytes,
            TailRead::AtEnd => Bytes::new(),
            TailRead::File { file, start, end } => self.read_file(request, &handle, file, start..end).await?,
            TailRead::NotHeld => {
                let message = "these records are in storage, or will be readable there soon";
                return Err(ServiceError::not_applied(ErrorCode::Unavailable, message));
            }
            TailRead::Damaged => {
                let message = format!("the record at offset {} cannot be read: its file is damaged", request.offset);
                return Err(ServiceError::not_applied(ErrorCode::Damaged, message));
            }
            TailRead::OutOfRange => {
                let PartitionBounds { log_start, high_watermark, .. } = handle.tail().bounds();
                let message = format!("offset {} lies outside {log_start}..={high_watermark}", request.offset);
                return Err(ServiceError::not_applied(ErrorCode::OutOfRange, message));
            }
        };
        Ok(OwnerBatches { bounds: handle.tail().bounds(), batches })
    }

    async fn bounds(&self, partition: TopicPartition) -> Result<PartitionBounds, ServiceError> {
        Ok(self.serving(partition)?.tail().bounds())
    }

    async fn follow(&self, partition: TopicPartition, epoch: Epoch, from: Offset) -> Result<TailStream, ServiceError> {
        Ok(follow::follow(self.at_epoch(partition, epoch)?, epoch, from))
    }

    async fn delete_records(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        before: Offset,
    ) -> Result<Offset, ServiceError> {
        self.at_epoch(partition, epoch)?.delete_records(before).await
    }

    async fn offset_for_time(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        Ok(self.at_epoch(partition, epoch)?.tail().find_time(search))
    }

    async fn producers(&self, partition: TopicPartition, epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError> {
        let active = |entry: ProducerEntry| ActiveProducer {
            key: ProducerKey { id: entry.producer_id, epoch: entry.producer_epoch },
            last_sequence: entry.batches.last().map_or(-1, |batch| batch.last_sequence),
            last_timestamp_ms: entry.last_timestamp_ms,
        };
        Ok(self.at_epoch(partition, epoch)?.producers().await?.entries.into_iter().map(active).collect())
    }

    async fn delete_topic_data(&self, topic: TopicId) -> Result<(), ServiceError> {
        if self.hosting.hosts_topic(topic) {
            let message = "partitions of the topic still run here";
            return Err(ServiceError::not_applied(ErrorCode::Busy, message));
        }
        self.store.delete_topic(self.cluster, topic).await.map_err(|error| ServiceError::from(&error))
    }
}
