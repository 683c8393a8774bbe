//! Reads a closed segment batch by batch, chunk by chunk, each checked against the index, at a bounded rate.

use std::time::Duration;

use bmq_proto::meta::SegmentRecord;
use bmq_proto::record_batch::{BatchHeader, HEADER_LEN, verify_crc};
use bmq_storage::index::SegmentIndex;
use bmq_storage::segment::SEGMENT_HEADER_LEN;
use bmq_storage::{FolderPath, ProducerSnapshot, SegmentPath, SegmentStore};
use bytes::{Buf, Bytes, BytesMut};

use crate::machine::StoreFault;

pub(super) struct SegmentReader<'a> {
    store: &'a dyn SegmentStore,
    path: SegmentPath,
    index: SegmentIndex,
    next_chunk: usize,
    buffer: BytesMut,
    bytes_per_second: u64,
}

impl<'a> SegmentReader<'a> {
    /// Fails if the segment's index is not there or is that of another end: without it neither its bytes nor its
    /// producers are certain.
    pub async fn open(
        store: &'a dyn SegmentStore,
        folder: FolderPath,
        segment: &SegmentRecord,
        bytes_per_second: u64,
    ) -> Result<Self, StoreFault> {
        let path = folder.segment(segment.file);
        let index = SegmentIndex::decode(&store.read_index(path).await?, path)?;
        if segment.end().is_none_or(|end| index.end_offset != end.offset || index.end_position != end.position) {
            return Err(StoreFault::Damaged(format!("{path} has the index of another end")));
        }
        Ok(Self { store, path, index, next_chunk: 0, buffer: BytesMut::new(), bytes_per_second })
    }

    /// What the segment's index says of producers.
    pub fn into_producers(self) -> ProducerSnapshot {
        self.index.producers
    }

    pub async fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, StoreFault> {
        loop {
            if let Some(header) = self.whole_batch()? {
                let batch = self.buffer.split_to(header.total_len()).freeze();
                verify_crc(&batch).map_err(|error| self.damaged(&error.to_string()))?;
                return Ok(Some((header, batch)));
            }
            if self.next_chunk == self.index.chunks() {
                return if self.buffer.is_empty() { Ok(None) } else { Err(self.damaged("it ends inside a batch")) };
            }
            self.read_chunk().await?;
        }
    }

    /// The header of the first batch in the buffer, if all of the batch is there.
    fn whole_batch(&self) -> Result<Option<BatchHeader>, StoreFault> {
        if self.buffer.len() < HEADER_LEN {
            return Ok(None);
        }
        let header = BatchHeader::parse(&self.buffer).map_err(|error| self.damaged(&error.to_string()))?;
        Ok((self.buffer.len() >= header.total_len()).then_some(header))
    }

    async fn read_chunk(&mut self) -> Result<(), StoreFault> {
        let range = self.index.chunk_range(self.next_chunk);
        let bytes = self.store.read(self.path, range.start, range.end).await?;
        self.index.check_chunk(self.next_chunk, &bytes).map_err(|error| self.damaged(&error.to_string()))?;
        self.buffer.extend_from_slice(&bytes);
        if self.next_chunk == 0 {
            self.buffer.advance(SEGMENT_HEADER_LEN.min(self.buffer.len()));
        }
        self.next_chunk += 1;
        // Producers and readers come first.
        let nanos = bytes.len() as u64 * 1_000_000_000 / self.bytes_per_second.max(1);
        tokio::time::sleep(Duration::from_nanos(nanos)).await;
        Ok(())
    }

    fn damaged(&self, reason: &str) -> StoreFault {
        StoreFault::Damaged(format!("{} is damaged: {reason}", self.path))
    }
}
