//! A shard's life over real metadata: what is committed survives, what was superseded keeps silent, takeovers are
//! quick.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the error")]

#[path = "shard/world.rs"]
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bmq_coordinator::shard::handle::ShardStatus;
use bmq_coordinator::topics::TopicView;
use bmq_proto::meta::MetaService;
use bmq_proto::{ErrorCode, Happened, Offset, TopicId};
use bmq_storage::faulty::{Fault, FaultyStore, Operation};
use bmq_storage::{MemoryStore, SegmentStore};
use futures::future::join_all;

use world::{World, commit};

const PATIENCE: Duration = Duration::from_secs(30);

fn memory() -> Arc<dyn SegmentStore> {
    Arc::new(MemoryStore::new())
}

#[tokio::test]
async fn a_commit_that_was_answered_survives_a_kill() {
    let world = World::new(memory()).await;
    let orders = world.create_topic("orders").await;
    let owner = world.claim(1).await;
    for offset in 0..20 {
        assert_eq!(owner.commit(&format!("group-{}", offset % 5), "orders", orders, offset).await, Ok(0));
    }
    assert_eq!(owner.fetch("group-0").await, Ok(vec![15]));
    drop(owner);
    let next = world.claim(2).await;
    for group in 0..5 {
        assert_eq!(next.fetch(&format!("group-{group}")).await, Ok(vec![15 + group]));
    }
    assert_eq!(next.commit("group-0", "orders", orders, 99).await, Ok(0));
    assert_eq!(next.fetch("group-0").await, Ok(vec![99]));
    assert_eq!(next.fetch("nobody").await, Ok(vec![]));
}

#[tokio::test]
async fn a_superseded_owner_never_answers_old_offsets() {
    let world = World::new(memory()).await;
    let orders = world.create_topic("orders").await;
    let old = world.claim(1).await;
    assert_eq!(old.commit("readers", "orders", orders, 5).await, Ok(0));
    old.pause_partition();
    let new = world.claim(2).await;
    assert_eq!(new.commit("readers", "orders", orders, 7).await, Ok(0));

    // Nobody has told the older owner, and a read writes nothing that could be fenced.
    let refused = old.fetch("readers").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotOwner, "{refused:?}");
    let refused = old.commit("readers", "orders", orders, 6).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotOwner, "{refused:?}");
    assert_eq!(new.fetch("readers").await, Ok(vec![7]));
}

#[tokio::test]
async fn nobody_is_shown_what_is_not_stored() {
    let store = FaultyStore::new(MemoryStore::new());
    let world = World::new(Arc::new(store.clone())).await;
    let orders = world.create_topic("orders").await;
    let owner = world.claim(1).await;
    assert_eq!(owner.commit("readers", "orders", orders, 1).await, Ok(0));
    store.inject(Operation::Sync, 0, Fault::Hang);
    let commit = owner.commit("readers", "orders", orders, 2);
    let fetch = owner.fetch("readers");
    tokio::pin!(commit, fetch);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut commit).await.is_err(), "nothing is stored");
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut fetch).await.is_err(), "it would show the commit");

    let next = world.claim(2).await;
    assert_eq!(commit.await.unwrap_err().happened, Happened::Unknown);
    assert_eq!(fetch.await.unwrap_err().code, ErrorCode::NotOwner);
    assert_eq!(next.fetch("readers").await, Ok(vec![1]));
}

#[tokio::test]
async fn a_failed_append_ends_the_shard_and_the_next_load_knows_what_was_stored() {
    let store = FaultyStore::new(MemoryStore::new());
    let world = World::new(Arc::new(store.clone())).await;
    let orders = world.create_topic("orders").await;
    let owner = world.claim(1).await;
    // The first try, and both candidates of the next two.
    for attempt in 0..5 {
        store.inject(Operation::Create, attempt, Fault::NoSpace);
    }
    let failed = owner.commit("readers", "orders", orders, 1).await.unwrap_err();
    assert_eq!(failed.happened, Happened::Unknown, "{failed:?}");
    owner.shard.status().wait_for(|status| *status == ShardStatus::Ended).await.unwrap();
    store.heal();
    let next = world.claim(1).await;
    let stored = next.fetch("readers").await.unwrap();
    assert!(stored.is_empty() || stored == [1], "{stored:?}");
    assert_eq!(next.commit("readers", "orders", orders, 2).await, Ok(0));
    assert_eq!(next.fetch("readers").await, Ok(vec![2]));
}

#[tokio::test]
async fn offsets_of_a_topic_deleted_meanwhile_are_gone() {
    let world = World::new(memory()).await;
    let (orders, returns) = (world.create_topic("orders").await, world.create_topic("returns").await);
    let owner = world.claim(1).await;
    assert_eq!(owner.commit("readers", "orders", orders, 1).await, Ok(0));
    assert_eq!(owner.commit("readers", "returns", returns, 2).await, Ok(0));
    drop(owner);
    world.meta.delete_topic("orders").await.unwrap();
    let next = world.claim(2).await;
    assert_eq!(next.fetch("readers").await, Ok(vec![2]));
    world.meta.delete_topic("returns").await.unwrap();
    world.tell_topics().await;
    let forgotten = async {
        while next.fetch("readers").await != Ok(vec![]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("the shard learns of the deletion");
}

#[tokio::test]
async fn offsets_outlast_a_watch_that_does_not_know_their_topic_yet() {
    let world = World::new(memory()).await;
    let (orders, returns) = (world.create_topic("orders").await, world.create_topic("returns").await);
    let owner = world.claim(1).await;
    assert_eq!(owner.commit("readers", "orders", orders, 1).await, Ok(0));
    assert_eq!(owner.commit("readers", "returns", returns, 2).await, Ok(0));
    world.meta.delete_topic("returns").await.unwrap();
    // A view that knows neither; only one of them was deleted.
    let mut listed = world.meta.list_topics().await.unwrap();
    listed.retain(|topic| topic.is_internal());
    world.topics.send_replace(Arc::new(TopicView::of(&listed)));
    let forgotten = async {
        while owner.fetch("readers").await != Ok(vec![1]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("the deleted topic alone is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_groups_are_taken_over_within_a_second() {
    const GROUPS: usize = 10_000;
    const ROUNDS: i64 = 10;
    let mut world = World::new(memory()).await;
    world.snapshot_bytes = 1 << 20;
    let orders = world.create_topic("orders").await;
    let owner = world.claim(1).await;
    // Half of them are quiet after the first round, so that only the snapshot remembers them.
    commit_all(&owner, orders, GROUPS, 0).await;
    for round in 1..ROUNDS {
        commit_all(&owner, orders, GROUPS / 2, round).await;
    }
    let trimmed = async {
        while world.meta.partition(world.partition).await.unwrap().head.log_start == Offset(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trimmed).await.expect("a snapshot lets the log begin later");
    let end = owner.partition.tail().bounds();
    assert!(end.log_start >= Offset(GROUPS as u64), "the first round is still in the log: {end:?}");
    drop(owner);

    let next = world.begin_claim(2).await;
    let mut status = next.partition.status();
    status.wait_for(|status| *status == bmq_partition::PartitionStatus::Serving).await.unwrap();
    let recovered = Instant::now();
    next.shard.status().wait_for(|status| *status == ShardStatus::Serving).await.unwrap();
    let took = recovered.elapsed();
    println!("{GROUPS} groups, log {}..{}: loaded in {took:?}", end.log_start, end.high_watermark);
    assert!(took <= Duration::from_secs(1), "{took:?}");
    for group in (0..GROUPS).step_by(97) {
        let expected = if group < GROUPS / 2 { ROUNDS - 1 } else { 0 };
        assert_eq!(next.fetch(&format!("group-{group}")).await, Ok(vec![expected]));
    }
}

async fn commit_all(owner: &world::ShardOwner, topic: TopicId, groups: usize, offset: i64) {
    let asked = (0..groups).map(|group| owner.shard.ask(commit(&format!("group-{group}"), "orders", topic, offset)));
    for answer in join_all(asked).await {
        answer.unwrap();
    }
}
