//! The flows that brokers, controllers and proxies rely on.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::Random;
use bmq_proto::meta::{
    ClusterRecord, CreateTopic, MetaService, NodeKind, PartitionCommandKind, PartitionView, SegmentState, SessionId,
    SessionRecord, TopicState, WatchScope,
};
use bmq_proto::rpc::record::encode_record;
use bmq_proto::{BytePosition, ClusterId, ErrorCode, NodeId, Offset, Term, TopicId};

use super::{Broker, Cluster, end, file, start};
use crate::keys;
use crate::server::{MetaServer, MetaServerConfig, StartError};
use crate::store::{ListRequest, MemoryStore, Outcome, SharedStore, Transaction};

#[tokio::test]
async fn the_cluster_id_is_written_once_and_newer_levels_are_refused() {
    let store: SharedStore = Arc::new(MemoryStore::new());
    let first = start(&store).await.cluster().await.unwrap();
    let second = start(&store).await.cluster().await.unwrap();
    assert_eq!(first, second);

    let store: SharedStore = Arc::new(MemoryStore::new());
    let newer = ClusterRecord { cluster: ClusterId([1; 16]), feature_level: 2 };
    let put = Transaction::default().put(keys::CLUSTER, encode_record(&newer));
    assert!(matches!(store.transact(put).await.unwrap(), Outcome::Committed(_)));
    let refused = MetaServer::start(store, MetaServerConfig::default(), Random::from_seed(1)).await.err().unwrap();
    assert!(matches!(refused, StartError::FeatureLevel { found: 2 }));
    assert!(refused.to_string().contains("use a newer one"), "{refused}");
}

#[tokio::test]
async fn operators_see_what_is_counted() {
    let cluster = Cluster::start().await;
    let shown = bmq_common::Metrics::new();
    cluster.meta.metrics.register(&shown);
    let check = |line: &str| {
        let text = shown.encode();
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    };
    Broker::claim(&cluster, 1).await;
    check("bmq_meta_partition_commands_total{kind=\"claim\",outcome=\"applied\"} 1");
    check("bmq_meta_transaction_conflicts_total 0");
    let scope = WatchScope { topics: false, sessions: true, intents: false, heads: false };
    let watch = cluster.meta.watch(scope).await.unwrap();
    check("bmq_meta_watch_subscribers 1");
    drop(watch);
    check("bmq_meta_watch_subscribers 0");
    // The watch has begun with a list, which holds the controller's session or is followed by it.
    while !shown.encode().lines().any(|line| line == "bmq_meta_open_sessions 1") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_partition_is_claimed_written_rolled_and_handed_over() {
    let cluster = Cluster::start().await;
    let partition = cluster.partition;
    let mut broker = Broker::claim(&cluster, 1).await;
    broker.finish_recovery(None, 0).await.unwrap();
    let view = broker.open(1, None).await.unwrap();
    assert_eq!(view.segments.len(), 1);
    let view = broker.open(2, Some(end(10))).await.unwrap();
    assert_eq!(view.segments.len(), 2, "the sealed one and the new one");
    broker.close(0, 1).await.unwrap();
    broker.open(3, Some(end(20))).await.unwrap();
    broker.checkpoint(3, 25).await.unwrap();
    broker.checkpoint(3, 21).await.unwrap();

    let seen = cluster.meta.partition(partition).await.unwrap();
    assert_eq!(seen.segments.iter().map(|it| it.file).collect::<Vec<_>>(), [1, 2, 3].map(|nonce| file(1, nonce)));
    assert_eq!(seen.checkpoint.unwrap().offset, Offset(25), "a checkpoint never goes back");
    assert_eq!(seen.head.open, Some(file(1, 3)));
    assert_eq!(seen.head, cluster.meta.head(partition).await.unwrap());

    cluster.intend(2).await;
    let mut next = Broker::claim(&cluster, 2).await;
    assert_eq!(next.claimed.segments, seen.segments);
    assert_eq!(next.claimed.checkpoint, seen.checkpoint);
    let stale = broker.open(4, Some(end(30))).await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::Fenced);
    let floor = PartitionCommandKind::RecordFloor { epoch: next.epoch, file: file(1, 3), floor: BytePosition(600) };
    next.send(floor).await.unwrap();
    let view = next.finish_recovery(Some((file(1, 3), end(27))), 27).await.unwrap();
    assert_eq!(view.segments[0].state, SegmentState::Sealed { end: end(27) });
    assert_eq!(view.head.sealed_end, Offset(27));
    next.send(PartitionCommandKind::Release { epoch: next.epoch }).await.unwrap();
    assert_eq!(cluster.meta.head(partition).await.unwrap().owner, None);
}

#[tokio::test]
async fn segments_are_found_by_offset() {
    let cluster = Cluster::start().await;
    let mut broker = Broker::claim(&cluster, 1).await;
    broker.finish_recovery(None, 0).await.unwrap();
    broker.open(1, None).await.unwrap();
    for nonce in 2..=5 {
        broker.open(nonce, Some(end((nonce - 1) * 10))).await.unwrap();
    }
    let from = |offset, limit| cluster.meta.segments_from(cluster.partition, Offset(offset), limit);
    let bases = |view: PartitionView| view.segments.iter().map(|it| it.base_offset.0).collect::<Vec<_>>();
    assert_eq!(bases(from(0, 10).await.unwrap()), [0, 10, 20, 30, 40]);
    assert_eq!(bases(from(15, 2).await.unwrap()), [10, 20]);
    assert_eq!(bases(from(20, 1).await.unwrap()), [20]);
    assert_eq!(bases(from(1_000, 10).await.unwrap()), [40], "the open segment may reach any offset");
    broker
        .send(PartitionCommandKind::SealSegment { epoch: broker.epoch, file: file(1, 5), end: end(50) })
        .await
        .unwrap();
    assert!(bases(from(50, 10).await.unwrap()).is_empty());
    assert_eq!(bases(from(49, 10).await.unwrap()), [40]);
}

#[tokio::test]
async fn an_empty_segment_becomes_garbage_until_forgotten() {
    let cluster = Cluster::start().await;
    let mut broker = Broker::claim(&cluster, 1).await;
    broker.finish_recovery(None, 0).await.unwrap();
    broker.open(1, None).await.unwrap();
    let view = broker.open(2, Some(end(0))).await.unwrap();
    assert_eq!(view.segments.len(), 1);
    let garbage = cluster.meta.garbage(cluster.partition).await.unwrap();
    assert_eq!(garbage.iter().map(|it| it.file).collect::<Vec<_>>(), [file(1, 1)]);
    broker.send(PartitionCommandKind::ForgetGarbage { epoch: broker.epoch, file: file(1, 1) }).await.unwrap();
    assert!(cluster.meta.garbage(cluster.partition).await.unwrap().is_empty());
}

#[tokio::test]
async fn topics_are_created_listed_marked_and_purged() {
    let cluster = Cluster::start().await;
    let meta = &cluster.meta;
    let again = CreateTopic { name: "orders".to_owned(), partitions: 1, config: Default::default() };
    assert_eq!(meta.create_topic(again.clone()).await.unwrap_err().code, ErrorCode::TopicExists);
    assert_eq!(meta.topic("orders").await.unwrap().unwrap().id, cluster.partition.topic);
    assert_eq!(meta.topic("other").await.unwrap(), None);
    assert_eq!(meta.delete_topic("other").await.unwrap_err().code, ErrorCode::UnknownTopic);
    let mut broker = Broker::claim(&cluster, 1).await;
    broker.finish_recovery(None, 0).await.unwrap();
    broker.open(1, None).await.unwrap();
    for nonce in 2..200 {
        broker.open(nonce, Some(end((nonce - 1) * 10))).await.unwrap();
    }
    broker.checkpoint(199, 5_000).await.unwrap();

    let early = meta.purge_topic(cluster.term, cluster.partition.topic).await.unwrap_err();
    assert_eq!(early.code, ErrorCode::Conflict);
    let marked = meta.delete_topic("orders").await.unwrap();
    assert_eq!((marked.state, meta.delete_topic("orders").await.unwrap()), (TopicState::Deleting, marked.clone()));
    assert_eq!(meta.create_topic(again.clone()).await.unwrap_err().code, ErrorCode::TopicExists);
    let fenced = meta.purge_topic(Term(99), cluster.partition.topic).await.unwrap_err();
    assert_eq!(fenced.code, ErrorCode::Fenced);
    let intent = meta.set_intents(cluster.term, vec![(cluster.partition, Some(NodeId(1)))]).await.unwrap_err();
    assert_eq!(intent.code, ErrorCode::UnknownTopic);
    let mut steps = 1;
    while !meta.purge_topic(cluster.term, cluster.partition.topic).await.unwrap() {
        steps += 1;
    }
    assert!(steps > 4, "a bounded number of records a step, but all in {steps}");
    let left = cluster.store.list(ListRequest::prefix("segment/")).await.unwrap();
    assert!(left.entries.is_empty());
    assert_eq!(broker.open(200, Some(end(2_000))).await.unwrap_err().code, ErrorCode::Fenced);
    assert!(meta.purge_topic(cluster.term, cluster.partition.topic).await.unwrap(), "once more is no error");
    assert!(meta.list_topics().await.unwrap().is_empty());
    let recreated = meta.create_topic(again).await.unwrap();
    assert_ne!(recreated.id, cluster.partition.topic);
}

#[tokio::test]
async fn intents_need_the_newest_term_and_a_partition_that_exists() {
    let cluster = Cluster::start().await;
    let wanted = |partition| vec![(partition, Some(NodeId(1)))];
    let mut absent = cluster.partition;
    absent.partition.0 = 7;
    let error = cluster.meta.set_intents(cluster.term, wanted(absent)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownPartition);
    absent.topic = TopicId([9; 16]);
    let error = cluster.meta.set_intents(cluster.term, wanted(absent)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownTopic);
    let error = cluster.meta.set_intents(Term(0), wanted(cluster.partition)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Fenced);
    cluster.meta.set_intents(cluster.term, vec![(cluster.partition, None)]).await.unwrap();
    let refused = Broker::try_claim(&cluster, 1).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::NotOwner);
}

#[tokio::test]
async fn many_intents_are_written_in_several_transactions() {
    let cluster = Cluster::start().await;
    let wide = CreateTopic { name: "wide".to_owned(), partitions: 500, config: Default::default() };
    let topic = cluster.meta.create_topic(wide).await.unwrap();
    let intents = topic.partition_ids().map(|partition| (partition, Some(NodeId(partition.partition.0 % 3)))).collect();
    cluster.meta.set_intents(cluster.term, intents).await.unwrap();
    let prefix = format!("{}{}/", keys::INTENTS, topic.id);
    let found = cluster.store.list(ListRequest::prefix(&prefix)).await.unwrap();
    assert_eq!(found.entries.len(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_it_is_not_kept_alive() {
    let cluster = Cluster::start().await;
    let session = cluster.session(NodeKind::Broker, 1, 1).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        cluster.meta.keep_alive(session).await.unwrap();
    }
    let brokers = |sessions: Vec<SessionRecord>| sessions.into_iter().filter(|it| it.kind == NodeKind::Broker).count();
    assert_eq!(brokers(cluster.meta.list_sessions().await.unwrap()), 1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(brokers(cluster.meta.list_sessions().await.unwrap()), 0);
    assert_eq!(cluster.meta.keep_alive(session).await.unwrap_err().code, ErrorCode::Fenced);
    assert_eq!(cluster.meta.keep_alive(SessionId(12_345)).await.unwrap_err().code, ErrorCode::Fenced);
    cluster.meta.close_session(session).await.unwrap();
}

#[tokio::test]
async fn a_newer_incarnation_replaces_the_older_one() {
    let cluster = Cluster::start().await;
    let older = cluster.session(NodeKind::Broker, 1, 1).await;
    let newer = cluster.session(NodeKind::Broker, 1, 2).await;
    assert_eq!(cluster.meta.keep_alive(older).await.unwrap_err().code, ErrorCode::Fenced);
    cluster.meta.close_session(older).await.unwrap();
    cluster.meta.keep_alive(newer).await.unwrap();
    let sessions = cluster.meta.list_sessions().await.unwrap();
    let broker = sessions.iter().find(|it| it.kind == NodeKind::Broker).unwrap();
    assert_eq!((broker.node, broker.incarnation.0), (NodeId(1), 2));
    cluster.meta.close_session(newer).await.unwrap();
    assert!(cluster.meta.list_sessions().await.unwrap().iter().all(|it| it.kind != NodeKind::Broker));
}

#[tokio::test(start_paused = true)]
async fn one_controller_holds_the_term_as_long_as_its_session() {
    let cluster = Cluster::start().await;
    let meta = &cluster.meta;
    let rival = cluster.session(NodeKind::Controller, 2, 1).await;
    assert_eq!(meta.acquire_term(cluster.controller).await.unwrap(), cluster.term, "held, and the same");
    assert_eq!(meta.acquire_term(rival).await.unwrap_err().code, ErrorCode::Conflict);
    let broker = cluster.session(NodeKind::Broker, 1, 1).await;
    assert_eq!(meta.acquire_term(broker).await.unwrap_err().code, ErrorCode::InvalidArgument);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        meta.keep_alive(rival).await.unwrap();
    }
    let taken = meta.acquire_term(rival).await.unwrap();
    assert_eq!(taken, Term(cluster.term.0 + 1));
    assert_eq!(meta.acquire_term(cluster.controller).await.unwrap_err().code, ErrorCode::Fenced);
    let stale = meta.set_intents(cluster.term, vec![(cluster.partition, Some(NodeId(1)))]).await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::Fenced);
    // Restarted, a controller need not wait for its own older session.
    let restarted = cluster.session(NodeKind::Controller, 2, 2).await;
    assert_eq!(meta.acquire_term(restarted).await.unwrap(), Term(taken.0 + 1));
}

#[tokio::test]
async fn producer_ids_are_given_once() {
    let cluster = Cluster::start().await;
    let calls = (0..20).map(|count| cluster.meta.allocate_producer_ids(count + 1));
    let firsts = futures::future::join_all(calls).await;
    let mut ranges: Vec<_> = firsts.into_iter().zip(1..).map(|(first, count)| (first.unwrap(), count)).collect();
    ranges.sort();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:?}");
    assert_eq!(cluster.meta.allocate_producer_ids(0).await.unwrap_err().code, ErrorCode::InvalidArgument);
}
