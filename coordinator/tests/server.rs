//! A whole coordinator over real metadata: creates its topic, takes what it is meant to take, answers, lets go.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the error")]

use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::SystemClock;
use bmq_common::metrics::Metrics;
use bmq_common::readiness::Readiness;
use bmq_common::rng::Random;
use bmq_common::shutdown::Shutdown;
use bmq_coordinator::{CoordinatorComponents, CoordinatorConfig, Server};
use bmq_meta::{MemoryStore as MetaRecords, MetaServer, MetaServerConfig};
use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommittedOffset, CoordinatorService, FetchOffsetsRequest, GROUPS_TOPIC, ListGroupsRequest,
    shard_of,
};
use bmq_proto::meta::{CreateTopic, MetaService, NodeKind, OpenSession, TopicConfig, TopicRecord};
use bmq_proto::{ErrorCode, Incarnation, NodeId, ServiceError, Term, TopicId};
use bmq_storage::MemoryStore;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
const SHARDS: u32 = 3;

/// What coordinators stand on, with a controller that is the test itself.
struct World {
    meta: Arc<MetaServer>,
    store: Arc<MemoryStore>,
    term: Term,
}

struct Coordinator {
    service: Arc<dyn CoordinatorService>,
    readiness: Readiness,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl World {
    async fn new() -> Self {
        let meta = MetaServer::start(Arc::new(MetaRecords::new()), MetaServerConfig::default(), Random::from_os());
        let meta = Arc::new(meta.await.unwrap());
        let session = OpenSession {
            kind: NodeKind::Controller,
            node: NodeId(1),
            incarnation: Incarnation(1),
            address: String::new(),
            endpoints: Default::default(),
            time_to_live: Duration::from_secs(600),
        };
        let term = meta.acquire_term(meta.open_session(session).await.unwrap()).await.unwrap();
        Self { meta, store: Arc::new(MemoryStore::new()), term }
    }

    async fn start(&self, node_id: u32) -> Coordinator {
        let config = CoordinatorConfig { node_id, shards: SHARDS, ..CoordinatorConfig::default() };
        let readiness = Readiness::new();
        let components = CoordinatorComponents {
            meta: self.meta.clone(),
            store: self.store.clone(),
            clock: SystemClock::shared(),
            random: Random::from_os(),
            metrics: Metrics::new(),
            readiness: readiness.clone(),
        };
        let server = Server::build(config, components).await.unwrap();
        let (service, shutdown) = (server.service(), Shutdown::new());
        let running = tokio::spawn(server.run(shutdown.clone()));
        Coordinator { service, readiness, shutdown, running }
    }

    /// The topic that holds the groups, once a coordinator has created it.
    async fn groups_topic(&self) -> TopicRecord {
        eventually(async || self.meta.topic(GROUPS_TOPIC).await.unwrap()).await
    }

    /// Has the controller want every shard at `node`.
    async fn place(&self, topic: &TopicRecord, node: u32) {
        let intents = topic.partition_ids().map(|partition| (partition, Some(NodeId(node)))).collect();
        self.meta.set_intents(self.term, intents).await.unwrap();
    }
}

impl Coordinator {
    async fn commit(&self, group: &str, topic_id: TopicId, offset: i64) -> Result<i32, ServiceError> {
        let (topic, topic_id) = ("orders".to_owned(), topic_id.0.to_vec().into());
        let committed = CommittedOffset { topic, topic_id, offset, leader_epoch: -1, ..Default::default() };
        let request = CommitOffsetsRequest {
            group: group.to_owned(),
            generation_or_member_epoch: -1,
            offsets: vec![committed],
            ..Default::default()
        };
        Ok(self.service.commit_offsets(request).await?.error)
    }

    async fn fetch(&self, group: &str) -> Result<Vec<i64>, ServiceError> {
        let request = FetchOffsetsRequest { group: group.to_owned(), ..Default::default() };
        let response = self.service.fetch_offsets(request).await?;
        Ok(response.offsets.iter().map(|committed| committed.offset).collect())
    }

    async fn stop(mut self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, &mut self.running).await.expect("it stops").unwrap();
    }
}

/// Asks until there is an answer.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it comes about")
}

#[tokio::test]
async fn groups_move_from_one_coordinator_to_the_next() {
    let world = World::new().await;
    let orders = CreateTopic { name: "orders".to_owned(), partitions: 1, config: TopicConfig::new() };
    let orders = world.meta.create_topic(orders).await.unwrap().id;
    let (first, second) = (world.start(1).await, world.start(2).await);
    let topic = world.groups_topic().await;
    assert_eq!(topic.partitions, SHARDS, "one of the two has created it");
    world.place(&topic, 1).await;
    eventually(async || first.readiness.is_ready().then_some(())).await;
    for group in ["a", "b", "c", "d"] {
        eventually(async || first.commit(group, orders, 7).await.ok().filter(|error| *error == 0)).await;
    }
    assert_eq!(second.fetch("a").await.unwrap_err().code, ErrorCode::NotOwner);

    // A move in good order.
    world.place(&topic, 2).await;
    for group in ["a", "b", "c", "d"] {
        assert_eq!(eventually(async || second.fetch(group).await.ok()).await, [7]);
    }
    assert_eq!(eventually(async || first.fetch("a").await.err()).await.code, ErrorCode::NotOwner);
    let shard = shard_of("a", SHARDS).0;
    let listed = second.service.list_groups(ListGroupsRequest { shard }).await.unwrap();
    assert!(listed.groups.iter().any(|listing| listing.group == "a"), "{listed:?}");

    // A stop releases everything, and says goodbye.
    second.stop().await;
    for partition in topic.partition_ids() {
        assert_eq!(world.meta.head(partition).await.unwrap().owner, None);
    }
    let sessions = world.meta.list_sessions().await.unwrap();
    assert!(!sessions.iter().any(|session| session.kind == NodeKind::Coordinator && session.node == NodeId(2)));
    world.place(&topic, 1).await;
    assert_eq!(eventually(async || first.fetch("d").await.ok()).await, [7]);
    first.stop().await;
}
