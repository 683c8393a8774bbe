//! Fencing and recovery.

use bmq_proto::BytePosition;

use super::{append, check_content, create, fresh_path, pattern, recover, wait_durable, wait_for};
use crate::segment::FIRST_BATCH_POSITION;
use crate::{FenceOutcome, SegmentPath, SegmentStore, SegmentWriter, WriterState};

pub(super) async fn fencing_a_closed_file_tells_its_length(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let end = append(&*writer, FIRST_BATCH_POSITION, 3_000);
    writer.close().await.expect("a healthy writer closes");
    for _ in 0..2 {
        assert_eq!(store.fence(path).await.expect("can be fenced"), FenceOutcome::Closed { length: end });
        assert_eq!(recover(store, path).await, end);
    }
    check_content(store, path, end).await;
}

pub(super) async fn a_fenced_file_keeps_what_was_durable(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let durable = append(&*writer, FIRST_BATCH_POSITION, 9_000);
    wait_durable(&*writer, durable).await;
    let FenceOutcome::Open { floor } = store.fence(path).await.expect("can be fenced") else {
        panic!("the file was open");
    };
    let length = recover(store, path).await;
    assert!(length >= durable, "recovered at {length}, but {durable} was durable");
    assert!(floor <= length, "the floor {floor} lies above the recovered length {length}");
    check_content(store, path, durable).await;

    assert_eq!(recover(store, path).await, length, "recovery is idempotent");
    assert_eq!(store.length(path).await.expect("a recovered file is closed"), length);
    match store.fence(path).await.expect("can be fenced again") {
        FenceOutcome::Closed { length: again } => assert_eq!(again, length),
        FenceOutcome::Open { floor } => assert!(floor <= length),
    }
    check_content(store, path, durable).await;
}

pub(super) async fn a_fenced_writer_breaks(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let durable = append(&*writer, FIRST_BATCH_POSITION, 100);
    wait_durable(&*writer, durable).await;
    store.fence(path).await.expect("can be fenced");
    // Refused at once or broken later; never durable.
    let _refused_at_once = writer.append(vec![pattern(durable, 100)]);
    let progress = wait_for(&*writer, |progress| progress.state != WriterState::Healthy).await;
    assert!(matches!(progress.state, WriterState::Broken { .. }), "a fenced writer ended as {:?}", progress.state);
    assert_eq!(progress.durable, durable, "nothing of it became durable after the fence");
    assert!(writer.append(vec![pattern(durable, 1)]).is_err(), "a broken writer takes nothing");
    assert!(writer.close().await.is_err(), "a broken writer cannot close");
    assert_eq!(writer.progress().borrow().durable, durable);
    recover(store, path).await;
    check_content(store, path, durable).await;
}

pub(super) async fn an_abandoned_file_is_recovered(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let durable = append(&*writer, FIRST_BATCH_POSITION, 50_000);
    wait_durable(&*writer, durable).await;
    append(&*writer, durable, 50_000);
    drop(writer);
    store.fence(path).await.expect("can be fenced");
    let length = recover(store, path).await;
    assert!(durable <= length && length <= durable.plus(50_000), "recovered at {length}, {durable} was durable");
    check_content(store, path, durable).await;
}

/// Fences while appends are under way: whatever the writer says was durable, then or later, is found.
pub(super) async fn a_fence_races_with_a_writer(store: &dyn SegmentStore, race: usize) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let mut end = FIRST_BATCH_POSITION;
    for _ in 0..race % 7 {
        end = append(&*writer, end, 1 + (race * 131) % 5_000);
    }
    let (appended, ()) = tokio::join!(append_until_refused(&*writer, end), fence_at_some_moment(store, path, race));
    let durable = wait_for(&*writer, |progress| progress.state != WriterState::Healthy).await.durable;
    assert!(durable <= appended);
    let length = recover(store, path).await;
    assert!(durable <= length, "race {race}: recovered at {length}, {durable} was reported as durable");
    check_content(store, path, durable).await;
}

async fn append_until_refused(writer: &dyn SegmentWriter, mut end: BytePosition) -> BytePosition {
    let mut progress = writer.progress();
    let mut length = 1;
    while let Ok(next) = writer.append(vec![pattern(end, length)]) {
        // One append ahead of the syncs, so that there is always one under way.
        let seen = progress.wait_for(|now| now.durable >= end || now.state != WriterState::Healthy).await;
        seen.expect("the writer is held");
        (end, length) = (next, length % 3_000 + 317);
    }
    end
}

async fn fence_at_some_moment(store: &dyn SegmentStore, path: SegmentPath, race: usize) {
    for _ in 0..race % 50 {
        tokio::task::yield_now().await;
    }
    store.fence(path).await.expect("can be fenced");
}
