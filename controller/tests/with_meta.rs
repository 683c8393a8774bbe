//! Whole controllers over a real metadata service in memory, and brokers that only have sessions.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the error")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_common::{Metrics, Random, Readiness, Shutdown, SystemClock};
use bmq_controller::{ControllerComponents, ControllerConfig, Server};
use bmq_meta::{MemoryStore, MetaServer, MetaServerConfig};
use bmq_proto::broker::{
    ActiveProducer, AppendStream, BrokerConnector, BrokerService, OwnerBatches, OwnerRead, PartitionBounds, TailStream,
    TimeHint, TimeSearch,
};
use bmq_proto::meta::{
    CreateTopic, MetaChange, MetaService, NodeKind, OpenSession, SessionId, SessionRecord, TopicConfig, WatchEvent,
    WatchScope,
};
use bmq_proto::{Epoch, ErrorCode, Incarnation, NodeId, Offset, ServiceError, TopicId, TopicPartition};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// Brokers that can only delete data, and say so.
struct Brokers {
    deleted: mpsc::UnboundedSender<(NodeId, TopicId)>,
}

struct Broker {
    node: NodeId,
    deleted: mpsc::UnboundedSender<(NodeId, TopicId)>,
}

impl BrokerConnector for Brokers {
    fn connect(&self, broker: &SessionRecord) -> Arc<dyn BrokerService> {
        Arc::new(Broker { node: broker.node, deleted: self.deleted.clone() })
    }
}

fn unsupported<T>() -> Result<T, ServiceError> {
    Err(ServiceError::not_applied(ErrorCode::Unsupported, "a broker of a test"))
}

#[async_trait]
impl BrokerService for Broker {
    async fn append_stream(&self) -> Result<AppendStream, ServiceError> {
        unsupported()
    }
    async fn read(&self, _request: OwnerRead) -> Result<OwnerBatches, ServiceError> {
        unsupported()
    }
    async fn bounds(&self, _partition: TopicPartition) -> Result<PartitionBounds, ServiceError> {
        unsupported()
    }
    async fn follow(&self, _at: TopicPartition, _epoch: Epoch, _from: Offset) -> Result<TailStream, ServiceError> {
        unsupported()
    }
    async fn delete_records(&self, _at: TopicPartition, _epoch: Epoch, _to: Offset) -> Result<Offset, ServiceError> {
        unsupported()
    }
    async fn offset_for_time(
        &self,
        _at: TopicPartition,
        _epoch: Epoch,
        _search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        unsupported()
    }
    async fn producers(&self, _at: TopicPartition, _epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError> {
        unsupported()
    }
    async fn delete_topic_data(&self, topic: TopicId) -> Result<(), ServiceError> {
        self.deleted.send((self.node, topic)).expect("the test listens");
        Ok(())
    }
}

/// A metadata service, and controllers over it.
struct Cluster {
    meta: Arc<MetaServer>,
    brokers: Arc<Brokers>,
    deleted: mpsc::UnboundedReceiver<(NodeId, TopicId)>,
}

impl Cluster {
    async fn start() -> Self {
        let store = Arc::new(MemoryStore::new());
        let meta = MetaServer::start(store, MetaServerConfig::default(), Random::from_seed(1)).await.unwrap();
        let (sender, deleted) = mpsc::unbounded_channel();
        Cluster { meta: Arc::new(meta), brokers: Arc::new(Brokers { deleted: sender }), deleted }
    }

    fn controller(&self, node_id: u32) -> Controller {
        let components = ControllerComponents {
            meta: Arc::clone(&self.meta) as _,
            brokers: Arc::clone(&self.brokers) as _,
            clock: SystemClock::shared(),
            random: Random::from_seed(u64::from(node_id)),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let server = Server::build(ControllerConfig { node_id, ..Default::default() }, components).unwrap();
        let shutdown = Shutdown::new();
        Controller { running: tokio::spawn(server.run(shutdown.clone())), shutdown }
    }

    async fn broker(&self, node: u32) -> SessionId {
        let request = OpenSession {
            kind: NodeKind::Broker,
            node: NodeId(node),
            incarnation: Incarnation(1),
            address: format!("127.0.0.1:{node}"),
            endpoints: Default::default(),
            // Longer than any test, since nobody keeps it alive.
            time_to_live: Duration::from_secs(600),
        };
        self.meta.open_session(request).await.unwrap()
    }

    async fn topic(&self, name: &str, partitions: u32) -> TopicId {
        let request = CreateTopic { name: name.to_owned(), partitions, config: TopicConfig::new() };
        self.meta.create_topic(request).await.unwrap().id
    }

    /// Waits until what the watch shows of intents is as wanted: how many partitions each broker has.
    async fn wait_for_intents(&self, expect: &[(u32, usize)]) {
        let expect: BTreeMap<_, _> = expect.iter().map(|(node, count)| (NodeId(*node), *count)).collect();
        let mut intents = BTreeMap::new();
        let mut stream = self.meta.watch(WatchScope { intents: true, ..Default::default() }).await.unwrap();
        let reached = async {
            while let Some(event) = stream.next().await {
                match event.unwrap() {
                    WatchEvent::Change(MetaChange::Intent(partition, intent)) => {
                        intents.insert(partition, intent.node);
                    }
                    WatchEvent::Change(MetaChange::IntentGone(partition)) => drop(intents.remove(&partition)),
                    _ => {}
                }
                let mut counts = BTreeMap::new();
                intents.values().for_each(|node| *counts.entry(*node).or_insert(0) += 1);
                if counts == expect {
                    return;
                }
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "never came to {expect:?}, last seen {intents:?}");
    }

    async fn wait_until_gone(&self, topic: TopicId) {
        let mut stream = self.meta.watch(WatchScope { topics: true, ..Default::default() }).await.unwrap();
        let gone = async {
            let mut seen = false;
            while let Some(event) = stream.next().await {
                match event.unwrap() {
                    WatchEvent::Change(MetaChange::Topic(record)) if record.id == topic => seen = true,
                    WatchEvent::Change(MetaChange::TopicGone(id)) if id == topic => return,
                    WatchEvent::Synced if !seen => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the topic goes away");
    }
}

/// A controller that runs; stopped by hand, or aborted when the test fails.
struct Controller {
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Controller {
    async fn stop(mut self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, &mut self.running).await.expect("it stops").unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.running.abort();
    }
}

#[tokio::test]
async fn places_moves_and_deletes() {
    let mut cluster = Cluster::start().await;
    let controller = cluster.controller(1);
    cluster.broker(1).await;
    let second = cluster.broker(2).await;
    let topic = cluster.topic("orders", 250).await;
    cluster.wait_for_intents(&[(1, 125), (2, 125)]).await;

    cluster.meta.close_session(second).await.unwrap();
    cluster.wait_for_intents(&[(1, 250)]).await;

    cluster.meta.delete_topic("orders").await.unwrap();
    let deleted = tokio::time::timeout(PATIENCE, cluster.deleted.recv()).await.expect("data is deleted");
    assert_eq!(deleted, Some((NodeId(1), topic)));
    cluster.wait_until_gone(topic).await;
    cluster.wait_for_intents(&[]).await;
    controller.stop().await;
    assert_eq!(cluster.meta.list_sessions().await.unwrap().len(), 1, "the controller's session is closed");
}

#[tokio::test]
async fn a_standby_takes_over() {
    let cluster = Cluster::start().await;
    let first = cluster.controller(1);
    cluster.broker(1).await;
    cluster.topic("orders", 2).await;
    cluster.wait_for_intents(&[(1, 2)]).await;
    let second = cluster.controller(2);
    first.stop().await;
    cluster.topic("payments", 3).await;
    cluster.wait_for_intents(&[(1, 5)]).await;
    second.stop().await;
}
