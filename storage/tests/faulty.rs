//! Each injected fault shows as it says, and leaves in the store below what it says.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::Random;
use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bmq_storage::faulty::{Fault, FaultyStore, Operation};
use bmq_storage::segment::SegmentHeader;
use bmq_storage::{
    FolderPath, MemoryStore, SegmentPath, SegmentStore, SegmentWriter, StoreError, WriterProgress, WriterState,
};
use bytes::Bytes;

const HEADER_END: BytePosition = BytePosition(512);

fn path() -> SegmentPath {
    let partition = TopicPartition { topic: TopicId([2; 16]), partition: PartitionId(3) };
    FolderPath::new(ClusterId([1; 16]), partition).segment(FileId { epoch: Epoch(4), nonce: 5 })
}

fn store() -> FaultyStore<MemoryStore> {
    FaultyStore::new(MemoryStore::with_readable_open_files())
}

async fn create(store: &FaultyStore<MemoryStore>) -> Result<Arc<dyn SegmentWriter>, StoreError> {
    store.create(path(), SegmentHeader::of(path()).encode()).await
}

async fn wait_for(writer: &dyn SegmentWriter, done: impl FnMut(&WriterProgress) -> bool) -> WriterProgress {
    writer.progress().wait_for(done).await.unwrap().clone()
}

fn is_broken(progress: &WriterProgress) -> bool {
    matches!(progress.state, WriterState::Broken { .. })
}

/// The length of the file in the store below.
async fn length_below(store: &FaultyStore<MemoryStore>) -> u64 {
    store.inner().list(path().folder).await.unwrap().first().map_or(0, |found| found.length)
}

/// Appends three times ten bytes with a fault at the second.
async fn three_appends(fault: Fault) -> (FaultyStore<MemoryStore>, Arc<dyn SegmentWriter>) {
    let store = store();
    let writer = create(&store).await.unwrap();
    store.inject(Operation::Sync, 1, fault);
    writer.append(vec![Bytes::from_static(&[1; 10])]).unwrap();
    wait_for(&*writer, |now| now.durable == HEADER_END.plus(10)).await;
    assert_eq!(writer.append(vec![Bytes::from_static(&[2; 10])]).unwrap(), HEADER_END.plus(20));
    let _broken_by_now_or_not = writer.append(vec![Bytes::from_static(&[3; 10])]);
    assert_eq!(store.struck(Operation::Sync), 1);
    (store, writer)
}

#[tokio::test]
async fn a_failed_sync_breaks_the_writer_and_writes_nothing() {
    for fault in [Fault::Fail, Fault::NoSpace] {
        let (store, writer) = three_appends(fault).await;
        assert_eq!(wait_for(&*writer, is_broken).await.durable, HEADER_END.plus(10));
        assert_eq!(length_below(&store).await, 522);
        assert!(writer.append(vec![Bytes::from_static(b"x")]).is_err());
        assert!(writer.close().await.is_err());
    }
}

#[tokio::test]
async fn a_sync_can_fail_after_it_succeeded() {
    let (store, writer) = three_appends(Fault::FailAfter).await;
    assert_eq!(wait_for(&*writer, is_broken).await.durable, HEADER_END.plus(10));
    assert!(length_below(&store).await >= 532);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_sync_shows_no_progress() {
    for (fault, length) in [(Fault::Hang, 522), (Fault::HangAfter, 542)] {
        let (store, writer) = three_appends(fault).await;
        let mut progress = writer.progress();
        progress.borrow_and_update();
        tokio::time::timeout(Duration::from_secs(3_600), progress.changed()).await.expect_err("no progress");
        assert_eq!(progress.borrow().durable, HEADER_END.plus(10));
        assert_eq!(length_below(&store).await, length);
        tokio::time::timeout(Duration::from_secs(3_600), writer.close()).await.expect_err("closing hangs as well");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_sync_is_shown_late() {
    let begun = tokio::time::Instant::now();
    let (_store, writer) = three_appends(Fault::Slow(Duration::from_secs(5))).await;
    wait_for(&*writer, |now| now.durable == HEADER_END.plus(30)).await;
    assert!(begun.elapsed() >= Duration::from_secs(5));
    assert_eq!(writer.close().await.unwrap(), HEADER_END.plus(30));
}

#[tokio::test]
async fn damage_is_written_and_read_without_a_word() {
    let (store, writer) = three_appends(Fault::Damage).await;
    let end = writer.close().await.unwrap();
    let damaged = store.read(path(), HEADER_END, end).await.unwrap();
    // One of the ten twos has its lowest bit set.
    assert_eq!([1, 2, 3].map(|value| damaged.iter().filter(|byte| **byte == value).count()), [10, 9, 11]);

    store.inject(Operation::Read, 0, Fault::Damage);
    let misread = store.read(path(), HEADER_END, end).await.unwrap();
    let again = store.read(path(), HEADER_END, end).await.unwrap();
    assert_eq!(misread.iter().zip(&again).filter(|(one, other)| one != other).count(), 1);
    assert_eq!(again, damaged);
}

#[tokio::test(start_paused = true)]
async fn a_creation_can_fail_before_and_after_and_never_answer() {
    for (fault, exists) in [(Fault::Fail, false), (Fault::NoSpace, false), (Fault::FailAfter, true)] {
        let store = store();
        store.inject(Operation::Create, 0, fault);
        assert!(create(&store).await.is_err());
        assert_eq!(length_below(&store).await > 0, exists, "{fault:?}");
    }
    for (fault, exists) in [(Fault::Hang, false), (Fault::HangAfter, true)] {
        let store = store();
        store.inject(Operation::Create, 0, fault);
        assert!(tokio::time::timeout(Duration::from_secs(3_600), create(&store)).await.is_err());
        assert_eq!(length_below(&store).await > 0, exists, "{fault:?}");
    }
}

#[tokio::test]
async fn a_close_can_fail_after_it_succeeded() {
    let store = store();
    let writer = create(&store).await.unwrap();
    store.inject(Operation::Close, 0, Fault::FailAfter);
    assert!(writer.close().await.is_err());
    assert!(is_broken(&writer.progress().borrow()));
    assert_eq!(store.inner().length(path()).await.unwrap(), HEADER_END);
}

#[tokio::test]
async fn random_faults_follow_from_the_seed_until_healed() {
    let run = async |seed| {
        let store = store();
        store.inject_at_random(&Random::from_seed(seed), Operation::List, (1, 3), Fault::Fail);
        let mut failed = Vec::new();
        for _ in 0..50 {
            failed.push(store.list(path().folder).await.is_err());
        }
        assert_eq!(failed.iter().filter(|failed| **failed).count() as u64, store.struck(Operation::List));
        store.heal();
        for _ in 0..50 {
            store.list(path().folder).await.unwrap();
        }
        failed
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}
