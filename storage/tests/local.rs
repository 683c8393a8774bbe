//! What the local store promises beyond the contract.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bmq_storage::disk::PowerLossDisk;
use bmq_storage::local::Mutant;
use bmq_storage::segment::SegmentHeader;
use bmq_storage::{
    FenceOutcome, FolderPath, LocalStore, SegmentPath, SegmentStore, SegmentWriter, StoreError, WriterProgress,
    WriterState,
};
use bytes::Bytes;

fn segment(nonce: u64) -> SegmentPath {
    let partition = TopicPartition { topic: TopicId([2; 16]), partition: PartitionId(3) };
    FolderPath::new(ClusterId([1; 16]), partition).segment(FileId { epoch: Epoch(4), nonce })
}

fn file_of(root: &Path, path: SegmentPath) -> PathBuf {
    root.join(path.data_path())
}

async fn create(store: &LocalStore, path: SegmentPath) -> Arc<dyn SegmentWriter> {
    store.create(path, SegmentHeader::of(path).encode()).await.unwrap()
}

async fn wait_for(writer: &dyn SegmentWriter, done: impl FnMut(&WriterProgress) -> bool) -> WriterProgress {
    writer.progress().wait_for(done).await.unwrap().clone()
}

async fn append_durably(writer: &dyn SegmentWriter, length: usize) -> BytePosition {
    let end = writer.append(vec![Bytes::from(vec![7; length])]).unwrap();
    let progress = wait_for(writer, |now| now.durable >= end || now.state != WriterState::Healthy).await;
    assert_eq!(progress.durable, end);
    end
}

async fn broken(writer: &dyn SegmentWriter) -> WriterProgress {
    wait_for(writer, |now| matches!(now.state, WriterState::Broken { .. })).await
}

#[tokio::test]
async fn a_second_store_on_the_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("made").join("on the way");
    let first = LocalStore::open(&root).await.unwrap();
    let Err(error) = LocalStore::open(&root).await else { panic!("two stores opened one folder") };
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
    drop(first);
    LocalStore::open(&root).await.unwrap();
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).await.unwrap();
    let closed = create(&store, segment(1)).await;
    append_durably(&*closed, 1_000).await;
    let length = closed.close().await.unwrap();
    let open = create(&store, segment(2)).await;
    let durable = append_durably(&*open, 5 << 19).await;
    let durable = append_durably(&*open, 5 << 19).await.max(durable);
    drop((closed, open, store));

    let store = LocalStore::open(folder.path()).await.unwrap();
    assert_eq!(store.length(segment(1)).await.unwrap(), length);
    assert_eq!(store.fence(segment(1)).await.unwrap(), FenceOutcome::Closed { length });
    let floor = BytePosition(durable.0 - (4 << 20));
    for _ in 0..2 {
        assert_eq!(store.fence(segment(2)).await.unwrap(), FenceOutcome::Open { floor });
        assert_eq!(store.recover(segment(2)).await.unwrap(), durable);
    }
}

#[tokio::test]
async fn names_that_are_no_segments_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).await.unwrap();
    create(&store, segment(1)).await;
    let path = file_of(folder.path(), segment(1));
    let partition = path.parent().unwrap();
    for name in ["notes.log", "0000000004-000000000000000g.log", "0000000004-0000000000000002.index", "core"] {
        fs::write(partition.join(name), "x").unwrap();
    }
    fs::create_dir(partition.join("0000000004-0000000000000003.log")).unwrap();
    let found = store.list(segment(1).folder).await.unwrap();
    assert_eq!(found.iter().map(|found| found.file).collect::<Vec<_>>(), [segment(1).file]);
}

/// A fenced writer may be inside a write: its bytes reach the file after its end was fixed.
#[tokio::test]
async fn bytes_that_come_after_the_fence_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).await.unwrap();
    let writer = create(&store, segment(1)).await;
    let end = append_durably(&*writer, 100).await;
    store.fence(segment(1)).await.unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(file_of(folder.path(), segment(1))).unwrap();
    std::io::Write::write_all(&mut file, b"late").unwrap();

    assert_eq!(store.recover(segment(1)).await.unwrap(), end);
    assert_eq!(store.length(segment(1)).await.unwrap(), end);
    let late = store.read(segment(1), end, end.plus(1)).await;
    assert!(matches!(late, Err(StoreError::PastEnd { length, .. }) if length == end.0), "{late:?}");
}

#[tokio::test]
async fn a_closed_file_that_was_cut_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).await.unwrap();
    let writer = create(&store, segment(1)).await;
    append_durably(&*writer, 100).await;
    writer.close().await.unwrap();
    let file = fs::OpenOptions::new().write(true).open(file_of(folder.path(), segment(1))).unwrap();
    file.set_len(600).unwrap();
    let error = store.length(segment(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { position: 600, .. }), "{error}");
    assert!(error.to_string().contains(&segment(1).data_path()), "{error}");
}

#[tokio::test]
async fn a_full_disk_breaks_the_writer_and_not_the_store() {
    let disk = PowerLossDisk::new(1);
    let store = LocalStore::open_on(disk.boot(), "/data").await.unwrap();
    let writer = create(&store, segment(1)).await;
    let durable = append_durably(&*writer, 1_000).await;
    disk.set_room(Some(300));
    writer.append(vec![Bytes::from_static(&[1; 200]), Bytes::from_static(&[1; 200])]).unwrap();
    let progress = broken(&*writer).await;
    assert_eq!(progress.durable, durable);
    let refused = writer.append(vec![Bytes::from_static(b"more")]).unwrap_err();
    assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
    assert!(refused.is_retriable());
    let closed = writer.close().await.unwrap_err();
    assert!(matches!(closed, StoreError::NoSpace { .. }), "{closed}");
    let created = store.create(segment(2), SegmentHeader::of(segment(2)).encode()).await.err().unwrap();
    assert!(matches!(created, StoreError::NoSpace { .. }), "{created}");
    let indexed = store.write_index(segment(1), Bytes::from_static(b"index")).await.unwrap_err();
    assert!(matches!(indexed, StoreError::NoSpace { .. }), "{indexed}");

    disk.set_room(None);
    let next = create(&store, segment(3)).await;
    append_durably(&*next, 1_000).await;
    next.close().await.unwrap();
    store.write_index(segment(1), Bytes::from_static(b"index")).await.unwrap();
    assert!(store.recover(segment(1)).await.unwrap() >= durable);
    assert_eq!(store.read(segment(1), BytePosition(512), durable).await.unwrap(), vec![7; 1_000]);
}

#[tokio::test]
async fn appends_that_come_during_a_sync_share_the_next_one() {
    let disk = PowerLossDisk::new(1);
    let store = LocalStore::open_on(disk.boot(), "/data").await.unwrap();
    let writer = create(&store, segment(1)).await;
    let held = disk.hold_next_sync();
    writer.append(vec![Bytes::from_static(&[1; 100])]).unwrap();
    held.wait_until_held();
    let before = disk.file_syncs();
    let end = (0..1_000).map(|_| writer.append(vec![Bytes::from_static(&[2; 100])]).unwrap()).max().unwrap();
    assert_eq!(writer.progress().borrow().durable, BytePosition(512), "nothing is durable while the sync is held");
    drop(held);
    wait_for(&*writer, |now| now.durable == end).await;
    assert_eq!(disk.file_syncs() - before, 2);
}

#[tokio::test]
async fn dropping_a_writer_does_not_stop_what_was_appended() {
    let disk = PowerLossDisk::new(1);
    let store = LocalStore::open_on(disk.boot(), "/data").await.unwrap();
    let writer = create(&store, segment(1)).await;
    let held = disk.hold_next_sync();
    writer.append(vec![Bytes::from_static(&[1; 100])]).unwrap();
    held.wait_until_held();
    let end = writer.append(vec![Bytes::from_static(&[2; 100])]).unwrap();
    let mut progress = writer.progress();
    drop((writer, held));
    progress.wait_for(|now| now.durable == end).await.unwrap();
}

/// Fences while the writer's sync is under way; answers how far the writer then says it is durable.
async fn durable_after_a_fence_during_a_sync(mutant: Option<Mutant>) -> (BytePosition, WriterState) {
    let disk = PowerLossDisk::new(1);
    let mut store = LocalStore::open_on(disk.boot(), "/data").await.unwrap();
    if let Some(mutant) = mutant {
        store = store.with_mutant(mutant);
    }
    let writer = create(&store, segment(1)).await;
    let held = disk.hold_next_sync();
    let end = writer.append(vec![Bytes::from_static(&[1; 100])]).unwrap();
    held.wait_until_held();
    store.fence(segment(1)).await.unwrap();
    drop(held);
    let progress = wait_for(&*writer, |now| now.durable == end || now.state != WriterState::Healthy).await;
    (progress.durable, progress.state)
}

#[tokio::test]
async fn a_sync_that_was_under_way_at_the_fence_makes_nothing_durable() {
    let (durable, state) = durable_after_a_fence_during_a_sync(None).await;
    assert_eq!(durable, BytePosition(512));
    assert!(matches!(state, WriterState::Broken { .. }), "{state:?}");
}

#[tokio::test]
async fn looking_for_the_fence_before_the_sync_is_noticed() {
    let (durable, _) = durable_after_a_fence_during_a_sync(Some(Mutant::FenceBeforeSync)).await;
    assert_ne!(durable, BytePosition(512), "the test above cannot fail");
}

/// A deleted file takes its fence along; its writer must stop all the same.
#[tokio::test]
async fn a_writer_whose_file_was_deleted_breaks() {
    let disk = PowerLossDisk::new(1);
    let store = LocalStore::open_on(disk.boot(), "/data").await.unwrap();
    for (nonce, whole_topic) in [(1, false), (2, true)] {
        let path = segment(nonce);
        let writer = create(&store, path).await;
        let held = disk.hold_next_sync();
        writer.append(vec![Bytes::from_static(&[1; 100])]).unwrap();
        held.wait_until_held();
        store.fence(path).await.unwrap();
        match whole_topic {
            true => store.delete_topic(path.folder.cluster, path.folder.topic()).await.unwrap(),
            false => store.delete(path).await.unwrap(),
        }
        drop(held);
        assert_eq!(broken(&*writer).await.durable, BytePosition(512));
    }
}
