//! Appending, progress, closing.

use std::sync::Arc;

use bmq_proto::BytePosition;
use bytes::Bytes;

use super::{append, check_content, create, fresh_folder, fresh_path, pattern, segment, wait_durable};
use crate::segment::FIRST_BATCH_POSITION;
use crate::{SegmentStore, StoreError, WriterState};

pub(super) async fn appends_get_positions_and_become_durable(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let mut end = FIRST_BATCH_POSITION;
    for length in [1, 4_096, 70_000, 3] {
        let middle = end.plus(length as u64);
        let parts = vec![pattern(end, length), Bytes::new(), pattern(middle, 9)];
        end = middle.plus(9);
        assert_eq!(writer.append(parts).expect("a healthy writer takes an append"), end);
        wait_durable(&*writer, end).await;
        assert_eq!(writer.progress().borrow().durable, end, "no more is durable than was appended");
    }
    assert_eq!(writer.close().await.expect("a healthy writer closes"), end);
    check_content(store, path, end).await;
}

pub(super) async fn a_burst_of_appends_keeps_its_order(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let end = (0..2_000).fold(FIRST_BATCH_POSITION, |end, number| append(&*writer, end, 1 + number % 700));
    wait_durable(&*writer, end).await;
    writer.close().await.expect("a healthy writer closes");
    check_content(store, path, end).await;
}

pub(super) async fn oversize_appends_are_refused(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let most = store.properties().max_append_bytes;
    let refused = writer.append(vec![pattern(FIRST_BATCH_POSITION, most + 1)]);
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "one byte too many: {refused:?}");
    let end = append(&*writer, FIRST_BATCH_POSITION, most);
    let end = append(&*writer, end, 1);
    wait_durable(&*writer, end).await;
    assert_eq!(writer.close().await.expect("the refusal did no harm"), end);
    check_content(store, path, end).await;
}

pub(super) async fn closing_fixes_the_length(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    // Not waited for: closing writes out what is outstanding.
    let end = append(&*writer, FIRST_BATCH_POSITION, 200_000);
    assert_eq!(writer.close().await.expect("a healthy writer closes"), end);
    let progress = writer.progress().borrow().clone();
    assert_eq!((progress.durable, progress.state), (end, WriterState::Closed { length: end }));
    assert_eq!(store.length(path).await.expect("a closed file has a length"), end);
    assert!(writer.append(vec![Bytes::from_static(b"late")]).is_err(), "a closed writer takes nothing");
    check_content(store, path, end).await;
}

pub(super) async fn files_are_written_side_by_side(store: Arc<dyn SegmentStore>) {
    let folder = fresh_folder();
    let write = |nonce: u64| {
        let store = store.clone();
        async move {
            let path = segment(folder, nonce);
            let writer = create(&*store, path).await;
            let mut end = FIRST_BATCH_POSITION;
            for round in 0..20 {
                end = append(&*writer, end, 1_000 + 37 * round);
                end = append(&*writer, end, 1 + nonce as usize);
                wait_durable(&*writer, BytePosition(end.0 - 1)).await;
            }
            assert_eq!(writer.close().await.expect("a healthy writer closes"), end);
            check_content(&*store, path, end).await;
        }
    };
    let writers: Vec<_> = (0..8).map(|nonce| tokio::spawn(write(nonce))).collect();
    for writer in writers {
        writer.await.expect("every writer succeeds");
    }
    assert_eq!(store.list(folder).await.expect("a folder can be listed").len(), 8);
}
