//! The metadata service over a `MetaStore`: reads records, runs a pure transition, writes in one transaction.
//!
//! Invariants:
//! * each transaction compares everything that its transition read, so it applies to just those records or not at all;
//! * an answer is `Ok` or `NotApplied` only if that is certain, also after a transaction whose outcome is unclear;
//! * nothing is decided from the watch's cache: that only tells watchers what to look at.

mod attempts;
mod partitions;
mod sessions;
#[cfg(test)]
mod tests;
mod topics;
mod watch_cache;
mod watch_feed;

use std::time::Duration;

use async_trait::async_trait;
use bmq_common::{Metrics, Random, Shutdown, Tasks};
use bmq_proto::meta::{
    ClusterRecord, ConfigChanges, CreateTopic, GarbageRecord, MetaService, OpenSession, PartitionCommand,
    PartitionHead, PartitionView, SessionId, SessionRecord, TopicRecord, WatchScope, WatchStream,
};
use bmq_proto::rpc::record::{StoredRecord, decode_record, encode_record};
use bmq_proto::{ClusterId, ErrorCode, NodeId, Offset, ServiceError, Term, TopicId, TopicPartition};

use crate::keys;
use crate::metrics::MetaMetrics;
use crate::store::{Expected, SharedStore, Transaction, Versioned};
use attempts::{Attempts, Commit};
use watch_cache::WatchCache;

/// The newest persisted shape that this version knows.
pub const FEATURE_LEVEL: u32 = 1;

/// How long the service's own tasks get to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// What the service may take.
#[derive(Debug, Clone)]
pub struct MetaServerConfig {
    /// Each call answers within this time.
    pub call_timeout: Duration,
}

impl Default for MetaServerConfig {
    fn default() -> Self {
        Self { call_timeout: Duration::from_secs(5) }
    }
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the cluster record cannot be read or written")]
    Store(#[source] ServiceError),
    #[error(
        "the cluster is at feature level {found}, this version knows levels up to {FEATURE_LEVEL}: use a newer one"
    )]
    FeatureLevel { found: u32 },
}

/// The metadata service. Dropping it ends its watches.
pub struct MetaServer {
    store: SharedStore,
    config: MetaServerConfig,
    random: Random,
    watches: WatchCache,
    tasks: Tasks,
    metrics: MetaMetrics,
}

impl MetaServer {
    /// Writes the cluster record if there is none, and checks its feature level. Must be called within a Tokio runtime.
    pub async fn start(store: SharedStore, config: MetaServerConfig, random: Random) -> Result<Self, StartError> {
        let metrics = MetaMetrics::default();
        let attempts = Attempts::new(&*store, &random, &metrics, "start", config.call_timeout);
        let cluster = ensure_cluster(attempts, &random).await.map_err(StartError::Store)?;
        if cluster.feature_level > FEATURE_LEVEL {
            return Err(StartError::FeatureLevel { found: cluster.feature_level });
        }
        tracing::info!(cluster = %cluster.cluster, feature_level = cluster.feature_level, "metadata service started");
        let tasks = Tasks::new(Shutdown::new());
        let watches = WatchCache::start(&store, &random, &tasks, &metrics);
        Ok(Self { store, config, random, watches, tasks, metrics })
    }

    /// Shows operators what the service counts. To be called once for a process.
    pub fn with_metrics(self, metrics: &Metrics) -> Self {
        self.metrics.register(metrics);
        self
    }

    /// Ends the watches and lets go of the store. Calls under way go on.
    pub async fn stop(&self) {
        self.tasks.shutdown().begin();
        if let Err(stragglers) = self.tasks.join(STOP_DEADLINE).await {
            tracing::warn!(?stragglers, "tasks of the metadata service had to be cut off");
        }
    }

    fn attempts(&self, call: &'static str) -> Attempts<'_> {
        Attempts::new(&*self.store, &self.random, &self.metrics, call, self.config.call_timeout)
    }
}

/// The cluster record, written if there is none.
async fn ensure_cluster(mut attempts: Attempts<'_>, random: &Random) -> Result<ClusterRecord, ServiceError> {
    loop {
        let found = attempts.get(keys::CLUSTER).await?;
        if let Some(found) = found {
            return decode(keys::CLUSTER, &found.value);
        }
        let mut id = [0; 16];
        random.fill(&mut id);
        let record = ClusterRecord { cluster: ClusterId(id), feature_level: FEATURE_LEVEL };
        let transaction =
            Transaction::default().expect(keys::CLUSTER, Expected::Absent).put(keys::CLUSTER, encode_record(&record));
        // Whoever wrote it, the next read tells what stands.
        let _: Commit = attempts.commit(transaction).await?;
    }
}

/// Reads a stored value as its record.
fn decode<R: StoredRecord>(key: &str, value: &[u8]) -> Result<R, ServiceError> {
    decode_record(value).map_err(|error| {
        tracing::error!(key, %error, "a stored record cannot be read");
        ServiceError::not_applied(ErrorCode::Storage, format!("the record at `{key}` cannot be read: {error}"))
    })
}

fn decode_optional<R: StoredRecord>(key: &str, value: Option<&Versioned>) -> Result<Option<R>, ServiceError> {
    value.map(|value| decode(key, &value.value)).transpose()
}

#[async_trait]
impl MetaService for MetaServer {
    async fn cluster(&self) -> Result<ClusterRecord, ServiceError> {
        let found = self.attempts("cluster").get(keys::CLUSTER).await?;
        let missing = || ServiceError::not_applied(ErrorCode::Storage, "the cluster record is gone");
        decode_optional(keys::CLUSTER, found.as_ref())?.ok_or_else(missing)
    }

    async fn create_topic(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError> {
        self.do_create_topic(request).await
    }

    async fn delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        self.do_delete_topic(name).await
    }

    async fn alter_topic_config(&self, name: &str, changes: ConfigChanges) -> Result<TopicRecord, ServiceError> {
        self.do_alter_topic_config(name, &changes).await
    }

    async fn add_partitions(&self, name: &str, total: u32) -> Result<TopicRecord, ServiceError> {
        self.do_add_partitions(name, total).await
    }

    async fn purge_topic(&self, term: Term, topic: TopicId) -> Result<bool, ServiceError> {
        self.do_purge_topic(term, topic).await
    }

    async fn list_topics(&self) -> Result<Vec<TopicRecord>, ServiceError> {
        self.attempts("list topics").list_records(keys::TOPICS).await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicRecord>, ServiceError> {
        self.do_topic(name).await
    }

    async fn open_session(&self, request: OpenSession) -> Result<SessionId, ServiceError> {
        self.do_open_session(request).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), ServiceError> {
        self.do_keep_alive(session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), ServiceError> {
        self.do_close_session(session).await
    }

    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, ServiceError> {
        self.do_list_sessions().await
    }

    async fn acquire_term(&self, session: SessionId) -> Result<Term, ServiceError> {
        self.do_acquire_term(session).await
    }

    async fn set_intents(
        &self,
        term: Term,
        intents: Vec<(TopicPartition, Option<NodeId>)>,
    ) -> Result<(), ServiceError> {
        self.do_set_intents(term, intents).await
    }

    async fn command(&self, command: PartitionCommand) -> Result<PartitionView, ServiceError> {
        let kind = command.kind.name();
        let answer = self.do_command(command).await;
        self.metrics.command_answered(kind, &answer);
        answer
    }

    async fn head(&self, partition: TopicPartition) -> Result<PartitionHead, ServiceError> {
        let key = keys::head(partition);
        let found = self.attempts("head").get(&key).await?;
        Ok(decode_optional(&key, found.as_ref())?.unwrap_or_default())
    }

    async fn partition(&self, partition: TopicPartition) -> Result<PartitionView, ServiceError> {
        self.do_partition(partition).await
    }

    async fn segments_from(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: usize,
    ) -> Result<PartitionView, ServiceError> {
        self.do_segments_from(partition, from, limit).await
    }

    async fn garbage(&self, partition: TopicPartition) -> Result<Vec<GarbageRecord>, ServiceError> {
        self.attempts("garbage").list_records(&keys::all_garbage(partition)).await
    }

    async fn allocate_producer_ids(&self, count: u32) -> Result<u64, ServiceError> {
        self.do_allocate_producer_ids(count).await
    }

    async fn watch(&self, scope: WatchScope) -> Result<WatchStream, ServiceError> {
        self.watches.watch(scope, self.config.call_timeout).await
    }
}
