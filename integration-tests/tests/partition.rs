//! One partition's life over real metadata: appends, rolls, failures of its files, takeovers, release, damage.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_integration_tests::one_partition::{OnePartition, batch_of, batch_of_producer};
use bmq_partition::machine::StopReason;
use bmq_partition::{PartitionConfig, PartitionStatus, TailRead};
use bmq_proto::broker::AckLevel;
use bmq_proto::meta::SegmentState;
use bmq_proto::{Epoch, ErrorCode, Happened, Offset};
use bmq_storage::faulty::{Fault, FaultyStore, Operation};
use bmq_storage::{LocalStore, MemoryStore, SegmentStore};
use bytes::Bytes;

fn memory() -> Arc<dyn SegmentStore> {
    Arc::new(MemoryStore::new())
}

fn texts(values: Vec<Bytes>) -> Vec<String> {
    values.into_iter().map(|value| String::from_utf8_lossy(&value).into_owned()).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("value {number}")).collect()
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_is_acknowledged_is_visible_and_survives_a_release() {
    let world = OnePartition::new(memory(), PartitionConfig::default()).await;
    let owner = world.claim(1).await;
    for (number, value) in numbered(10).iter().enumerate() {
        let appended = owner.append(value).await.unwrap();
        assert_eq!(appended.base_offset, Offset(number as u64));
        assert_eq!(owner.handle.tail().bounds().high_watermark, Offset(number as u64 + 1));
    }
    assert_eq!(texts(owner.read_memory(Offset(0))), numbered(10));
    assert_eq!(owner.handle.tail().read(Offset(11), 1), TailRead::OutOfRange);

    assert_eq!(owner.handle.release(LONG).await, Some(StopReason::Released));
    assert_eq!(texts(world.read_closed().await), numbered(10));
    let view = world.view().await;
    assert_eq!((view.head.owner, view.head.open), (None, None));

    let next = world.claim(2).await;
    assert_eq!(next.handle.tail().bounds().epoch, Epoch(2));
    assert_eq!(next.append("value 10").await.unwrap().base_offset, Offset(10));
    world.stop().await;
}

#[tokio::test]
async fn a_takeover_keeps_everything_acknowledged_and_fences_the_older_owner() {
    let world = OnePartition::new(memory(), PartitionConfig::default()).await;
    let old = world.claim(1).await;
    for value in numbered(5) {
        old.append(&value).await.unwrap();
    }
    let new = world.claim(2).await;
    assert_eq!(new.append("value 5").await.unwrap().base_offset, Offset(5));

    let refused = old.append("from the past").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotOwner, "{refused:?}");
    let mut status = old.handle.status();
    let end = status.wait_for(|status| matches!(status, PartitionStatus::Stopped(_))).await.unwrap().clone();
    assert!(matches!(end, PartitionStatus::Stopped(StopReason::Superseded(_))), "{end:?}");

    assert_eq!(new.handle.release(LONG).await, Some(StopReason::Released));
    assert_eq!(texts(world.read_closed().await), numbered(6));
    world.stop().await;
}

#[tokio::test]
async fn a_failed_file_is_rolled_and_nothing_is_lost_or_doubled() {
    for fault in [Fault::Fail, Fault::FailAfter, Fault::NoSpace] {
        let store = FaultyStore::new(MemoryStore::new());
        let world = OnePartition::new(Arc::new(store.clone()), PartitionConfig::default()).await;
        let owner = world.claim(1).await;
        store.inject(Operation::Sync, 3, fault);
        for (number, value) in numbered(8).iter().enumerate() {
            assert_eq!(owner.append(value).await.unwrap().base_offset, Offset(number as u64), "{fault:?}");
        }
        assert_eq!(store.struck(Operation::Sync), 1);
        assert_eq!(owner.handle.release(LONG).await, Some(StopReason::Released));
        assert_eq!(texts(world.read_closed().await), numbered(8), "{fault:?}");
        assert!(world.view().await.segments.len() >= 2);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_store_without_room_is_told_and_outlived() {
    let store = FaultyStore::new(MemoryStore::new());
    let world = OnePartition::new(Arc::new(store.clone()), PartitionConfig::default()).await;
    let owner = world.claim(1).await;
    // The first try, and both candidates of the next two.
    for attempt in 0..5 {
        store.inject(Operation::Create, attempt, Fault::NoSpace);
    }
    let taken = owner.append("value 0").await.unwrap_err();
    assert_eq!((taken.code, taken.happened), (ErrorCode::Storage, Happened::Unknown), "{taken:?}");
    let refused = owner.append("value 1").await.unwrap_err();
    assert_eq!((refused.code, refused.happened), (ErrorCode::Storage, Happened::NotApplied), "{refused:?}");
    assert!(taken.message.contains("no space left") && refused.message.contains("no space left"));

    // What was taken is written when there is room.
    let mut visible = owner.handle.tail().watch();
    visible.wait_for(|bounds| bounds.high_watermark == Offset(1)).await.unwrap();
    let next = world.claim(2).await;
    assert_eq!(next.append("value 1").await.unwrap().base_offset, Offset(1));
    world.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_created_is_tried_again_under_another_name() {
    let store = FaultyStore::new(MemoryStore::new());
    let world = OnePartition::new(Arc::new(store.clone()), PartitionConfig::default()).await;
    let owner = world.claim(1).await;
    store.inject(Operation::Create, 0, Fault::Fail);
    store.inject(Operation::Create, 0, Fault::FailAfter);
    assert_eq!(owner.append("value 0").await.unwrap().base_offset, Offset(0));
    owner.handle.release(LONG).await;
    assert_eq!(texts(world.read_closed().await), numbered(1));
    world.stop().await;
}

#[tokio::test]
async fn rolls_by_size_and_closes_what_it_sealed() {
    let config = PartitionConfig { segment_bytes: ByteSize::kib(4), ..PartitionConfig::default() };
    let world = OnePartition::new(memory(), config).await;
    let owner = world.claim(1).await;
    let values = numbered(200);
    for value in &values {
        owner.append(value).await.unwrap();
    }
    let closed =
        |view: &bmq_proto::meta::PartitionView| view.segments.iter().filter(|segment| segment.is_closed()).count() >= 2;
    world.wait_for(closed).await;
    owner.handle.release(LONG).await;
    assert_eq!(texts(world.read_closed().await), values);
    world.stop().await;
}

#[tokio::test]
async fn an_idle_partition_holds_no_file_open_and_goes_on_when_asked() {
    let config = PartitionConfig { idle_after: HumanDuration(Duration::from_millis(50)), ..PartitionConfig::default() };
    let world = OnePartition::new(memory(), config).await;
    let owner = world.claim(1).await;
    assert_eq!(world.view().await.head.open, None, "no file is opened before the first append");
    owner.append("value 0").await.unwrap();
    let view = world.wait_for(|view| view.segments.iter().any(|segment| segment.is_closed())).await;
    assert_eq!(view.head.open, None);
    assert_eq!(owner.append("value 1").await.unwrap().base_offset, Offset(1));
    owner.handle.release(LONG).await;
    assert_eq!(texts(world.read_closed().await), numbered(2));
    world.stop().await;
}

#[tokio::test]
async fn duplicates_are_told_their_offset_also_by_the_next_owner() {
    let world = OnePartition::new(memory(), PartitionConfig::default()).await;
    let owner = world.claim(1).await;
    let send = async |owner: &bmq_integration_tests::one_partition::OwnerNode, sequence: i32| {
        let batch = batch_of_producer(&format!("value {sequence}"), 7, sequence);
        owner.begin_append(1, AckLevel::Stored, batch).await.await.unwrap()
    };
    for sequence in 0..7 {
        assert!(!send(&owner, sequence).await.unwrap().deduplicated);
    }
    let again = send(&owner, 4).await.unwrap();
    assert_eq!((again.base_offset, again.deduplicated), (Offset(4), true));
    let gap = send(&owner, 9).await.unwrap_err();
    assert_eq!((gap.code, gap.happened), (ErrorCode::OutOfOrderSequence, Happened::NotApplied));

    // Without a release: the next owner finds the producer in the open file.
    let next = world.claim(2).await;
    let again = send(&next, 6).await.unwrap();
    assert_eq!((again.base_offset, again.deduplicated), (Offset(6), true));
    assert_eq!(send(&next, 7).await.unwrap().base_offset, Offset(7));
    // With a release: the one after finds it in the index.
    next.handle.release(LONG).await;
    let last = world.claim(1).await;
    let again = send(&last, 5).await.unwrap();
    assert_eq!((again.base_offset, again.deduplicated), (Offset(5), true));
    assert_eq!(send(&last, 8).await.unwrap().base_offset, Offset(8));
    world.stop().await;
}

#[tokio::test]
async fn a_memory_ack_comes_before_the_sync_and_a_stored_one_after() {
    let store = FaultyStore::new(MemoryStore::new());
    let world = OnePartition::new(Arc::new(store.clone()), PartitionConfig::default()).await;
    let owner = world.claim(1).await;
    owner.append("value 0").await.unwrap();
    store.inject(Operation::Sync, 0, Fault::Hang);
    let memory = owner.begin_append(1, AckLevel::Memory, batch_of("value 1")).await.await.unwrap();
    assert_eq!(memory.unwrap().base_offset, Offset(1));
    let mut stored = owner.begin_append(2, AckLevel::Stored, batch_of("value 2")).await;
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut stored).await;
    assert!(waited.is_err(), "nothing is durable: {waited:?}");
    assert_eq!(owner.handle.tail().bounds().high_watermark, Offset(1));
    // Another owner keeps what was acknowledged as stored; what was only in memory may be gone.
    let next = world.claim(2).await;
    assert_eq!(stored.await.unwrap().unwrap_err().happened, Happened::Unknown);
    assert_eq!(next.append("value 1 again").await.unwrap().base_offset, Offset(1));
    world.stop().await;
}

#[tokio::test]
async fn a_full_buffer_says_busy_and_keeps_the_order_of_its_lane() {
    let store = FaultyStore::new(MemoryStore::new());
    let config = PartitionConfig {
        buffer_bytes: ByteSize::kib(1),
        max_batch_bytes: ByteSize::kib(1),
        ..PartitionConfig::default()
    };
    let world = OnePartition::new(Arc::new(store.clone()), config).await;
    let owner = world.claim(1).await;
    owner.append("value 0").await.unwrap();
    store.inject(Operation::Sync, 0, Fault::Slow(Duration::from_millis(300)));
    let mut answers = Vec::new();
    for number in 0..40 {
        answers.push(owner.begin_append(1, AckLevel::Stored, batch_of(&format!("value {number}"))).await);
    }
    let mut refused = false;
    for answer in answers {
        match answer.await.unwrap() {
            Ok(_) => assert!(!refused, "after a refusal nothing more of the lane is taken"),
            Err(error) => {
                let expected = if refused { ErrorCode::OutOfTurn } else { ErrorCode::Busy };
                assert_eq!((error.code, error.happened), (expected, Happened::NotApplied));
                refused = true;
            }
        }
    }
    assert!(refused, "forty batches do not fit into one KiB");
    world.stop().await;
}

#[tokio::test]
async fn a_kill_on_local_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(folder.path()).await.unwrap());
    let world = OnePartition::new(store, PartitionConfig::default()).await;
    let owner = world.claim(1).await;
    for value in numbered(20) {
        owner.append(&value).await.unwrap();
    }
    let next = world.claim(2).await;
    assert_eq!(next.append("value 20").await.unwrap().base_offset, Offset(20));
    next.handle.release(LONG).await;
    assert_eq!(texts(world.read_closed().await), numbered(21));
    world.stop().await;
}

#[tokio::test]
async fn a_shorter_copy_is_refused_until_an_operator_accepts_it() {
    let config = PartitionConfig { checkpoint_bytes: ByteSize(1), ..PartitionConfig::default() };
    let memory = Arc::new(MemoryStore::new());
    let world = OnePartition::new(memory.clone(), config).await;
    let owner = world.claim(1).await;
    for value in numbered(5) {
        owner.append(&value).await.unwrap();
    }
    let view = world.wait_for(|view| view.checkpoint.is_some_and(|checkpoint| checkpoint.offset == Offset(5))).await;
    let file = view.head.open.expect("a file is open");
    memory.flip_bit(world.folder().segment(file), bmq_proto::BytePosition(700)).unwrap();

    let next = world.begin_claim(2).await;
    let mut status = next.handle.status();
    let end = status.wait_for(|status| *status != PartitionStatus::Starting).await.unwrap().clone();
    assert_eq!(end, PartitionStatus::Refusing);
    let refused = next.append("value 5").await.unwrap_err();
    assert_eq!((refused.code, refused.happened), (ErrorCode::Damaged, Happened::NotApplied));
    assert!(matches!(world.view().await.segments[0].state, SegmentState::Open), "nothing was sealed");
    world.stop().await;
}
