//! The services of `bmq standalone` in this process, over any metadata store and any segment store: real but for what
//! they stand on, so that a test can take power away from it, or damage it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bmq_broker::{BrokerComponents, BrokerConfig};
use bmq_common::{ByteSize, Metrics, Random, Readiness, SharedClock, Shutdown, SystemClock, Tasks};
use bmq_controller::{ControllerComponents, ControllerConfig};
use bmq_meta::{MetaServer, MetaServerConfig, SharedStore};
use bmq_partition::PartitionConfig;
use bmq_proto::TopicPartition;
use bmq_proto::broker::{BrokerConnector, BrokerService, PartitionBounds};
use bmq_proto::coordinator::{CoordinatorConnector, CoordinatorService};
use bmq_proto::meta::{MetaService, SessionRecord};
use bmq_proto::rpc::{Limits, serve};
use bmq_proxy::{ProxyComponents, ProxyConfig};
use bmq_storage::SegmentStore;
use tokio::net::TcpListener;

/// How long services that are told to end may take.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// The running services. Dropping them is a kill.
pub struct InProcess {
    pub meta: Arc<MetaServer>,
    pub broker: Arc<dyn BrokerService>,
    /// `host:port` of the proxy.
    pub server: String,
    /// In the order in which they are to stop.
    stages: Vec<Tasks>,
}

/// What every service is given.
struct Surroundings {
    clock: SharedClock,
    random: Random,
    metrics: Metrics,
    readiness: Readiness,
}

impl InProcess {
    /// Starts all services. They listen, and take partitions, soon.
    pub async fn start(records: SharedStore, store: Arc<dyn SegmentStore>, partition: PartitionConfig) -> Result<Self> {
        let around = Surroundings {
            clock: SystemClock::shared(),
            random: Random::from_os(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let meta = MetaServer::start(records, MetaServerConfig::default(), around.random.clone()).await?;
        let meta = Arc::new(meta);
        let (broker, brokers) = start_broker(&meta, &store, partition, &around).await?;
        let connector = Arc::new(OneBroker(Arc::clone(&broker)));
        let controllers = start_controller(&meta, connector.clone(), &around)?;
        let (server, proxies) = start_proxy(&meta, store, connector, &around).await?;
        Ok(Self { meta, broker, server, stages: vec![proxies, brokers, controllers] })
    }

    /// Waits until the partition serves, and says where it stands.
    pub async fn serving(&self, partition: TopicPartition, patience: Duration) -> Result<PartitionBounds> {
        let serving = async {
            loop {
                if let Ok(bounds) = self.broker.bounds(partition).await {
                    return bounds;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(patience, serving).await.with_context(|| format!("{partition} does not serve"))
    }

    /// Ends everything in good order.
    pub async fn stop(self) -> Result<()> {
        for stage in &self.stages {
            stage.shutdown().begin();
            if let Err(names) = stage.join(STOP_DEADLINE).await {
                bail!("{names:?} did not end within {STOP_DEADLINE:?}");
            }
        }
        self.meta.stop().await;
        Ok(())
    }
}

async fn start_broker(
    meta: &Arc<MetaServer>,
    store: &Arc<dyn SegmentStore>,
    partition: PartitionConfig,
    around: &Surroundings,
) -> Result<(Arc<dyn BrokerService>, Tasks)> {
    let components = BrokerComponents {
        meta: Arc::clone(meta) as Arc<dyn MetaService>,
        store: Arc::clone(store),
        clock: around.clock.clone(),
        random: around.random.clone(),
        metrics: around.metrics.clone(),
        readiness: around.readiness.clone(),
    };
    let config = BrokerConfig { partition, ..BrokerConfig::default() };
    let server = bmq_broker::Server::build(config, components).await?;
    let (service, tasks) = (server.service(), Tasks::new(Shutdown::new()));
    tasks.spawn("broker", server.run(tasks.shutdown().clone()));
    Ok((service, tasks))
}

fn start_controller(meta: &Arc<MetaServer>, brokers: Arc<dyn BrokerConnector>, around: &Surroundings) -> Result<Tasks> {
    let components = ControllerComponents {
        meta: Arc::clone(meta) as Arc<dyn MetaService>,
        brokers,
        clock: around.clock.clone(),
        random: around.random.clone(),
        metrics: around.metrics.clone(),
        readiness: around.readiness.clone(),
    };
    let server = bmq_controller::Server::build(ControllerConfig::default(), components)?;
    let tasks = Tasks::new(Shutdown::new());
    tasks.spawn("controller", server.run(tasks.shutdown().clone()));
    Ok(tasks)
}

async fn start_proxy(
    meta: &Arc<MetaServer>,
    store: Arc<dyn SegmentStore>,
    brokers: Arc<dyn BrokerConnector>,
    around: &Surroundings,
) -> Result<(String, Tasks)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let components = ProxyComponents {
        meta: Arc::clone(meta) as Arc<dyn MetaService>,
        store,
        brokers,
        coordinators: Arc::new(NoCoordinators),
        address: address.clone(),
        kafka: Vec::new(),
        clock: around.clock.clone(),
        random: around.random.clone(),
        metrics: around.metrics.clone(),
        readiness: around.readiness.clone(),
    };
    let mut config = ProxyConfig::default();
    // Tests damage files while they are served.
    config.fetch.chunk_cache_bytes = ByteSize(0);
    let server = bmq_proxy::Server::build(config, components).await?;
    let tasks = Tasks::new(Shutdown::new());
    let serving = serve(listener, server.grpc_routes(), tasks.shutdown().clone(), Limits::default());
    tasks.spawn("grpc", async move {
        serving.await.expect("the listener goes on until it is told to end");
    });
    tasks.spawn("proxy", server.run(tasks.shutdown().clone()));
    Ok((address, tasks))
}

/// Nothing here needs groups.
struct NoCoordinators;

impl CoordinatorConnector for NoCoordinators {
    fn connect(&self, coordinator: &SessionRecord) -> Arc<dyn CoordinatorService> {
        unreachable!("no coordinator runs here, but one has a session: {coordinator:?}")
    }
}

/// The one broker of this process.
struct OneBroker(Arc<dyn BrokerService>);

impl BrokerConnector for OneBroker {
    fn connect(&self, _broker: &SessionRecord) -> Arc<dyn BrokerService> {
        Arc::clone(&self.0)
    }
}
