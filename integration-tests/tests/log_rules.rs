//! What a topic says of its log, over real metadata: records deleted, retained by size and age, compacted; each also
//! across a takeover, and with failures of the store in the middle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_integration_tests::one_partition::{OnePartition, OwnerNode, batch_of_keys, batch_of_producer};
use bmq_partition::{CompactionRules, LogRules, PartitionConfig, TailRead};
use bmq_proto::broker::AckLevel;
use bmq_proto::meta::PartitionView;
use bmq_proto::{ErrorCode, Offset};
use bmq_storage::faulty::{Fault, FaultyStore, Operation};
use bmq_storage::{MemoryStore, SegmentStore};

const LONG: Duration = Duration::from_secs(30);
const SOON: HumanDuration = HumanDuration(Duration::from_millis(20));

fn memory() -> Arc<dyn SegmentStore> {
    Arc::new(MemoryStore::new())
}

/// Segments of a few batches each.
fn small_segments(log: LogRules) -> PartitionConfig {
    PartitionConfig {
        segment_bytes: ByteSize::kib(4),
        rolls_per_minute: 10_000,
        retention_interval: SOON,
        compaction_interval: SOON,
        log,
        ..PartitionConfig::default()
    }
}

fn closed(view: &PartitionView) -> usize {
    view.segments.iter().filter(|segment| segment.is_closed()).count()
}

async fn append_many(owner: &OwnerNode, count: usize) {
    for number in 0..count {
        owner.append(&format!("value {number}")).await.expect("the owner serves");
    }
}

#[tokio::test]
async fn deleted_records_are_out_of_range_at_once_and_their_files_go() {
    let world = OnePartition::new(memory(), small_segments(LogRules::default())).await;
    let owner = world.claim(1).await;
    append_many(&owner, 200).await;
    world.wait_for(|view| closed(view) >= 3).await;

    assert_eq!(owner.handle.delete_records(Offset(150)).await, Ok(Offset(150)));
    assert_eq!(owner.handle.delete_records(Offset(3)).await, Ok(Offset(150)), "it never goes back");
    let above = owner.handle.delete_records(Offset(201)).await.unwrap_err();
    assert_eq!(above.code, ErrorCode::OutOfRange);
    assert_eq!(owner.handle.tail().read(Offset(149), 1), TailRead::OutOfRange);
    assert!(matches!(owner.handle.tail().read(Offset(150), 1), TailRead::Batches { .. }));

    let view = world.view().await;
    assert_eq!(view.head.log_start, Offset(150));
    let first = view.segments.first().unwrap();
    assert!(first.base_offset <= Offset(150) && first.base_offset > Offset(0), "{first:?}");
    assert!(!world.meta_garbage().await.is_empty());

    owner.handle.release(LONG).await;
    let next = world.claim(2).await;
    assert_eq!(next.handle.tail().bounds().log_start, Offset(150));
    assert_eq!(next.append("more").await.unwrap().base_offset, Offset(200));
    world.stop().await;
}

#[tokio::test]
async fn producers_are_known_when_everything_was_deleted() {
    let world = OnePartition::new(memory(), small_segments(LogRules::default())).await;
    let owner = world.claim(1).await;
    let send = async |owner: &OwnerNode, sequence| {
        let batch = batch_of_producer("value", 7, sequence);
        // A lane of its own each time: a refusal is not to refuse what follows.
        owner.begin_append(sequence as u64, AckLevel::Stored, batch).await.await.unwrap()
    };
    for sequence in 0..100 {
        send(&owner, sequence).await.unwrap();
    }
    assert_eq!(owner.handle.delete_records(Offset(100)).await, Ok(Offset(100)));
    owner.handle.release(LONG).await;

    let next = world.claim(2).await;
    let repeated = send(&next, 99).await.unwrap();
    assert!(repeated.deduplicated && repeated.base_offset == Offset(99), "{repeated:?}");
    assert_eq!(send(&next, 101).await.unwrap_err().code, ErrorCode::OutOfOrderSequence);
    assert_eq!(send(&next, 100).await.unwrap().base_offset, Offset(100));
    world.stop().await;
}

#[tokio::test]
async fn retention_by_size_keeps_the_newest() {
    let log = LogRules { retention_bytes: Some(6_000), ..LogRules::default() };
    let world = OnePartition::new(memory(), small_segments(log)).await;
    let owner = world.claim(1).await;
    append_many(&owner, 300).await;
    let view = world.wait_for(|view| view.head.log_start > Offset(150) && closed(view) <= 3).await;
    let bytes: u64 = view.segments.iter().filter_map(|segment| segment.end()).map(|end| end.position.0).sum();
    assert!(bytes >= 4_000, "the newest stay: {view:?}");
    world.stop().await;
}

#[tokio::test]
async fn retention_by_age_goes_by_the_newest_record_and_rolls_the_open_segment() {
    // The batches of these tests have timestamps of 1970.
    let log = LogRules { retention_age: Some(Duration::from_secs(3600)), ..LogRules::default() };
    let config = PartitionConfig { idle_after: SOON, ..small_segments(log) };
    let world = OnePartition::new(memory(), config).await;
    let owner = world.claim(1).await;
    append_many(&owner, 10).await;
    world.wait_for(|view| view.head.log_start == Offset(10) && view.head.open.is_none()).await;
    let mut bounds = owner.handle.tail().watch();
    bounds.wait_for(|bounds| bounds.log_start == Offset(10)).await.unwrap();
    assert_eq!(owner.append("next").await.unwrap().base_offset, Offset(10));

    // Settings that change reach a partition that runs.
    let mut forever = world.config.clone();
    forever.log = LogRules::default();
    owner.handle.reconfigure(forever);
    world.wait_for(|view| closed(view) >= 1 && view.head.open.is_none()).await;
    tokio::time::sleep(SOON.0 * 3).await;
    assert_eq!(world.view().await.head.log_start, Offset(10));
    world.stop().await;
}

fn compact(delete_retention: Duration) -> LogRules {
    let compaction =
        CompactionRules { delete_retention, min_lag: Duration::ZERO, max_lag: Duration::MAX, min_dirty_per_mille: 100 };
    LogRules { compaction: Some(compaction), ..LogRules::default() }
}

/// Writes every key a few times, and returns what each must have in the end.
async fn write_keys(owner: &OwnerNode, rounds: usize) -> BTreeMap<String, Option<String>> {
    let mut expected = BTreeMap::new();
    for round in 0..rounds {
        for number in 0..20 {
            let (key, value) = (format!("key {number}"), format!("value {number} of round {round}"));
            let value = (number % 5 != 0 || round + 1 < rounds).then_some(value);
            let batch = batch_of_keys(&[(&key, value.as_deref()), ("counter", Some(&format!("{round} {number}")))]);
            owner.begin_append(0, AckLevel::Stored, batch).await.await.expect("it answers").expect("it is taken");
            expected.insert("counter".to_owned(), Some(format!("{round} {number}")));
            expected.insert(key, value);
        }
    }
    expected
}

/// The last value of each key in the closed segments.
async fn last_values(world: &OnePartition) -> BTreeMap<String, Option<String>> {
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let mut last_offset = None;
    let mut found = BTreeMap::new();
    for record in world.read_closed_records().await {
        assert!(last_offset < Some(record.offset), "offsets grow");
        last_offset = Some(record.offset);
        found.insert(record.key.map(text).unwrap_or_default(), record.value.map(text));
    }
    found
}

#[tokio::test]
async fn compaction_keeps_the_last_value_of_each_key() {
    let world = OnePartition::new(memory(), small_segments(compact(LONG))).await;
    let owner = world.claim(1).await;
    let expected = write_keys(&owner, 20).await;
    owner.handle.release(LONG).await;
    assert_eq!(last_values(&world).await, expected);
    let before = world.read_closed_records().await.len();

    let next = world.claim(2).await;
    world.wait_for(|view| !view.segments.is_empty() && view.segments.iter().all(|segment| segment.compacted)).await;
    assert_eq!(last_values(&world).await, expected);
    let after = world.read_closed_records().await.len();
    assert!(after < before / 5, "{after} of {before} records are left");
    let view = world.view().await;
    assert_eq!((view.head.log_start, view.head.sealed_end), (Offset(0), Offset(800)));

    // The log goes on behind it, and the next owner can read it.
    assert_eq!(next.append("without a key").await.unwrap().base_offset, Offset(800));
    next.handle.release(LONG).await;
    let last = world.claim(3).await;
    assert_eq!(last.handle.tail().bounds().high_watermark, Offset(801));
    world.stop().await;
}

#[tokio::test]
async fn a_deleted_key_goes_when_its_time_is_over() {
    let world = OnePartition::new(memory(), small_segments(compact(Duration::ZERO))).await;
    let owner = world.claim(1).await;
    let expected = write_keys(&owner, 6).await;
    owner.handle.release(LONG).await;
    let next = world.claim(2).await;
    world.wait_for(|view| !view.segments.is_empty() && view.segments.iter().all(|segment| segment.compacted)).await;
    assert_eq!(last_values(&world).await, expected, "the first compaction keeps what deletes");

    // The next dirt has everything compacted again.
    let pairs: Vec<String> = (0..50).map(|number| format!("another {number}")).collect();
    let pairs: Vec<(&str, Option<&str>)> = pairs.iter().map(|key| (key.as_str(), Some(key.as_str()))).collect();
    next.begin_append(0, AckLevel::Stored, batch_of_keys(&pairs)).await.await.unwrap().unwrap();
    next.handle.release(LONG).await;
    let _owner = world.claim(3).await;
    let deleted = |values: &BTreeMap<String, Option<String>>| values.values().filter(|value| value.is_none()).count();
    assert_eq!(deleted(&expected), 4);
    loop {
        let found = last_values(&world).await;
        let alive = expected.iter().filter(|(_, value)| value.is_some());
        for (key, value) in alive {
            assert_eq!(found.get(key), Some(value), "{key}");
        }
        if deleted(&found) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_failure_at_any_step_of_compaction_loses_nothing() {
    for operation in [Operation::Create, Operation::Sync, Operation::Close, Operation::WriteIndex] {
        for fault in [Fault::Fail, Fault::FailAfter] {
            let store = FaultyStore::new(MemoryStore::new());
            let world = OnePartition::new(Arc::new(store.clone()), small_segments(LogRules::default())).await;
            let owner = world.claim(1).await;
            let expected = write_keys(&owner, 8).await;
            owner.handle.release(LONG).await;

            store.inject(operation, 0, fault);
            let next = world.claim(2).await;
            let mut rules = world.config.clone();
            rules.log = compact(LONG);
            next.handle.reconfigure(rules);
            world.wait_for(|view| view.segments.iter().all(|segment| segment.compacted)).await;
            assert_eq!(store.struck(operation), 1, "{operation:?} {fault:?}");
            assert_eq!(last_values(&world).await, expected, "{operation:?} {fault:?}");
            world.stop().await;
        }
    }
}

#[tokio::test]
async fn a_takeover_in_the_middle_of_compaction_loses_nothing() {
    let world = OnePartition::new(memory(), small_segments(compact(LONG))).await;
    let mut expected = BTreeMap::new();
    for node in 1..12 {
        let owner = world.claim(node).await;
        expected.extend(write_keys(&owner, 3).await);
        // Some are released in good order, some lose the partition to the next in the middle of whatever they do.
        if node % 2 == 0 {
            owner.handle.release(LONG).await;
        } else {
            world.wait_for(|view| view.segments.iter().any(|segment| segment.compacted)).await;
        }
    }
    let owner = world.claim(20).await;
    owner.handle.release(LONG).await;
    assert_eq!(last_values(&world).await, expected);
    let view = world.view().await;
    assert!(view.segments.iter().any(|segment| segment.compacted));
    world.stop().await;
}
