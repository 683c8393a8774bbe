//! Names, reads, listings and deletions.

use std::collections::BTreeSet;

use bmq_proto::{BytePosition, FileId, PartitionId, TopicPartition};
use bytes::Bytes;

use super::{append, check_content, check_pattern, create, fresh_folder, fresh_path, segment, wait_durable};
use crate::segment::{FIRST_BATCH_POSITION, SegmentHeader};
use crate::{FolderPath, SegmentPath, SegmentStore, StoreError};

/// Creates, fills and closes a file; returns its length.
async fn closed_file(store: &dyn SegmentStore, path: SegmentPath, length: usize) -> BytePosition {
    let writer = create(store, path).await;
    append(&*writer, FIRST_BATCH_POSITION, length);
    writer.close().await.expect("a healthy writer closes")
}

pub(super) async fn taken_names_are_refused(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let again = store.create(path, SegmentHeader::of(path).encode()).await.err();
    assert!(matches!(again, Some(StoreError::AlreadyExists { .. })), "an open file's name: {again:?}");

    let end = append(&*writer, FIRST_BATCH_POSITION, 10);
    wait_durable(&*writer, end).await;
    writer.close().await.expect("the first writer is not disturbed");
    let again = store.create(path, SegmentHeader::of(path).encode()).await.err();
    assert!(matches!(again, Some(StoreError::AlreadyExists { .. })), "a closed file's name: {again:?}");
    check_content(store, path, end).await;
}

pub(super) async fn closed_files_read_exactly(store: &dyn SegmentStore) {
    let path = fresh_path();
    let end = closed_file(store, path, 10_000).await;
    check_content(store, path, end).await;
    for (start, stop) in [(512, 513), (4_095, 4_097), (10_511, 10_512), (600, 9_000), (700, 700)] {
        let (start, stop) = (BytePosition(start), BytePosition(stop));
        let bytes = store.read(path, start, stop).await.expect("the range is in the file");
        assert_eq!(bytes.len() as u64, stop.since(start));
        check_pattern(&bytes, start);
    }
    for start in [end, BytePosition(0), end.plus(5)] {
        match store.read(path, start, end.plus(6)).await {
            Err(StoreError::PastEnd { length, .. }) => assert_eq!(length, end.0),
            other => panic!("a read past the end answered {other:?}"),
        }
    }
}

pub(super) async fn open_files_are_readable_as_declared(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let end = append(&*writer, FIRST_BATCH_POSITION, 5_000);
    wait_durable(&*writer, end).await;
    let length = store.length(path).await;
    assert!(matches!(length, Err(StoreError::NotClosed { .. })), "the length of an open file: {length:?}");
    let read = store.read(path, FIRST_BATCH_POSITION, end).await;
    match (store.properties().open_files_readable, read) {
        (true, Ok(bytes)) => check_pattern(&bytes, FIRST_BATCH_POSITION),
        (false, Err(StoreError::NotClosed { .. })) => {}
        (declared, other) => panic!("open files are readable: {declared}, but a read answered {other:?}"),
    }
    writer.close().await.expect("a healthy writer closes");
}

pub(super) async fn missing_files_are_not_found(store: &dyn SegmentStore) {
    let neighbour = fresh_path();
    closed_file(store, neighbour, 1).await;
    for path in [segment(neighbour.folder, 2), fresh_path()] {
        let answers = [
            store.read(path, BytePosition(0), BytePosition(1)).await.err(),
            store.length(path).await.err(),
            store.fence(path).await.err(),
            store.recover(path).await.err(),
            store.read_index(path).await.err(),
        ];
        for answer in answers {
            assert!(matches!(answer, Some(StoreError::NotFound { .. })), "a missing file: {answer:?}");
        }
    }
    let found = store.list(neighbour.folder).await.expect("a folder can be listed");
    assert_eq!(found.len(), 1, "asking for a missing file leaves no trace: {found:?}");
}

pub(super) async fn listing_names_segments_only(store: &dyn SegmentStore) {
    let folder = fresh_folder();
    assert_eq!(store.list(folder).await.expect("a folder that is not there is empty"), []);
    let end = closed_file(store, segment(folder, 1), 100).await;
    store.write_index(segment(folder, 1), Bytes::from_static(b"index")).await.expect("an index can be written");
    let open = create(store, segment(folder, u64::MAX)).await;
    create(store, segment(folder, 3)).await;
    store.fence(segment(folder, 3)).await.expect("an open file can be fenced");

    let found = store.list(folder).await.expect("a folder can be listed");
    let files: BTreeSet<FileId> = found.iter().map(|found| found.file).collect();
    let expected: BTreeSet<FileId> = [1, 3, u64::MAX].map(|nonce| segment(folder, nonce).file).into();
    assert_eq!((found.len(), files), (3, expected));
    let closed = found.iter().find(|found| found.file == segment(folder, 1).file).expect("it was found above");
    assert_eq!(closed.length, end.0, "a closed file's length is listed");
    drop(open);
}

pub(super) async fn deleting_is_idempotent(store: &dyn SegmentStore) {
    let folder = fresh_folder();
    let (gone, stays, open) = (segment(folder, 1), segment(folder, 2), segment(folder, 3));
    for path in [gone, stays] {
        closed_file(store, path, 100).await;
        store.write_index(path, Bytes::from_static(b"index")).await.expect("an index can be written");
    }
    let writer = create(store, open).await;
    for path in [gone, gone, open, open, fresh_path()] {
        store.delete(path).await.expect("deleting what is there and what is not succeeds");
    }
    drop(writer);
    for path in [gone, open] {
        let read = store.read(path, BytePosition(0), BytePosition(1)).await;
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "a deleted file: {read:?}");
        let index = store.read_index(path).await;
        assert!(matches!(index, Err(StoreError::NotFound { .. })), "a deleted file's index: {index:?}");
    }
    let found = store.list(folder).await.expect("a folder can be listed");
    assert_eq!(found.iter().map(|found| found.file).collect::<Vec<_>>(), [stays.file]);
    store.read_index(stays).await.expect("the other file's index stays");
}

pub(super) async fn deleting_a_topic_takes_all_of_it(store: &dyn SegmentStore) {
    let first = fresh_folder();
    let partition = |number| TopicPartition { topic: first.topic(), partition: PartitionId(number) };
    let second = FolderPath::new(first.cluster, partition(first.number().0 + 1));
    let other = FolderPath { cluster: first.cluster, ..fresh_folder() };
    for folder in [first, second, other] {
        closed_file(store, segment(folder, 1), 100).await;
        store.write_index(segment(folder, 1), Bytes::from_static(b"index")).await.expect("an index can be written");
    }
    let open = create(store, segment(second, 2)).await;
    for _ in 0..2 {
        store.delete_topic(first.cluster, first.topic()).await.expect("deleting a topic succeeds, also twice");
    }
    drop(open);
    for folder in [first, second] {
        assert_eq!(store.list(folder).await.expect("an empty listing"), []);
        let index = store.read_index(segment(folder, 1)).await;
        assert!(matches!(index, Err(StoreError::NotFound { .. })), "a deleted topic's index: {index:?}");
    }
    assert_eq!(store.list(other).await.expect("a folder can be listed").len(), 1, "another topic stays");
}
