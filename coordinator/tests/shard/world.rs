//! Shards over a real metadata service and a store in memory, without a coordinator around them: nobody tells an owner
//! that it was superseded, as if it had been paused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bmq_common::clock::SystemClock;
use bmq_common::metrics::Metrics;
use bmq_common::rng::Random;
use bmq_coordinator::group::Groups;
use bmq_coordinator::group::config::GroupsConfig;
use bmq_coordinator::metrics::CoordinatorMetrics;
use bmq_coordinator::shard::driver::{self, ShardContext};
use bmq_coordinator::shard::handle::{ShardHandle, ShardStatus};
use bmq_coordinator::shard::{Request, Response};
use bmq_coordinator::topics::TopicView;
use bmq_meta::{MemoryStore as MetaRecords, MetaServer, MetaServerConfig};
use bmq_partition::{PartitionConfig, PartitionContext, PartitionHandle, PartitionMetrics};
use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommittedOffset, FetchOffsetsRequest, FetchOffsetsResponse, GROUPS_TOPIC,
};
use bmq_proto::meta::{CreateTopic, MetaService, NodeKind, OpenSession, Owner, TopicConfig};
use bmq_proto::{ClusterId, Incarnation, NodeId, ServiceError, Term, TopicId, TopicPartition};
use bmq_storage::SegmentStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shard's surroundings, which outlive its owners.
pub struct World {
    pub meta: Arc<MetaServer>,
    pub store: Arc<dyn SegmentStore>,
    pub partition: TopicPartition,
    pub topics: watch::Sender<Arc<TopicView>>,
    pub snapshot_bytes: usize,
    cluster: ClusterId,
    random: Random,
    term: Term,
}

/// A node's claim on the shard. Dropping it is a kill.
pub struct ShardOwner {
    pub shard: ShardHandle,
    pub partition: PartitionHandle,
    paused: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for ShardOwner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl World {
    pub async fn new(store: Arc<dyn SegmentStore>) -> Self {
        let random = Random::from_os();
        let meta = MetaServer::start(Arc::new(MetaRecords::new()), MetaServerConfig::default(), random.clone());
        let meta = Arc::new(meta.await.unwrap());
        let cluster = meta.cluster().await.unwrap().cluster;
        let session = OpenSession {
            kind: NodeKind::Controller,
            node: NodeId(1),
            incarnation: Incarnation(1),
            address: String::new(),
            endpoints: Default::default(),
            time_to_live: Duration::from_secs(600),
        };
        let session = meta.open_session(session).await.unwrap();
        let term = meta.acquire_term(session).await.unwrap();
        let topic = CreateTopic { name: GROUPS_TOPIC.to_owned(), partitions: 1, config: TopicConfig::new() };
        let topic = meta.create_topic(topic).await.unwrap();
        let partition = topic.partition_ids().next().unwrap();
        let topics = watch::Sender::new(Arc::new(TopicView::of(&[topic])));
        Self { meta, store, partition, topics, snapshot_bytes: 4 << 20, cluster, random, term }
    }

    /// A topic of users, which the shards then know.
    pub async fn create_topic(&self, name: &str) -> TopicId {
        let request = CreateTopic { name: name.to_owned(), partitions: 1, config: TopicConfig::new() };
        let topic = self.meta.create_topic(request).await.unwrap();
        self.tell_topics().await;
        topic.id
    }

    /// Tells the shards of the topics that there are.
    pub async fn tell_topics(&self) {
        let listed = self.meta.list_topics().await.unwrap();
        self.topics.send_replace(Arc::new(TopicView::of(&listed)));
    }

    /// Has the controller want `node`, and starts the shard there. Returns once it serves.
    pub async fn claim(&self, node: u32) -> ShardOwner {
        let owner = self.begin_claim(node).await;
        let mut status = owner.shard.status();
        status.wait_for(|status| *status == ShardStatus::Serving).await.unwrap();
        owner
    }

    /// As `claim`, without waiting.
    pub async fn begin_claim(&self, node: u32) -> ShardOwner {
        let intents = vec![(self.partition, Some(NodeId(node)))];
        self.meta.set_intents(self.term, intents).await.unwrap();
        let metrics = Metrics::new();
        let context = PartitionContext {
            cluster: self.cluster,
            me: Owner { node: NodeId(node), incarnation: Incarnation(self.random.next_u64()) },
            meta: self.meta.clone(),
            store: self.store.clone(),
            clock: SystemClock::shared(),
            random: self.random.clone(),
            metrics: PartitionMetrics::register_internal(&metrics),
            compactions: Default::default(),
        };
        let (partition, hosting) = bmq_partition::open(context, self.partition, PartitionConfig::default());
        let context = ShardContext {
            cluster: self.cluster,
            partition: self.partition,
            meta: self.meta.clone(),
            store: self.store.clone(),
            clock: SystemClock::shared(),
            random: self.random.clone(),
            metrics: CoordinatorMetrics::register(&metrics),
            snapshot_bytes: self.snapshot_bytes,
            buffer_bytes: 16 << 20,
        };
        let new_state = || Groups::new(GroupsConfig::default(), Uuid::new_v4());
        let (shard, task) = driver::open(context, partition.clone(), self.topics.subscribe(), Arc::new(new_state));
        let paused = Arc::new(AtomicBool::new(false));
        let pausable = Pausable { future: Box::pin(hosting), paused: paused.clone() };
        let hosting = tokio::spawn(async move {
            pausable.await;
        });
        ShardOwner { shard, partition, paused, tasks: vec![hosting, tokio::spawn(task)] }
    }
}

/// A future that is not polled while it is paused.
struct Pausable<T> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
    paused: Arc<AtomicBool>,
}

impl<T> Future for Pausable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<T> {
        match self.paused.load(Ordering::SeqCst) {
            true => Poll::Pending,
            false => self.future.as_mut().poll(context),
        }
    }
}

impl ShardOwner {
    /// From now on the partition's task notices nothing any more: neither that its file was fenced nor a claim.
    pub fn pause_partition(&self) {
        self.paused.store(true, Ordering::SeqCst);
    }

    /// Commits an offset as a consumer without membership.
    pub async fn commit(&self, group: &str, topic: &str, topic_id: TopicId, offset: i64) -> Result<i32, ServiceError> {
        match self.ask(commit(group, topic, topic_id, offset)).await? {
            Response::CommitOffsets(response) if response.error == 0 => {
                Ok(response.partitions.first().map_or(0, |partition| partition.error))
            }
            Response::CommitOffsets(response) => Ok(response.error),
            other => panic!("{other:?}"),
        }
    }

    /// Every offset that a group has committed.
    pub async fn fetch(&self, group: &str) -> Result<Vec<i64>, ServiceError> {
        let response = self.fetch_response(group).await?;
        Ok(response.offsets.iter().map(|committed| committed.offset).collect())
    }

    async fn ask(&self, request: Request) -> Result<Response, ServiceError> {
        tokio::time::timeout(PATIENCE, self.shard.ask(request)).await.expect("every request is answered")
    }

    async fn fetch_response(&self, group: &str) -> Result<FetchOffsetsResponse, ServiceError> {
        let request = FetchOffsetsRequest { group: group.to_owned(), ..Default::default() };
        match self.ask(Request::FetchOffsets(request)).await? {
            Response::FetchOffsets(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }
}

pub fn commit(group: &str, topic: &str, topic_id: TopicId, offset: i64) -> Request {
    let offset = CommittedOffset {
        topic: topic.to_owned(),
        partition: 0,
        offset,
        leader_epoch: -1,
        metadata: "from a test".to_owned(),
        topic_id: topic_id.0.to_vec().into(),
    };
    Request::CommitOffsets(CommitOffsetsRequest {
        group: group.to_owned(),
        generation_or_member_epoch: -1,
        offsets: vec![offset],
        ..Default::default()
    })
}
