//! The broker put together: session, reconciliation, service.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bmq_common::clock::SharedClock;
use bmq_common::metrics::Metrics;
use bmq_common::readiness::Readiness;
use bmq_common::rng::Random;
use bmq_common::shutdown::Shutdown;
use bmq_common::tasks::Tasks;
use bmq_partition::{Hosting, PartitionContext, PartitionMetrics, Reconciler, ReconcilerSetup};
use bmq_proto::broker::BrokerService;
use bmq_proto::meta::{MetaService, NodeKind, OpenSession, Owner, SessionEnd, keep_session};
use bmq_proto::{Incarnation, NodeId, ServiceError};
use bmq_storage::SegmentStore;

use crate::config::BrokerConfig;
use crate::service::Service;

/// How long tasks may take to end once everything was released.
const LAST_TASKS: Duration = Duration::from_secs(5);

/// What a broker needs around it.
pub struct BrokerComponents {
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// A broker, ready to run.
pub struct Server {
    config: BrokerConfig,
    components: BrokerComponents,
    context: PartitionContext,
    hosting: Hosting,
    service: Arc<Service>,
    tasks: Tasks,
}

impl Server {
    /// Asks metadata for the cluster's id; an error if it cannot be reached.
    pub async fn build(config: BrokerConfig, components: BrokerComponents) -> Result<Self, ServiceError> {
        let cluster = components.meta.cluster().await?.cluster;
        let incarnation = Incarnation(components.random.next_u64());
        let context = PartitionContext {
            cluster,
            me: Owner { node: NodeId(config.node_id), incarnation },
            meta: components.meta.clone(),
            store: components.store.clone(),
            clock: components.clock.clone(),
            random: components.random.clone(),
            metrics: PartitionMetrics::register(&components.metrics),
            compactions: Default::default(),
        };
        let hosting = Hosting::default();
        // Its own shutdown: partitions are released first, then the rest of the broker's tasks is told to end.
        let tasks = Tasks::new(Shutdown::new());
        let service = Arc::new(Service {
            cluster,
            hosting: hosting.clone(),
            store: components.store.clone(),
            clock: components.clock.clone(),
            tasks: tasks.clone(),
            stream_buffer_bytes: config.stream_buffer_bytes.0,
            next_stream: AtomicU64::new(0),
        });
        Ok(Self { config, components, context, hosting, service, tasks })
    }

    /// The service for proxies and the controller.
    pub fn service(&self) -> Arc<dyn BrokerService> {
        self.service.clone()
    }

    /// Runs until shutdown begins, then releases every partition in good order.
    pub async fn run(self, shutdown: Shutdown) {
        let readiness = &self.components.readiness;
        let reconciler = Reconciler::new(ReconcilerSetup {
            kind: NodeKind::Broker,
            handover_wait: self.config.handover_wait.0,
            hosting: self.hosting.clone(),
            context: self.context.clone(),
            config: self.config.partition.clone(),
            tasks: self.tasks.clone(),
            ready: readiness.register("broker metadata"),
            started: None,
        });
        let reconciling = Shutdown::new();
        self.tasks.spawn("broker reconciler", reconciler.run(reconciling.clone()));
        let request = OpenSession {
            kind: NodeKind::Broker,
            node: self.context.me.node,
            incarnation: self.context.me.incarnation,
            address: self.config.advertised_address.clone(),
            endpoints: Default::default(),
            time_to_live: self.config.session_ttl.0,
        };
        let (meta, random) = (self.components.meta.clone(), self.components.random.clone());
        let ready = readiness.register("broker session");
        let session_end = Shutdown::new();
        let (ending, session) = (self.tasks.shutdown().clone(), session_end.clone());
        self.tasks.spawn("broker session", async move {
            if keep_session(meta, request, random, ready, session).await == SessionEnd::Replaced {
                ending.begin();
            }
        });

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
}
