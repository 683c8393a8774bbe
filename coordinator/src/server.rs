//! The coordinator put together: session, hosting of the internal partitions, shards over them, service.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::SharedClock;
use bmq_common::metrics::Metrics;
use bmq_common::readiness::{Readiness, ReadyFlag};
use bmq_common::rng::Random;
use bmq_common::shutdown::Shutdown;
use bmq_common::tasks::Tasks;
use bmq_partition::{Hosting, PartitionContext, PartitionHandle, PartitionMetrics, Reconciler, ReconcilerSetup};
use bmq_proto::coordinator::CoordinatorService;
use bmq_proto::meta::{MetaService, NodeKind, OpenSession, Owner, SessionEnd, keep_session};
use bmq_proto::{Incarnation, NodeId, ServiceError, TopicPartition};
use bmq_storage::SegmentStore;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::config::CoordinatorConfig;
use crate::group::Groups;
use crate::groups_topic::ensure_groups_topic;
use crate::metrics::CoordinatorMetrics;
use crate::service::{Service, Shards};
use crate::shard::driver::{self, ShardContext};
use crate::topics::{TopicView, watch_topics};

/// How long tasks may take to end once everything was released.
const LAST_TASKS: Duration = Duration::from_secs(5);

/// What a coordinator needs around it.
pub struct CoordinatorComponents {
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// A coordinator, ready to run.
pub struct Server {
    config: CoordinatorConfig,
    components: CoordinatorComponents,
    context: PartitionContext,
    metrics: CoordinatorMetrics,
    hosting: Hosting,
    shards: Shards,
    topics: watch::Sender<Arc<TopicView>>,
    tasks: Tasks,
}

impl Server {
    /// Asks metadata for the cluster's id; an error if it cannot be reached.
    pub async fn build(config: CoordinatorConfig, components: CoordinatorComponents) -> Result<Self, ServiceError> {
        let cluster = components.meta.cluster().await?.cluster;
        let incarnation = Incarnation(components.random.next_u64());
        let context = PartitionContext {
            cluster,
            me: Owner { node: NodeId(config.node_id), incarnation },
            meta: components.meta.clone(),
            store: components.store.clone(),
            clock: components.clock.clone(),
            random: components.random.clone(),
            metrics: PartitionMetrics::register_internal(&components.metrics),
            compactions: Default::default(),
        };
        Ok(Self {
            metrics: CoordinatorMetrics::register(&components.metrics),
            config,
            components,
            context,
            hosting: Hosting::default(),
            shards: Shards::default(),
            topics: watch::Sender::default(),
            // Its own shutdown: shards are released first, then the rest of the coordinator's tasks is told to end.
            tasks: Tasks::new(Shutdown::new()),
        })
    }

    /// The service for proxies.
    pub fn service(&self) -> Arc<dyn CoordinatorService> {
        Arc::new(Service { shards: self.shards.clone(), topics: self.topics.subscribe() })
    }

    /// Runs until shutdown begins, then releases every shard in good order.
    pub async fn run(self, shutdown: Shutdown) {
        let readiness = self.components.readiness.clone();
        let reconciling = Shutdown::new();
        self.follow_topics(readiness.register("groups topic"), &reconciling);
        self.host_shards(readiness.register("coordinator metadata"), &reconciling);
        let session_end = Shutdown::new();
        self.keep_session(readiness.register("coordinator session"), session_end.clone());

        tokio::select! {
            () = shutdown.begun() => {}
            // A task of ours panicked, or another process runs under our node id.
            () = self.tasks.shutdown().begun() => shutdown.begin(),
        }
        // Nothing new is claimed; what runs is released while the session still says that we are here.
        reconciling.begin();
        self.hosting.release_all(self.config.close_wait.0).await;
        session_end.begin();
        self.tasks.shutdown().begin();
        if let Err(names) = self.tasks.join(LAST_TASKS).await {
            tracing::warn!(?names, "tasks did not end in time");
        }
    }

    /// Watches topics, and creates the one that holds the groups if nobody has.
    fn follow_topics(&self, ready: ReadyFlag, end: &Shutdown) {
        let (meta, random) = (self.components.meta.clone(), self.components.random.clone());
        // Shards look at topics to their end, so the watch ends with the last of them.
        let ended = self.tasks.shutdown().clone();
        self.tasks.spawn("topics", watch_topics(meta.clone(), random.clone(), self.topics.clone(), ended));
        let (partitions, end) = (self.config.shards, end.clone());
        self.tasks.spawn("groups topic", async move {
            tokio::select! {
                () = end.begun() => {}
                () = ensure_groups_topic(meta, partitions, random) => ready.set(true, ""),
            }
        });
    }

    fn host_shards(&self, ready: ReadyFlag, end: &Shutdown) {
        let (started, starts) = mpsc::unbounded_channel();
        let reconciler = Reconciler::new(ReconcilerSetup {
            kind: NodeKind::Coordinator,
            handover_wait: self.config.handover_wait.0,
            hosting: self.hosting.clone(),
            context: self.context.clone(),
            config: self.config.partition.clone(),
            tasks: self.tasks.clone(),
            ready,
            started: Some(started),
        });
        self.tasks.spawn("coordinator reconciler", reconciler.run(end.clone()));
        let starter = ShardStarter {
            config: self.config.clone(),
            context: self.context.clone(),
            metrics: self.metrics.clone(),
            shards: self.shards.clone(),
            topics: self.topics.subscribe(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn("shard starter", starter.run(starts));
    }

    fn keep_session(&self, ready: ReadyFlag, end: Shutdown) {
        let request = OpenSession {
            kind: NodeKind::Coordinator,
            node: self.context.me.node,
            incarnation: self.context.me.incarnation,
            address: self.config.advertised_address.clone(),
            endpoints: Default::default(),
            time_to_live: self.config.session_ttl.0,
        };
        let (meta, random) = (self.components.meta.clone(), self.components.random.clone());
        let ending = self.tasks.shutdown().clone();
        self.tasks.spawn("coordinator session", async move {
            if keep_session(meta, request, random, ready, end).await == SessionEnd::Replaced {
                ending.begin();
            }
        });
    }
}

/// Runs a shard over each partition that is started here.
struct ShardStarter {
    config: CoordinatorConfig,
    context: PartitionContext,
    metrics: CoordinatorMetrics,
    shards: Shards,
    topics: watch::Receiver<Arc<TopicView>>,
    tasks: Tasks,
}

impl ShardStarter {
    /// Ends with the reconciler.
    async fn run(self, mut starts: mpsc::UnboundedReceiver<(TopicPartition, PartitionHandle)>) {
        while let Some((partition, handle)) = starts.recv().await {
            self.start(partition, handle);
        }
    }

    fn start(&self, partition: TopicPartition, handle: PartitionHandle) {
        let context = ShardContext {
            cluster: self.context.cluster,
            partition,
            meta: self.context.meta.clone(),
            store: self.context.store.clone(),
            clock: self.context.clock.clone(),
            random: self.context.random.clone(),
            metrics: self.metrics.clone(),
            snapshot_bytes: self.config.snapshot_bytes.0 as usize,
            // The partition's buffer never refuses what is let in here.
            buffer_bytes: self.config.partition.buffer_bytes.0 as usize / 2,
        };
        let (groups, random) = (self.config.groups.to_config(), self.context.random.clone());
        let new_state = move || Groups::new(groups.clone(), fresh_seed(&random));
        let (shard, task) = driver::open(context, handle, self.topics.clone(), Arc::new(new_state));
        self.shards.put(partition, shard);
        self.tasks.spawn("shard", task);
    }
}

fn fresh_seed(random: &Random) -> Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    Uuid::from_bytes(bytes)
}
