//! Watches of the service, over a store whose watches break.

use std::time::Duration;

use bmq_proto::NodeId;
use bmq_proto::meta::{
    ConfigChange, ConfigChanges, MetaChange, MetaService, NodeKind, WatchEvent, WatchScope, WatchStream,
};
use futures::StreamExt;

use super::{Broker, Cluster};

const ALL: WatchScope = WatchScope { topics: true, sessions: true, intents: true, heads: true };

async fn next(watch: &mut WatchStream) -> WatchEvent {
    let step = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("an event comes soon");
    step.expect("the watch goes on").expect("the watch works")
}

/// The changes of a whole `Reset` … `Synced`.
async fn snapshot(watch: &mut WatchStream) -> Vec<MetaChange> {
    assert_eq!(next(watch).await, WatchEvent::Reset);
    let mut changes = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Change(change) => changes.push(change),
            WatchEvent::Synced => return changes,
            WatchEvent::Reset => panic!("a reset within a snapshot"),
        }
    }
}

/// Goes on until `found`.
async fn until(watch: &mut WatchStream, found: impl Fn(&MetaChange) -> bool) {
    loop {
        if let WatchEvent::Change(change) = next(watch).await
            && found(&change)
        {
            return;
        }
    }
}

#[tokio::test]
async fn a_watch_tells_what_there_is_and_then_what_changes() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.meta.watch(ALL).await.unwrap();
    let partition = cluster.partition;
    // The feeds may still be reading: what is not in the snapshot follows it.
    let mut seen = snapshot(&mut watch).await;
    let wanted = |seen: &[MetaChange]| {
        let topic = seen.iter().any(|it| matches!(it, MetaChange::Topic(topic) if topic.name == "orders"));
        let session = seen.iter().any(|it| matches!(it, MetaChange::Session(it) if it.kind == NodeKind::Controller));
        let intent = seen
            .iter()
            .any(|it| matches!(it, MetaChange::Intent(it, intent) if *it == partition && intent.node == NodeId(1)));
        topic && session && intent
    };
    while !wanted(&seen) {
        let WatchEvent::Change(change) = next(&mut watch).await else { panic!("a reset without cause") };
        seen.push(change);
    }
    let broker = Broker::claim(&cluster, 1).await;
    until(
        &mut watch,
        |change| matches!(change, MetaChange::Head(it, head) if *it == partition && head.epoch == broker.epoch),
    )
    .await;
    let session = cluster.session(NodeKind::Broker, 5, 1).await;
    until(&mut watch, |change| matches!(change, MetaChange::Session(it) if it.node == NodeId(5))).await;
    cluster.meta.close_session(session).await.unwrap();
    until(&mut watch, |change| *change == MetaChange::SessionGone(NodeKind::Broker, NodeId(5))).await;
    cluster.meta.set_intents(cluster.term, vec![(partition, None)]).await.unwrap();
    until(&mut watch, |change| *change == MetaChange::IntentGone(partition)).await;
    cluster.meta.delete_topic("orders").await.unwrap();
    while !cluster.meta.purge_topic(cluster.term, partition.topic).await.unwrap() {}
    let mut gone = [MetaChange::HeadGone(partition), MetaChange::TopicGone(partition.topic)].to_vec();
    while !gone.is_empty() {
        if let WatchEvent::Change(change) = next(&mut watch).await {
            gone.retain(|it| *it != change);
        }
    }
}

#[tokio::test]
async fn only_what_is_in_scope_is_told() {
    let cluster = Cluster::start().await;
    let scope = WatchScope { sessions: true, ..WatchScope::default() };
    let mut watch = cluster.meta.watch(scope).await.unwrap();
    snapshot(&mut watch).await;
    Broker::claim(&cluster, 1).await;
    cluster.session(NodeKind::Proxy, 9, 1).await;
    loop {
        match next(&mut watch).await {
            WatchEvent::Change(MetaChange::Session(session)) if session.node == NodeId(9) => break,
            WatchEvent::Change(MetaChange::Session(_)) => {}
            other => panic!("{other:?} is out of scope"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_store_watch_loses_nothing() {
    let cluster = Cluster::start().await;
    let scope = WatchScope { sessions: true, ..WatchScope::default() };
    let mut watch = cluster.meta.watch(scope).await.unwrap();
    snapshot(&mut watch).await;
    for node in 10..20 {
        cluster.faults.break_watches();
        cluster.session(NodeKind::Broker, node, 1).await;
        until(&mut watch, |change| matches!(change, MetaChange::Session(it) if it.node == NodeId(node))).await;
    }
}

#[tokio::test]
async fn stopping_the_service_ends_its_watches() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.meta.watch(ALL).await.unwrap();
    snapshot(&mut watch).await;
    cluster.meta.stop().await;
    drop(cluster);
    loop {
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break,
            None => panic!("a watch ends with an error"),
        }
    }
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn altered_topics_reach_the_watchers_and_no_change_is_lost() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.meta.watch(ALL).await.unwrap();
    let before = cluster.meta.topic("orders").await.unwrap().unwrap();
    let set = |name: &str, value: &str| ConfigChanges::from([(name.to_owned(), ConfigChange::Set(value.to_owned()))]);
    let meta = &cluster.meta;
    let total = before.partitions + 4;
    let (one, other, grown) = tokio::join!(
        meta.alter_topic_config("orders", set("segment.ms", "5000")),
        meta.alter_topic_config("orders", set("segment.bytes", "1048576")),
        meta.add_partitions("orders", total),
    );
    let done = [one, other, grown].map(Result::unwrap);
    assert!(done.iter().all(|topic| topic.id == before.id));
    let after = meta.topic("orders").await.unwrap().unwrap();
    assert_eq!((after.id, after.partitions, after.config.len()), (before.id, total, 2));
    until(&mut watch, |change| *change == MetaChange::Topic(after.clone())).await;
}
