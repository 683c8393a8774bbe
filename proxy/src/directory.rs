//! What the proxy knows of topics, partitions and brokers, from one watch of the metadata.
//!
//! A watch is a hint that may lag: nothing here decides whether data is right. Epochs known only grow, whether they
//! were learnt from the watch or from a linearizable read ([`Directory::observe_head`]).

mod state;
mod watcher;

pub use state::{Route, RouteCoordinator, RouteOwner};

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_common::{Random, ReadyFlag};
use bmq_proto::broker::BrokerConnector;
use bmq_proto::coordinator::CoordinatorConnector;
use bmq_proto::meta::{MetaService, PartitionHead, SessionRecord, TopicRecord, TopicState};
use bmq_proto::{Epoch, ErrorCode, Offset, PartitionId, ServiceError, TopicId, TopicPartition};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::metrics::ProxyMetrics;
use state::State;

/// The longest topic name.
const MAX_NAME_LEN: usize = 249;

/// See the head of the file.
pub struct Directory {
    meta: Arc<dyn MetaService>,
    deadline: Duration,
    random: Random,
    ready: ReadyFlag,
    metrics: ProxyMetrics,
    state: RwLock<State>,
}

impl Directory {
    pub fn new(
        meta: Arc<dyn MetaService>,
        brokers: Arc<dyn BrokerConnector>,
        coordinators: Arc<dyn CoordinatorConnector>,
        deadline: Duration,
        random: Random,
        ready: ReadyFlag,
        metrics: ProxyMetrics,
    ) -> Self {
        Self { meta, deadline, random, ready, metrics, state: RwLock::new(State::new(brokers, coordinators)) }
    }

    /// The topic of that name. One that the watch has not told of yet is looked up.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicRecord>, ServiceError> {
        check_topic_name(name)?;
        if let Some(topic) = self.state.read().topic(name) {
            return Ok(topic);
        }
        let looked_up = with_deadline("the metadata service", self.deadline, self.meta.topic(name)).await;
        let found = looked_up.map_err(|late| ServiceError::not_applied(ErrorCode::Unavailable, late.to_string()))??;
        match found {
            Some(topic) if topic.state == TopicState::Active => Ok(self.state.write().observe_topic(topic)),
            Some(_) => Err(unknown_topic(format!("topic `{name}` is being deleted"))),
            None => Err(unknown_topic(format!("there is no topic `{name}`"))),
        }
    }

    /// The topic of that name, if it is known and in use; nobody is asked.
    pub fn known_topic(&self, name: &str) -> Option<Arc<TopicRecord>> {
        self.state.read().topic(name)
    }

    /// The topic of that id, if it is known and in use.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicRecord>> {
        self.state.read().topic_by_id(id)
    }

    /// All topics known and in use, in no order.
    pub fn topics(&self) -> Vec<Arc<TopicRecord>> {
        self.state.read().topics()
    }

    /// The proxies that have sessions, by node.
    pub fn proxies(&self) -> Vec<Arc<SessionRecord>> {
        self.state.read().proxies()
    }

    /// Whether the topic is known and in use.
    pub fn has_topic(&self, topic: TopicId) -> bool {
        self.state.read().has_topic(topic)
    }

    /// One partition of the topic of that name.
    pub async fn partition(&self, name: &str, number: u32) -> Result<TopicPartition, ServiceError> {
        let topic = self.topic(name).await?;
        if number >= topic.partitions {
            let count = topic.partitions;
            let text = format!("topic `{name}` has the partitions 0 to {}, not {number}", count.saturating_sub(1));
            return Err(ServiceError::not_applied(ErrorCode::UnknownPartition, text));
        }
        Ok(TopicPartition { topic: topic.id, partition: PartitionId(number) })
    }

    /// Takes in a topic that this proxy has just created.
    pub fn observe_topic(&self, topic: TopicRecord) {
        self.state.write().observe_topic(topic);
    }

    /// Takes in a head that was read linearizably.
    pub fn observe_head(&self, partition: TopicPartition, head: &PartitionHead) {
        self.state.write().put_head(partition, head);
    }

    /// Where the partition is served now, and a way to wait until that changes.
    pub fn route(&self, partition: TopicPartition) -> watch::Receiver<Route> {
        let known = self.state.read().subscribed(partition);
        known.unwrap_or_else(|| self.state.write().subscribe(partition))
    }

    /// The first offset of the partition, as far as is known here.
    pub fn log_start(&self, partition: TopicPartition) -> Offset {
        self.state.read().log_start(partition)
    }

    /// The newest epoch known; answers of an older one are not used.
    pub fn epoch(&self, partition: TopicPartition) -> Epoch {
        self.state.read().epoch(partition)
    }
}

/// Checks a topic's name before anybody is asked about it.
pub fn check_topic_name(name: &str) -> Result<(), ServiceError> {
    let refuse = |reason: String| Err(ServiceError::not_applied(ErrorCode::InvalidArgument, reason));
    if name.is_empty() || name == "." || name == ".." {
        return refuse(format!("`{name}` is not a topic name"));
    }
    if name.len() > MAX_NAME_LEN {
        return refuse(format!("the topic name has {} bytes, at most {MAX_NAME_LEN} are allowed", name.len()));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|c| !is_plain(*c)) {
        Some(odd) => {
            refuse(format!("topic name `{name}` holds {odd:?}, allowed are letters, digits, `.`, `_` and `-`"))
        }
        None => Ok(()),
    }
}

pub(crate) fn unknown_topic(message: String) -> ServiceError {
    ServiceError::not_applied(ErrorCode::UnknownTopic, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expect: Option<&str>| {
            let found = check_topic_name(name).err().map(|error| error.message);
            assert_eq!(found.as_deref(), expect);
        };
        check("orders.v1_eu-west", None);
        check(&"x".repeat(249), None);
        check("", Some("`` is not a topic name"));
        check("..", Some("`..` is not a topic name"));
        check(&"x".repeat(300), Some("the topic name has 300 bytes, at most 249 are allowed"));
        check("a/b", Some("topic name `a/b` holds '/', allowed are letters, digits, `.`, `_` and `-`"));
    }
}
