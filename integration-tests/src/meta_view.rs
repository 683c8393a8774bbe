//! What metadata says at this moment, read straight from etcd with the project's own records.

use std::time::Duration;

use anyhow::{Context, Result};
use bmq_meta::keys;
use bmq_meta::store::etcd::EtcdOptions;
use bmq_meta::store::{EtcdStore, ListRequest, MetaStore};
use bmq_proto::meta::{ClusterRecord, NodeKind, PartitionHead, SegmentRecord, SegmentState, SessionId, TopicRecord};
use bmq_proto::rpc::record::{StoredRecord, StoredSession, decode_record};
use bmq_proto::{ClusterId, FileId, NodeId, TopicId, TopicPartition};
use bmq_storage::FolderPath;

/// Stands before every key unless told otherwise.
pub const PREFIX: &str = "/bmq/";

const TIMEOUT: Duration = Duration::from_secs(5);

/// A way to look.
pub struct MetaView {
    store: EtcdStore,
}

impl MetaView {
    pub async fn connect(etcd: &str) -> Result<Self> {
        let options = EtcdOptions {
            endpoints: vec![etcd.to_owned()],
            prefix: PREFIX.to_owned(),
            connect_timeout: TIMEOUT,
            request_timeout: TIMEOUT,
        };
        Ok(Self { store: EtcdStore::connect(options).await? })
    }

    pub async fn cluster(&self) -> Result<ClusterId> {
        let record: ClusterRecord = self.get(keys::CLUSTER).await?.context("there is no cluster record")?;
        Ok(record.cluster)
    }

    /// `None` if there is no topic of this name.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicRecord>> {
        self.get(&keys::topic(name)).await
    }

    /// Empty before the first claim.
    pub async fn head(&self, partition: TopicPartition) -> Result<PartitionHead> {
        Ok(self.get(&keys::head(partition)).await?.unwrap_or_default())
    }

    /// The session that a broker has now.
    pub async fn broker_session(&self, broker: NodeId) -> Result<Option<SessionId>> {
        let found: Option<StoredSession> = self.get(&keys::session(NodeKind::Broker, broker)).await?;
        Ok(found.map(|found| found.id))
    }

    pub async fn segments(&self, partition: TopicPartition) -> Result<Vec<SegmentRecord>> {
        let values = self.list(&keys::segments(partition)).await?;
        values.iter().map(|(key, value)| decode_record(value).with_context(|| format!("reading {key}"))).collect()
    }

    /// Whether every segment's file is closed.
    pub async fn all_closed(&self, topic: &TopicRecord) -> Result<bool> {
        for partition in topic.partition_ids() {
            let segments = self.segments(partition).await?;
            if segments.iter().any(|segment| !matches!(segment.state, SegmentState::Closed { .. })) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keys of the records that name a topic by its id, in the key or in the value.
    pub async fn keys_of(&self, topic: TopicId) -> Result<Vec<String>> {
        let id = topic.to_string();
        let everything = ListRequest { start: String::new(), end: "\u{7f}".to_owned(), ..ListRequest::prefix("-") };
        let all = self.list_all(everything).await?;
        let names = |(key, value): &(String, bytes::Bytes)| {
            key.contains(&id) || value.windows(topic.0.len()).any(|window| window == topic.0)
        };
        Ok(all.into_iter().filter(names).map(|(key, _)| key).collect())
    }

    /// The path of a data file below the store's root.
    pub fn data_path(cluster: ClusterId, partition: TopicPartition, file: FileId) -> String {
        FolderPath::new(cluster, partition).segment(file).data_path()
    }

    async fn get<R: StoredRecord>(&self, key: &str) -> Result<Option<R>> {
        let found = self.store.get(key).await?;
        found.map(|found| decode_record(&found.value).with_context(|| format!("reading {key}"))).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, bytes::Bytes)>> {
        self.list_all(ListRequest::prefix(prefix)).await
    }

    async fn list_all(&self, mut request: ListRequest) -> Result<Vec<(String, bytes::Bytes)>> {
        let mut found = Vec::new();
        loop {
            let page = self.store.list(request.clone()).await?;
            let more = page.more;
            request = request.after(&page);
            found.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value)));
            if !more {
                return Ok(found);
            }
        }
    }
}
