//! Files that come, are written, read and go, without any fault.

use std::time::{Duration, Instant};

use bmq_proto::BytePosition;
use bmq_storage::{SegmentStore, StoreError};
use bytes::Bytes;

use crate::support::{Bench, check_content, is_durable, pattern_bytes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_never_taken_twice() {
    let bench = Bench::new("/names").await;
    let writer = bench.create(1).await.unwrap();
    assert!(is_durable(&*writer, BytePosition(512)).await);
    assert!(matches!(bench.create(1).await, Err(StoreError::AlreadyExists { .. })), "open, by this store");
    let other = bench.other_store().await;
    let by_other = other.create(bench.path(1), Bytes::from_static(b"x")).await;
    assert!(matches!(by_other, Err(StoreError::AlreadyExists { .. })), "open, by another store");
    // The first writer noticed nothing of it.
    let end = writer.append(vec![pattern_bytes(512, 1000)]).unwrap();
    assert!(is_durable(&*writer, end).await);
    assert_eq!(writer.close().await.unwrap(), end);
    assert!(matches!(bench.create(1).await, Err(StoreError::AlreadyExists { .. })), "closed");
    check_content(&bench.store, bench.path(1), end).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_is_not_read_and_a_closed_one_not_past_its_end() {
    let bench = Bench::new("/reading").await;
    let (path, store) = (bench.path(1), &bench.store);
    let writer = bench.create(1).await.unwrap();
    let start = BytePosition::ZERO;
    let early = store.read(path, start, BytePosition(512)).await;
    assert!(matches!(early, Err(StoreError::NotClosed { .. })), "{early:?}");
    assert!(is_durable(&*writer, BytePosition(512)).await);
    let open = store.read(path, start, BytePosition(512)).await;
    assert!(matches!(open, Err(StoreError::NotClosed { .. })), "{open:?}");
    assert!(matches!(store.length(path).await, Err(StoreError::NotClosed { .. })));

    let end = writer.append(vec![pattern_bytes(512, 100_000)]).unwrap();
    assert_eq!(writer.close().await.unwrap(), end);
    assert_eq!(store.length(path).await.unwrap(), end);
    check_content(store, path, end).await;
    assert!(store.read(path, end, end).await.unwrap().is_empty());
    for (from, to) in [(start, end.plus(1)), (end.plus(1), end.plus(2)), (end, end.plus(1 << 40))] {
        let past = store.read(path, from, to).await;
        assert!(matches!(past, Err(StoreError::PastEnd { length, .. }) if length == end.0), "{past:?}");
    }
    store.delete(path).await.unwrap();
    assert!(matches!(store.read(path, start, end).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_replaced_whole() {
    let bench = Bench::new("/index").await;
    let path = bench.path(1);
    drop(bench.create(1).await.unwrap());
    assert!(matches!(bench.store.read_index(path).await, Err(StoreError::NotFound { .. })));
    for content in [Bytes::from_static(b"first"), pattern_bytes(0, 300_000), Bytes::new()] {
        bench.store.write_index(path, content.clone()).await.unwrap();
        assert_eq!(bench.store.read_index(path).await.unwrap(), content);
    }
    assert_eq!(bench.store.list(bench.folder()).await.unwrap().len(), 1, "only the segment is listed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_share_a_sync_and_datanodes_sync_to_disk() {
    let bench = Bench::new("/syncs").await;
    let before: u64 = bench.cluster.fsync_counts().unwrap().iter().sum();
    let writer = bench.create(1).await.unwrap();
    let mut end = BytePosition(512);
    for _ in 0..1000 {
        end = writer.append(vec![pattern_bytes(end.0, 100)]).unwrap();
    }
    assert!(is_durable(&*writer, end).await);
    let gathered = bench.store.counters().syncs.get();
    assert!(gathered < 100, "{gathered} syncs for 1000 appends");
    for _ in 0..50 {
        end = writer.append(vec![pattern_bytes(end.0, 100)]).unwrap();
        assert!(is_durable(&*writer, end).await);
    }
    let syncs = bench.store.counters().syncs.get();
    assert_eq!(syncs, gathered + 50);
    writer.append(Vec::new()).unwrap();
    writer.append(vec![Bytes::new()]).unwrap();
    assert_eq!(writer.close().await.unwrap(), end);
    assert_eq!(bench.store.counters().syncs.get(), syncs, "nothing to sync, no sync");
    check_content(&bench.store, bench.path(1), end).await;
    // The DataNodes publish their counts every second.
    let started = Instant::now();
    loop {
        let after: u64 = bench.cluster.fsync_counts().unwrap().iter().sum();
        if after >= before + 3 * syncs {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(25),
            "{before} fsyncs, {after} after {syncs} syncs of 3 copies"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_stays_within_its_block_and_a_refused_append_breaks_nothing() {
    let bench = Bench::new("/bounds").await;
    let writer = bench.create(1).await.unwrap();
    let block = bench.config.block_size.bytes() as usize;
    // Within the block as such, but not with the header before it.
    let parts = vec![Bytes::from(vec![0; 1 << 20]); block >> 20];
    let refused = writer.append(parts);
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    let end = writer.append(vec![pattern_bytes(512, 10)]).unwrap();
    assert_eq!(writer.close().await.unwrap(), end);
    assert!(matches!(writer.append(vec![pattern_bytes(0, 1)]), Err(StoreError::Broken { .. })));
    assert_eq!(writer.close().await.unwrap(), end, "closing again answers the same");
}
