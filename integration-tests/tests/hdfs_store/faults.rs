//! Owners that are fenced, DataNodes and NameNodes that die or hang: nothing acknowledged is lost, nothing is
//! acknowledged that could be, and nobody waits longer than a deadline.

use std::time::{Duration, Instant};

use bmq_common::HumanDuration;
use bmq_proto::BytePosition;
use bmq_storage::{FenceOutcome, SegmentStore, StoreError, WriterState};
use tokio::sync::watch;

use crate::support::{
    Bench, GRACE, append_until_broken, check_content, is_durable, pattern_bytes, recover, until_broken,
};

/// Waits until some syncs of this writer succeeded, so that the next is in flight.
async fn until_durable(progress: &mut watch::Receiver<bmq_storage::WriterProgress>, position: u64) {
    progress.wait_for(|seen| seen.durable.0 >= position).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_writer_is_never_acknowledged_again() {
    let bench = Bench::new("/fencing").await;
    let other = bench.other_store().await;
    for nonce in 1..=6 {
        let (path, writer) = (bench.path(nonce), bench.create(nonce).await.unwrap());
        let mut progress = writer.progress();
        let appending = tokio::spawn(append_until_broken(writer.clone(), 1 << (8 + nonce)));
        until_durable(&mut progress, 4096).await;
        let outcome = other.fence(path).await.unwrap();
        let acknowledged = progress.borrow().durable;
        let FenceOutcome::Open { floor } = outcome else { panic!("the file was open: {outcome:?}") };
        let (last, _) = appending.await.unwrap();
        assert_eq!(last, acknowledged, "acknowledged after the fence");
        assert!(matches!(writer.append(vec![pattern_bytes(0, 1)]), Err(StoreError::Fenced { .. })));
        let length = recover(&other, path).await;
        assert!(acknowledged <= floor && floor <= length, "{acknowledged} ≤ {floor} ≤ {length}");
        check_content(&other, path, length).await;
        assert_eq!(other.fence(path).await.unwrap(), FenceOutcome::Closed { length });
    }
    assert_eq!(bench.store.counters().broken_by_fence.get(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_a_durable_byte_can_be_fenced_and_deleted() {
    let bench = Bench::new("/empty").await;
    let other = bench.other_store().await;
    assert!(matches!(other.fence(bench.path(9)).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(other.recover(bench.path(9)).await, Err(StoreError::NotFound { .. })));
    // As fast as possible after creation: sometimes before there is a block, sometimes while its pipeline is set up.
    for nonce in 1..=8 {
        let (path, writer) = (bench.path(nonce), bench.create(nonce).await.unwrap());
        let outcome = other.fence(path).await.unwrap();
        let durable = until_broken_or_idle(&*writer).await;
        let length = recover(&other, path).await;
        assert!(durable <= length, "{outcome:?}, {durable} acknowledged, {length} recovered");
        other.delete(path).await.unwrap();
    }
    assert!(other.list(bench.folder()).await.unwrap().is_empty());
}

/// A fenced writer breaks at its next sync; one that had just synced its header has none. The last it acknowledged.
async fn until_broken_or_idle(writer: &dyn bmq_storage::SegmentWriter) -> BytePosition {
    if is_durable(writer, BytePosition(512)).await {
        let _ = writer.append(vec![pattern_bytes(512, 10)]);
        let durable = until_broken(writer).await.durable;
        assert_eq!(durable, BytePosition(512), "acknowledged after the fence");
    }
    writer.progress().borrow().durable
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datanode_dies_or_hangs_under_a_sync() {
    let bench = Bench::new("/datanodes").await;
    let other = bench.other_store().await;
    for (nonce, place, fault) in [(100, 0, Fault::Kill), (200, 1, Fault::Stop)] {
        let (nonce, writer) = bench.create_ready(nonce..nonce + 50).await;
        let path = bench.path(nonce);
        let mut progress = writer.progress();
        let appending = tokio::spawn(append_until_broken(writer, 4 << 10));
        until_durable(&mut progress, 256 << 10).await;
        let victim = bench.cluster.block_locations(&bench.absolute(path)).unwrap()[place];
        match fault {
            Fault::Kill => bench.cluster.kill_datanode(victim).unwrap(),
            Fault::Stop => bench.cluster.stop_datanode(victim).unwrap(),
        }
        let struck = Instant::now();
        let (acknowledged, broke) = appending.await.unwrap();
        let took = broke.saturating_duration_since(struck);
        assert!(took < bench.config.sync_deadline.get() + GRACE, "broke after {took:?}");
        if let Fault::Stop = fault {
            // Block recovery waits for it for thirty heartbeats, and so would this test.
            bench.cluster.continue_datanode(victim).unwrap();
        }
        // The janitor of the writer's own store is recovering the file too.
        let length = recover(&other, path).await;
        println!("DataNode {place}, {fault:?}: broke after {took:?}, closed after {:?}", struck.elapsed());
        assert!(acknowledged <= length, "{acknowledged} acknowledged, {length} recovered");
        check_content(&other, path, length).await;
        bench.cluster.heal().unwrap();
    }
}

#[derive(Debug)]
enum Fault {
    Kill,
    Stop,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_write_that_fails_is_never_acknowledged() {
    let bench = Bench::new("/first-write").await;
    // With two of four DataNodes stopped, and the NameNode not knowing it yet, every pipeline has one of them.
    bench.cluster.stop_datanode(0).unwrap();
    bench.cluster.stop_datanode(1).unwrap();
    let stopped = Instant::now();
    let writers: Vec<_> = futures::future::join_all((1..=4).map(|nonce| bench.create(nonce))).await;
    let mut failed = 0;
    for writer in writers.into_iter().flatten() {
        let seen = until_broken(&*writer).await;
        assert_eq!(seen.durable, BytePosition::ZERO);
        assert!(stopped.elapsed() < bench.config.create_deadline.get() + GRACE);
        assert!(matches!(writer.append(vec![pattern_bytes(0, 10)]), Err(StoreError::Broken { .. })));
        failed += 1;
    }
    assert!(failed > 0, "no first write met a stopped DataNode");
    bench.cluster.heal().unwrap();
    assert!(bench.store.settle(Duration::from_secs(30)).await);
    assert_eq!(bench.store.counters().syncs.get(), 0);
    for nonce in 1..=4 {
        bench.store.delete(bench.path(nonce)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_names_succeed_soon_after_a_datanode_died() {
    let bench = Bench::new("/new-names").await;
    bench.cluster.kill_datanode(3).unwrap();
    let died = Instant::now();
    for round in 0..5 {
        let started = Instant::now();
        let (nonce, writer) = bench.create_ready(round * 100..round * 100 + 100).await;
        println!("{:?} after the death: ready in {:?}, try {}", died.elapsed(), started.elapsed(), nonce % 100 + 1);
        assert!(started.elapsed() < Duration::from_secs(15));
        assert!(matches!(writer.progress().borrow().state, WriterState::Healthy));
        writer.close().await.unwrap();
    }
    bench.cluster.heal().unwrap();
    assert!(bench.store.settle(Duration::from_secs(30)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_namenode_keeps_nobody_waiting() {
    let bench = Bench::new("/stopped-namenode").await;
    let (path, writer) = (bench.path(1), bench.create(1).await.unwrap());
    assert!(is_durable(&*writer, BytePosition(512)).await);
    bench.cluster.stop_namenode().unwrap();
    let started = Instant::now();
    writer.append(vec![pattern_bytes(512, 100)]).unwrap();
    let (created, fenced, listed, read, broken) = tokio::join!(
        bench.create(2),
        bench.store.fence(path),
        bench.store.list(bench.folder()),
        bench.store.read(path, BytePosition::ZERO, BytePosition(512)),
        until_broken(&*writer),
    );
    let took = started.elapsed();
    assert!(took < bench.config.operation_deadline.get() + GRACE, "the last call took {took:?}");
    assert!(matches!(created.err(), Some(StoreError::Deadline { .. })));
    assert!(matches!(fenced, Err(StoreError::Deadline { .. })), "{fenced:?}");
    assert!(matches!(listed, Err(StoreError::Deadline { .. })), "{listed:?}");
    assert!(matches!(read, Err(StoreError::Deadline { .. })), "{read:?}");
    assert_eq!(broken.durable, BytePosition(512), "data without the NameNode's word is not acknowledged");
    let config = bmq_storage::hdfs::HdfsConfig { operation_deadline: HumanDuration::secs(1), ..bench.config.clone() };
    let refused = bmq_storage::HdfsStore::connect(config).await.err().expect("nobody answers").to_string();
    assert!(refused.contains("no answer within 1s"), "{refused}");

    bench.cluster.continue_namenode().unwrap();
    let (_, after) = bench.create_ready(10..20).await;
    after.close().await.unwrap();
    // The creation that was given up happened after all, and was cleaned away.
    assert!(bench.store.settle(Duration::from_secs(30)).await);
    let listed = bench.store.list(bench.folder()).await.unwrap();
    assert!(!listed.iter().any(|found| found.file == bench.path(2).file), "{listed:?}");
    assert!(recover(&bench.store, path).await >= BytePosition(512));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_namenode_ends_the_writer_and_comes_back() {
    let bench = Bench::new("/killed-namenode").await;
    let (path, writer) = (bench.path(1), bench.create(1).await.unwrap());
    let mut progress = writer.progress();
    let appending = tokio::spawn(append_until_broken(writer, 4096));
    until_durable(&mut progress, 64 << 10).await;
    bench.cluster.kill_namenode().unwrap();
    let struck = Instant::now();
    let (acknowledged, broke) = appending.await.unwrap();
    assert!(broke.saturating_duration_since(struck) < bench.config.sync_deadline.get() + GRACE);
    let failed = bench.create(2).await.err().expect("there is no NameNode");
    assert!(failed.is_retriable(), "{failed}");
    bench.cluster.start_namenode().unwrap();
    let (_, after) = bench.create_ready(10..40).await;
    after.close().await.unwrap();
    let length = recover(&bench.store, path).await;
    assert!(acknowledged <= length, "{acknowledged} acknowledged, {length} recovered");
    check_content(&bench.store, path, length).await;
}
