//! A proxy, put together and run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Metrics, Random, Readiness, ReadyFlag, SharedClock, Shutdown, Tasks};
use bmq_proto::broker::BrokerConnector;
use bmq_proto::coordinator::CoordinatorConnector;
use bmq_proto::meta::{MetaService, NodeKind, OpenSession, SessionEnd, keep_session};
use bmq_proto::rpc::MAX_MESSAGE_BYTES;
use bmq_proto::v1::admin_server::AdminServer;
use bmq_proto::v1::messaging_server::MessagingServer;
use bmq_proto::{ClusterId, Incarnation, ServiceError};
use bmq_storage::SegmentStore;
use thiserror::Error;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tracing::warn;

use crate::api::Api;
use crate::append::Appends;
use crate::append::link::Links;
use crate::config::{InvalidConfig, ProxyConfig};
use crate::directory::Directory;
use crate::fetch::Fetcher;
use crate::fetch::bounds::VerifiedBounds;
use crate::fetch::chunk_cache::ChunkCache;
use crate::fetch::follower::Tails;
use crate::fetch::segment_cursor::SegmentReads;
use crate::fetch::segment_list::SegmentLists;
use crate::groups::Groups;
use crate::grpc::{AdminApi, MessagingApi};
use crate::head_reads::HeadReads;
use crate::kafka::{self, KafkaListener, listener};
use crate::metrics::ProxyMetrics;
use crate::producer_ids::ProducerIds;

/// How long background tasks get to end after all streams have.
const BACKGROUND_GRACE: Duration = Duration::from_secs(2);

/// What a proxy needs of its process.
pub struct ProxyComponents {
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub brokers: Arc<dyn BrokerConnector>,
    pub coordinators: Arc<dyn CoordinatorConnector>,
    /// Where clients reach this proxy; told to others by its session.
    pub address: String,
    /// Where Kafka clients connect; taken into use by [`Server::run`].
    pub kafka: Vec<KafkaListener>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// The proxy could not be put together.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error("the proxy's configuration contradicts itself")]
    Config(#[from] InvalidConfig),
    #[error("the cluster's record could not be read")]
    Cluster(#[from] ServiceError),
}

/// A proxy that is ready to run.
pub struct Server {
    api: Arc<Api>,
    listeners: Vec<KafkaListener>,
    session: OpenSession,
    session_ready: ReadyFlag,
    streams: Tasks,
    background: Tasks,
}

impl Server {
    /// Puts the proxy together; asks the metadata service for the cluster's id.
    pub async fn build(config: ProxyConfig, mut components: ProxyComponents) -> Result<Self, BuildError> {
        config.validate()?;
        let cluster = components.meta.cluster().await?.cluster;
        // Streams end first, and the background only after them: both follow shutdowns of their own.
        let (streams, background) = (Tasks::new(Shutdown::new()), Tasks::new(Shutdown::new()));
        let session_ready = components.readiness.register("proxy session");
        let listeners = std::mem::take(&mut components.kafka);
        let told = |listener: &KafkaListener| (listener.name.clone(), listener.advertised.clone());
        let endpoints: BTreeMap<String, String> = listeners.iter().map(told).collect();
        let session = OpenSession {
            kind: NodeKind::Proxy,
            node: config.node(),
            incarnation: Incarnation(components.random.next_u64()),
            address: components.address.clone(),
            endpoints: endpoints.clone(),
            time_to_live: config.session_ttl.get(),
        };
        let kafka = kafka::Shared::new(&config.kafka, endpoints, &components.metrics);
        let api = Arc::new(build_api(cluster, config, kafka, components, &streams, &background));
        Ok(Self { api, listeners, session, session_ready, streams, background })
    }

    /// The services that a listener shall serve while [`Self::run`] runs.
    pub fn grpc_routes(&self) -> Routes {
        let messaging = MessagingServer::new(MessagingApi(Arc::clone(&self.api)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let admin = AdminServer::new(AdminApi(Arc::clone(&self.api)));
        Routes::new(messaging).add_service(admin)
    }

    /// Runs until the shutdown has begun and the clients' streams have ended, or the time for that is over.
    pub async fn run(self, shutdown: Shutdown) {
        let api = Arc::clone(&self.api);
        let ending = self.background.shutdown().clone();
        self.background.spawn("metadata watch", {
            let (directory, ending) = (Arc::clone(&api.directory), ending.clone());
            async move { directory.run(ending).await }
        });
        self.background.spawn("session", {
            let (meta, random) = (Arc::clone(&api.meta), api.random.clone());
            // It ends first, so that other proxies no longer name this one as a broker while it drains.
            let (ending, leaving) = (ending.clone(), self.streams.shutdown().clone());
            async move {
                let kept = keep_session(meta, self.session, random, self.session_ready, leaving);
                if kept.await == SessionEnd::Replaced {
                    ending.begin();
                }
            }
        });
        for listener in self.listeners {
            self.streams.spawn("kafka listener", listener::run(Arc::clone(&api), listener));
        }
        tokio::select! {
            () = shutdown.begun() => {}
            // A task of either set panicked: the process must not stay half alive.
            () = self.streams.shutdown().begun() => shutdown.begin(),
            () = ending.begun() => shutdown.begin(),
        }
        self.streams.shutdown().begin();
        join(&self.streams, api.config.drain_wait.get()).await;
        ending.begin();
        join(&self.background, BACKGROUND_GRACE).await;
    }
}

async fn join(tasks: &Tasks, deadline: Duration) {
    if let Err(stragglers) = tasks.join(deadline).await {
        warn!(?stragglers, "tasks did not end in time");
    }
}

fn build_api(
    cluster: ClusterId,
    config: ProxyConfig,
    kafka: kafka::Shared,
    components: ProxyComponents,
    streams: &Tasks,
    background: &Tasks,
) -> Api {
    let ProxyComponents { meta, store, brokers, coordinators, clock, random, metrics, readiness, .. } = components;
    let metrics = ProxyMetrics::register(&metrics);
    let deadline = config.metadata_timeout.get();
    let ready = readiness.register("proxy metadata watch");
    let directory =
        Directory::new(Arc::clone(&meta), brokers, coordinators, deadline, random.clone(), ready, metrics.clone());
    let directory = Arc::new(directory);
    let links = Links::new(background.clone(), config.produce.connect_timeout.get(), clock.clone(), metrics.clone());
    let appends = Appends::new(
        Arc::clone(&directory),
        links,
        config.produce.clone(),
        Arc::clone(&clock),
        random.clone(),
        metrics.clone(),
    );
    let fetcher = build_fetcher(cluster, &config, &meta, store, &directory, &random, &metrics, background);
    Api {
        cluster,
        groups: Groups::new(Arc::clone(&directory), deadline, random.clone()),
        producer_ids: ProducerIds::new(Arc::clone(&meta), deadline),
        produce_budget: Arc::new(Semaphore::new(config.produce.total_bytes.0 as usize)),
        kafka,
        config,
        meta,
        directory,
        appends: Arc::new(appends),
        fetcher: Arc::new(fetcher),
        clock,
        random,
        metrics,
        streams: streams.clone(),
    }
}

#[expect(clippy::too_many_arguments, reason = "it only hands on what was taken apart one call above")]
fn build_fetcher(
    cluster: ClusterId,
    config: &ProxyConfig,
    meta: &Arc<dyn MetaService>,
    store: Arc<dyn SegmentStore>,
    directory: &Arc<Directory>,
    random: &Random,
    metrics: &ProxyMetrics,
    background: &Tasks,
) -> Fetcher {
    let deadline = config.metadata_timeout.get();
    let fetch = &config.fetch;
    let heads = HeadReads::new(Arc::clone(meta), Arc::clone(directory), deadline, metrics.clone());
    let tails = Tails::new(Arc::clone(directory), fetch.clone(), random.clone(), background.clone(), metrics.clone());
    let chunks = Arc::new(ChunkCache::new(
        store,
        fetch.chunk_cache_bytes.0,
        fetch.read_ahead_bytes.0,
        fetch.call_timeout.get(),
        metrics.clone(),
    ));
    let segments = SegmentReads { cluster, chunks };
    Fetcher {
        config: fetch.clone(),
        directory: Arc::clone(directory),
        tails: Arc::new(tails),
        bounds: VerifiedBounds::new(Arc::clone(directory), heads, fetch.clone(), random.clone()),
        lists: SegmentLists::new(Arc::clone(meta), Arc::clone(directory), deadline),
        segments: Arc::new(segments),
        metrics: metrics.clone(),
    }
}
