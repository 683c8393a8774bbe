//! The metadata service as its callers see it: the records it keeps, the commands it takes, the watch it gives.
//!
//! Invariants that every implementation keeps:
//! * a command about a partition names its epoch, and no command of an older epoch succeeds after a claim;
//! * every change of a partition's segments changes its head's `version`;
//! * watches are hints that may lag; decisions use the linearizable reads.

mod command;
mod config_change;
mod record;
mod session_keeper;

pub use command::{MAX_DROPPED_SEGMENTS, PartitionCommand, PartitionCommandKind, PartitionView, SegmentEnd};
pub use config_change::{ConfigChange, ConfigChanges, apply_config_changes};
pub use record::{
    Checkpoint, ClusterRecord, EpochStart, GarbageRecord, Intent, NodeKind, Owner, PartitionHead, SegmentRecord,
    SegmentState, SessionRecord, TopicConfig, TopicRecord, TopicState,
};

pub use session_keeper::{SessionEnd, keep_session};

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{Incarnation, NodeId, Offset, ServiceError, Term, TopicId, TopicPartition};

/// What a new topic shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopic {
    /// 1 to 249 characters of `[a-zA-Z0-9._-]`, not `.` or `..`.
    pub name: String,
    pub partitions: u32,
    pub config: TopicConfig,
}

/// The shortest time that a session may outlive its last keep-alive: what etcd's leases allow.
pub const MIN_SESSION_TTL: Duration = Duration::from_secs(2);

/// A node's wish to be counted as alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    pub kind: NodeKind,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// `host:port` at which the node's gRPC service answers; empty if it has none.
    pub address: String,
    /// Where a proxy's Kafka listeners are reached: `host:port` by the listener's name.
    pub endpoints: BTreeMap<String, String>,
    /// How long the session outlives its last keep-alive; at least [`MIN_SESSION_TTL`].
    pub time_to_live: Duration,
}

/// Names one open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

/// Which records a watch reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchScope {
    pub topics: bool,
    pub sessions: bool,
    pub intents: bool,
    pub heads: bool,
}

/// One record as it now is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaChange {
    Topic(TopicRecord),
    TopicGone(TopicId),
    Session(SessionRecord),
    SessionGone(NodeKind, NodeId),
    Intent(TopicPartition, Intent),
    IntentGone(TopicPartition),
    Head(TopicPartition, PartitionHead),
    HeadGone(TopicPartition),
}

/// A step of a watch. A watch begins with `Reset`, a change for each record there is, and `Synced`; it does so again
/// whenever it cannot go on without a gap. After `Reset` what is not named again before `Synced` no longer exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    Reset,
    Change(MetaChange),
    Synced,
}

/// A watch; it ends only with an error, after which the caller opens another.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ServiceError>>;

/// The metadata service. Each call has a deadline inside the implementation and returns within it.
#[async_trait]
pub trait MetaService: Send + Sync + 'static {
    /// The cluster's id and feature level.
    async fn cluster(&self) -> Result<ClusterRecord, ServiceError>;

    /// Creates a topic. `Ok` after the topic is durable in the metadata store; its partitions come up afterwards.
    /// `TopicExists` if the name is taken, also by a topic under deletion.
    async fn create_topic(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError>;

    /// Marks a topic for deletion; the controller does the rest. `UnknownTopic` if there is none.
    async fn delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError>;

    /// Changes a topic's settings, all of them or none; see [`apply_config_changes`]. Applied twice it is as once.
    async fn alter_topic_config(&self, name: &str, changes: ConfigChanges) -> Result<TopicRecord, ServiceError>;

    /// Makes a topic have `total` partitions, which come up afterwards; one that has so many already stays as it is.
    /// `InvalidArgument` if it has more: partitions are never taken away.
    async fn add_partitions(&self, name: &str, total: u32) -> Result<TopicRecord, ServiceError>;

    /// Removes a bounded number of records of a topic that is marked for deletion, its own record last.
    /// Returns whether nothing is left. Called again and again by the controller under its term.
    async fn purge_topic(&self, term: Term, topic: TopicId) -> Result<bool, ServiceError>;

    /// All topics, by name. Linearizable.
    async fn list_topics(&self) -> Result<Vec<TopicRecord>, ServiceError>;

    /// One topic by name. Linearizable.
    async fn topic(&self, name: &str) -> Result<Option<TopicRecord>, ServiceError>;

    /// Opens a session, replacing an older one of the same node.
    async fn open_session(&self, request: OpenSession) -> Result<SessionId, ServiceError>;

    /// Keeps a session alive. `Fenced` if it has ended or another incarnation of the node replaced it.
    async fn keep_alive(&self, session: SessionId) -> Result<(), ServiceError>;

    /// Ends a session at once.
    async fn close_session(&self, session: SessionId) -> Result<(), ServiceError>;

    /// All sessions open now. Linearizable.
    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, ServiceError>;

    /// Takes or keeps the controller's term. The term is bound to `session`: it ends with it. `Conflict` while another
    /// live controller holds it. Returns the term, the same one as long as the session holds it.
    async fn acquire_term(&self, session: SessionId) -> Result<Term, ServiceError>;

    /// Writes intents under the controller's term; `Fenced` if a newer term exists. `None` removes an intent.
    async fn set_intents(&self, term: Term, intents: Vec<(TopicPartition, Option<NodeId>)>)
    -> Result<(), ServiceError>;

    /// Applies a command to one partition's records, all or nothing, idempotent by the command's nonce.
    /// An error with [`crate::Happened::Unknown`] is resolved by sending the same command with the same nonce again.
    async fn command(&self, command: PartitionCommand) -> Result<PartitionView, ServiceError>;

    /// One partition's head alone. Linearizable; a head that was never written is the default one.
    async fn head(&self, partition: TopicPartition) -> Result<PartitionHead, ServiceError>;

    /// One partition's head, segments and checkpoint, read at one revision. Linearizable.
    async fn partition(&self, partition: TopicPartition) -> Result<PartitionView, ServiceError>;

    /// The segments that hold offsets at or above `from`, the first of them possibly starting below it; at most
    /// `limit`, with the head, at one revision. Linearizable.
    async fn segments_from(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: usize,
    ) -> Result<PartitionView, ServiceError>;

    /// The garbage records of one partition.
    async fn garbage(&self, partition: TopicPartition) -> Result<Vec<GarbageRecord>, ServiceError>;

    /// A range of producer ids never given before: `first..first + count`.
    async fn allocate_producer_ids(&self, count: u32) -> Result<u64, ServiceError>;

    /// Opens a watch.
    async fn watch(&self, scope: WatchScope) -> Result<WatchStream, ServiceError>;
}
