//! Readers of one closed segment of some chunks, in memory.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::Metrics;
use bmq_proto::meta::{SegmentEnd, SegmentRecord, SegmentState};
use bmq_proto::record_batch::{BatchBuilder, Codec, patch_assigned};
use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, Offset, PartitionId, TopicId, TopicPartition};
use bmq_storage::segment::{FIRST_BATCH_POSITION, SegmentHeader};
use bmq_storage::{IndexBuilder, IndexedBatch, MemoryStore, ProducerSnapshot, SegmentPath, SegmentStore};
use bytes::Bytes;

use super::chunk_cache::ChunkCache;
use super::segment_cursor::SegmentReads;
use crate::metrics::ProxyMetrics;

const BATCHES: u64 = 40;
const VALUE_BYTES: usize = 100_000;
const EPOCH: Epoch = Epoch(2);
const PARTITION: TopicPartition = TopicPartition { topic: TopicId([1; 16]), partition: PartitionId(0) };

struct Segment {
    store: MemoryStore,
    metrics: Metrics,
    reads: SegmentReads,
    record: SegmentRecord,
    path: SegmentPath,
    batches: Vec<Bytes>,
}

fn batch(base: u64) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 1_000);
    builder.append(1_000, None, Some(&vec![base as u8; VALUE_BYTES]), &[]).unwrap();
    let mut batch = builder.build().to_vec();
    patch_assigned(&mut batch, Offset(base), EPOCH);
    batch.into()
}

impl Segment {
    /// A batch per offset; about four chunks in all.
    async fn new(cache_bytes: u64) -> Self {
        let (store, metrics) = (MemoryStore::new(), Metrics::new());
        let cluster = ClusterId([7; 16]);
        let file = FileId { epoch: EPOCH, nonce: 1 };
        let path = SegmentPath { folder: bmq_storage::FolderPath::new(cluster, PARTITION), file };
        let batches: Vec<Bytes> = (0..BATCHES).map(batch).collect();
        let writer = store.create(path, SegmentHeader::of(path).encode()).await.unwrap();
        let mut index = IndexBuilder::new(path, Offset(0));
        for (number, batch) in (0..).zip(&batches) {
            let (base_offset, next_offset) = (Offset(number), Offset(number + 1));
            index.add_batch(IndexedBatch { base_offset, next_offset, max_timestamp_ms: 1_000 }, batch);
        }
        writer.append(batches.clone()).unwrap();
        let position = writer.close().await.unwrap();
        let index = index.finish(ProducerSnapshot::default());
        store.write_index(path, index.encode()).await.unwrap();
        let shared = Arc::new(store.clone());
        let proxy_metrics = ProxyMetrics::register(&metrics);
        let chunks = ChunkCache::new(shared, cache_bytes, 8 << 20, Duration::from_secs(10), proxy_metrics);
        let record = SegmentRecord {
            file,
            epoch: EPOCH,
            base_offset: Offset(0),
            start_position: FIRST_BATCH_POSITION,
            state: SegmentState::Closed { end: SegmentEnd { offset: Offset(BATCHES), position } },
            floor: None,
            created_at_ms: 0,
            sealed_at_ms: 0,
            max_timestamp_ms: Some(1_000),
            compacted: false,
        };
        Self { store, metrics, reads: SegmentReads { cluster, chunks: Arc::new(chunks) }, record, path, batches }
    }

    fn end(&self) -> SegmentEnd {
        self.record.end().unwrap()
    }

    fn chunks(&self) -> u64 {
        self.end().position.0.div_ceil(1 << 20)
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).expect("it is counted");
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Everything from `offset` on, in pieces of at most `max_bytes`; what a damaged batch costs is left out.
    async fn read_from(&self, offset: u64, max_bytes: usize) -> Vec<u8> {
        let mut cursor = self.reads.open(PARTITION, &self.record, self.end(), Offset(offset)).await.unwrap();
        let (mut next, mut read) = (Offset(offset), Vec::new());
        while next < self.end().offset {
            match cursor.read(next, max_bytes).await {
                Ok(slice) => {
                    read.extend_from_slice(&slice.batches);
                    next = slice.next_offset;
                }
                Err(_) => {
                    next = Offset(next.0 + 1);
                    cursor = self.reads.open(PARTITION, &self.record, self.end(), next).await.unwrap();
                }
            }
        }
        read
    }
}

#[tokio::test]
async fn a_hundred_readers_load_each_chunk_once() {
    let segment = Segment::new(64 << 20).await;
    let readers = (0..100).map(|_| segment.read_from(0, 300_000));
    let expected = segment.batches.concat();
    for read in futures::future::join_all(readers).await {
        assert!(read == expected);
    }
    assert_eq!(segment.metric("bmq_proxy_chunk_loads_total"), segment.chunks());
    assert_eq!(segment.metric("bmq_proxy_chunk_load_bytes_total"), segment.end().position.0);
}

#[tokio::test]
async fn without_room_or_index_the_same_bytes_come() {
    for cache_bytes in [0, 64 << 20] {
        let segment = Segment::new(cache_bytes).await;
        for offset in [0, 7, BATCHES - 1] {
            let expected = segment.batches[offset as usize..].concat();
            assert!(segment.read_from(offset, 1).await == expected);
        }
        segment.store.write_index(segment.path, Bytes::from_static(b"no index")).await.unwrap();
        let unindexed = SegmentReads {
            cluster: segment.reads.cluster,
            chunks: Arc::new(ChunkCache::new(
                Arc::new(segment.store.clone()),
                cache_bytes,
                0,
                Duration::from_secs(10),
                ProxyMetrics::register(&Metrics::new()),
            )),
        };
        let segment = Segment { reads: unindexed, ..segment };
        assert!(segment.read_from(3, 1 << 20).await == segment.batches[3..].concat());
    }
}

#[tokio::test]
async fn a_damaged_chunk_costs_only_the_damaged_batch() {
    let segment = Segment::new(64 << 20).await;
    let in_third = segment.batches[..2].iter().map(Bytes::len).sum::<usize>() as u64 + 5_000;
    let place = BytePosition(FIRST_BATCH_POSITION.0 + in_third);
    segment.store.flip_bit(segment.path, place).unwrap();
    let expected = [&segment.batches[..2], &segment.batches[3..]].concat().concat();
    assert!(segment.read_from(0, 1 << 20).await == expected);
    assert!(segment.metric("bmq_proxy_damaged_chunks_total") >= 1);
    // What was damaged is not kept: as soon as the store gives the right bytes, they are read.
    segment.store.flip_bit(segment.path, place).unwrap();
    assert!(segment.read_from(0, 1 << 20).await == segment.batches.concat());
}
