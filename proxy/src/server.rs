//! A proxy, put together and run.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Metrics, Random, Readiness, ReadyFlag, SharedClock, Shutdown, Tasks};
use bmq_proto::broker::BrokerConnector;
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

use crate::append::Appends;
use crate::append::link::Links;
use crate::config::{InvalidConfig, ProxyConfig};
use crate::directory::Directory;
use crate::fetch::Fetcher;
use crate::fetch::bounds::VerifiedBounds;
use crate::fetch::follower::Tails;
use crate::fetch::segment_cursor::SegmentReads;
use crate::fetch::segment_list::SegmentLists;
use crate::grpc::{AdminApi, Api, MessagingApi};
use crate::head_reads::HeadReads;
use crate::metrics::ProxyMetrics;
use crate::producer_ids::ProducerIds;

/// How long background tasks get to end after all streams have.
const BACKGROUND_GRACE: Duration = Duration::from_secs(2);

/// What a proxy needs of its process.
pub struct ProxyComponents {
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub brokers: Arc<dyn BrokerConnector>,
    /// Where clients reach this proxy; told to others by its session.
    pub address: String,
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
    session: OpenSession,
    session_ready: ReadyFlag,
    streams: Tasks,
    background: Tasks,
}

impl Server {
    /// Puts the proxy together; asks the metadata service for the cluster's id.
    pub async fn build(config: ProxyConfig, components: ProxyComponents) -> Result<Self, BuildError> {
        config.validate()?;
        let cluster = components.meta.cluster().await?.cluster;
        // Streams end first, and the background only after them: both follow shutdowns of their own.
        let (streams, background) = (Tasks::new(Shutdown::new()), Tasks::new(Shutdown::new()));
        let session_ready = components.readiness.register("proxy session");
        let session = OpenSession {
            kind: NodeKind::Proxy,
            node: config.node(),
            incarnation: Incarnation(components.random.next_u64()),
            address: components.address.clone(),
            time_to_live: config.session_ttl.get(),
        };
        let api = Arc::new(build_api(cluster, config, components, &streams, &background));
        Ok(Self { api, session, session_ready, streams, background })
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
            let ending = ending.clone();
            async move {
                let kept = keep_session(meta, self.session, random, self.session_ready, ending.clone());
                if kept.await == SessionEnd::Replaced {
                    ending.begin();
                }
            }
        });
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
    components: ProxyComponents,
    streams: &Tasks,
    background: &Tasks,
) -> Api {
    let ProxyComponents { meta, store, brokers, clock, random, metrics, readiness, .. } = components;
    let metrics = ProxyMetrics::register(&metrics);
    let deadline = config.metadata_timeout.get();
    let ready = readiness.register("proxy metadata watch");
    let directory = Directory::new(Arc::clone(&meta), brokers, deadline, random.clone(), ready, metrics.clone());
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
        producer_ids: ProducerIds::new(Arc::clone(&meta), deadline),
        produce_budget: Arc::new(Semaphore::new(config.produce.total_bytes.0 as usize)),
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
    let segments = SegmentReads::new(
        store,
        cluster,
        fetch.segment_read_bytes.0 as usize,
        fetch.read_ahead_bytes.0 as usize,
        fetch.call_timeout.get(),
    );
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
