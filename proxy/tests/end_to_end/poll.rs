//! Long polls, bounds, and where reads come from.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bmq_proto::meta::{SegmentEnd, SegmentRecord, SegmentState};
use bmq_proto::record_batch::patch_assigned;
use bmq_proto::{Epoch, FileId, Offset};
use bmq_storage::segment::{FIRST_BATCH_POSITION, SegmentHeader};
use bmq_storage::{FolderPath, IndexBuilder, IndexedBatch, ProducerSnapshot, SegmentStore};
use bytes::Bytes;

use crate::cluster::{Cluster, LONG, at, batch, earliest, in_time, latest, polled_values};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn what_is_there_is_answered_at_once() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    cluster.append("b").await;
    let answer = cluster.poll(earliest(), 0, LONG).await.unwrap();
    assert_eq!(
        (polled_values(&answer), answer.next_offset, answer.high_watermark),
        (vec!["a".into(), "b".into()], 2, 2)
    );
    let answer = cluster.poll(at(1), 0, NOW).await.unwrap();
    assert_eq!(polled_values(&answer), ["b"]);
}

#[tokio::test]
async fn a_poll_at_the_end_waits_for_data_but_no_longer_than_asked() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    let begun = Instant::now();
    let answer = cluster.poll(latest(), 1, Duration::from_millis(150)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!((answer.records.len(), answer.next_offset), (0, 1));

    let (answer, ()) = tokio::join!(cluster.poll(at(1), 1, LONG), async {
        wait_until_parked(&cluster).await;
        cluster.append("b").await;
    });
    assert_eq!(polled_values(&answer.unwrap()), ["b"]);
    assert!(cluster.metric("bmq_proxy_ring_reads_total") > 0);
}

#[tokio::test]
async fn a_poll_waits_for_as_many_bytes_as_asked() {
    let cluster = Cluster::start().await;
    let enough = batch(b"a", None).len() as u32 + 1;
    let (answer, ()) = tokio::join!(cluster.poll(at(0), enough, LONG), async {
        wait_until_parked(&cluster).await;
        cluster.append("a").await;
        cluster.append("b").await;
    });
    assert_eq!(polled_values(&answer.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn nothing_above_the_high_watermark_is_seen() {
    let cluster = Cluster::start().await;
    cluster.logs.with(cluster.partition, |log| log.hold_high_watermark = true);
    let (answer, ()) = tokio::join!(cluster.poll(at(0), 1, Duration::from_millis(200)), async {
        wait_until_parked(&cluster).await;
        cluster.append("hidden").await;
    });
    assert_eq!(answer.unwrap().records.len(), 0);
    let (answer, ()) = tokio::join!(cluster.poll(at(0), 1, LONG), async {
        wait_until_parked(&cluster).await;
        cluster.logs.with(cluster.partition, |log| log.high_watermark = log.end());
    });
    assert_eq!(polled_values(&answer.unwrap()), ["hidden"]);
}

#[tokio::test]
async fn out_of_range_is_said_only_after_a_read_of_the_head_begun_later() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    cluster.meta.heads_readable.send_replace(false);
    let before = *cluster.meta.head_reads.borrow();
    let polls = futures::future::join_all((0..10).map(|_| cluster.poll(at(100), 0, NOW)));
    let opened = async {
        in_time(cluster.meta.head_reads.subscribe().wait_for(|reads| *reads > before)).await.unwrap();
        cluster.meta.heads_readable.send_replace(true);
    };
    let (answers, ()) = tokio::join!(polls, opened);
    for answer in answers {
        assert_eq!(answer.unwrap_err().code, "OUT_OF_RANGE");
    }
    // Ten askers share reads: one under way when they came, and at most a few begun after.
    let reads = *cluster.meta.head_reads.borrow() - before;
    assert!(reads < 10, "{reads} reads");
}

#[tokio::test]
async fn an_owner_of_another_epoch_than_the_heads_is_not_believed() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    // The head has moved on to an epoch that the owner known here does not have.
    cluster.meta.change_head(cluster.partition, |head| head.epoch = Epoch(9));
    let (answer, ()) = tokio::join!(cluster.poll(latest(), 0, NOW), async {
        cluster.logs.with(cluster.partition, |log| log.epoch = Epoch(8));
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.give_to(1);
    });
    assert_eq!(answer.unwrap().next_offset, 1);
}

#[tokio::test]
async fn closed_segments_are_read_from_the_store() {
    for with_index in [true, false] {
        let cluster = Cluster::start().await;
        for value in ["a", "b", "c"] {
            cluster.append(value).await;
        }
        close_segment(&cluster, with_index).await;
        cluster.append("d").await;
        let reads = cluster.brokers[0].reads.load(Ordering::Relaxed);
        assert_eq!(polled_values(&cluster.poll(at(0), 0, NOW).await.unwrap()), ["a", "b", "c"]);
        assert_eq!(polled_values(&cluster.poll(at(2), 0, NOW).await.unwrap()), ["c"]);
        assert_eq!(cluster.brokers[0].reads.load(Ordering::Relaxed), reads);
        assert_eq!(polled_values(&cluster.poll(at(3), 0, NOW).await.unwrap()), ["d"]);
        assert_eq!(cluster.metric("bmq_proxy_segment_reads_total"), 2);
    }
}

#[tokio::test]
async fn what_the_owner_does_not_hold_is_read_once_its_segment_is_closed() {
    let cluster = Cluster::start().await;
    for value in ["a", "b", "c"] {
        cluster.append(value).await;
    }
    cluster.logs.with(cluster.partition, |log| log.retained_from = Offset(3));
    let (answer, ()) = tokio::join!(cluster.poll(at(1), 0, NOW), async {
        while cluster.brokers[0].reads.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        close_segment(&cluster, true).await;
    });
    assert_eq!(polled_values(&answer.unwrap()), ["b", "c"]);
}

/// Writes all of the log into one closed segment.
async fn close_segment(cluster: &Cluster, with_index: bool) {
    let (epoch, batches) = cluster.logs.with(cluster.partition, |log| (log.epoch, log.batches.clone()));
    let file = FileId { epoch, nonce: 7 };
    let path = FolderPath::new(cluster.meta.cluster, cluster.partition).segment(file);
    let writer = cluster.store.create(path, SegmentHeader::of(path).encode()).await.unwrap();
    let mut index = IndexBuilder::new(path, Offset::ZERO);
    let mut position = FIRST_BATCH_POSITION;
    for (header, bytes) in &batches {
        let mut bytes = bytes.to_vec();
        patch_assigned(&mut bytes, header.base_offset(), epoch);
        let batch = IndexedBatch {
            base_offset: header.base_offset(),
            next_offset: header.next_offset(),
            max_timestamp_ms: header.max_timestamp(),
        };
        index.add_batch(batch, &bytes);
        position = writer.append(vec![Bytes::from(bytes)]).unwrap();
    }
    writer.close().await.unwrap();
    if with_index {
        cluster.store.write_index(path, index.finish(ProducerSnapshot::default()).encode()).await.unwrap();
    }
    let offset = batches.last().unwrap().0.next_offset();
    let segment = SegmentRecord {
        file,
        epoch,
        base_offset: Offset::ZERO,
        start_position: FIRST_BATCH_POSITION,
        state: SegmentState::Closed { end: SegmentEnd { offset, position } },
        floor: None,
        created_at_ms: 0,
        sealed_at_ms: 0,
        max_timestamp_ms: None,
        compacted: false,
    };
    cluster.meta.change_head(cluster.partition, |head| head.sealed_end = offset);
    cluster.meta.put_segments(cluster.partition, vec![segment]);
}

async fn wait_until_parked(cluster: &Cluster) {
    while cluster.metric("bmq_proxy_parked_readers") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
