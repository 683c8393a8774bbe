//! The file that compaction writes: batches with gaps between them, then closed and indexed like any other.

use std::sync::Arc;

use bmq_proto::record_batch::{BatchHeader, NO_TIMESTAMP};
use bmq_proto::{BytePosition, Offset};
use bmq_storage::index::{IndexBuilder, IndexedBatch};
use bmq_storage::{ProducerSnapshot, SegmentPath, SegmentStore, SegmentWriter, WriterState};
use bytes::Bytes;

use crate::driver::create_proven;
use crate::machine::StoreFault;

/// The most bytes handed to the writer that are not durable yet.
const MAX_OUTSTANDING: u64 = 8 << 20;

pub(super) struct Output<'a> {
    store: &'a dyn SegmentStore,
    path: SegmentPath,
    writer: Arc<dyn SegmentWriter>,
    index: IndexBuilder,
}

impl<'a> Output<'a> {
    pub async fn create(
        store: &'a dyn SegmentStore,
        path: SegmentPath,
        base_offset: Offset,
    ) -> Result<Self, StoreFault> {
        let writer = create_proven(store, path).await?;
        Ok(Self { store, path, writer, index: IndexBuilder::new(path, base_offset) })
    }

    pub async fn write(&mut self, batch: Bytes) -> Result<(), StoreFault> {
        let header = BatchHeader::parse(&batch).map_err(|error| StoreFault::Failed(error.to_string()))?;
        let (base_offset, next_offset) = (header.base_offset(), header.next_offset());
        let max_timestamp_ms = header.max_timestamp();
        self.index.add_batch(IndexedBatch { base_offset, next_offset, max_timestamp_ms }, &batch);
        let end = self.writer.append(vec![batch])?;
        let enough = BytePosition(end.0.saturating_sub(MAX_OUTSTANDING));
        let mut progress = self.writer.progress();
        let settled = progress.wait_for(|now| now.durable >= enough || now.state != WriterState::Healthy).await;
        match settled.as_deref() {
            Ok(now) if now.state == WriterState::Healthy => Ok(()),
            Ok(now) => Err(StoreFault::Failed(format!("{} failed: {:?}", self.path, now.state))),
            Err(_) => Err(StoreFault::Failed(format!("the writer of {} went away", self.path))),
        }
    }

    /// Closes the file of a segment that ends at `end`, and writes its index. Returns its length and highest timestamp.
    pub async fn close(
        mut self,
        end: Offset,
        producers: ProducerSnapshot,
    ) -> Result<(BytePosition, Option<i64>), StoreFault> {
        let position = self.index.position();
        let length = self.writer.close().await?;
        if length != position {
            return Err(StoreFault::Failed(format!("{} was closed at {length}, not at {position}", self.path)));
        }
        self.index.extend_to(end);
        let index = self.index.finish(producers);
        self.store.write_index(self.path, index.encode()).await?;
        Ok((position, index.max_timestamp_ms().filter(|timestamp_ms| *timestamp_ms > NO_TIMESTAMP)))
    }
}
