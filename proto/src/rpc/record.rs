//! The records of the metadata service as protobuf messages, and as the bytes that metadata stores keep.
//!
//! The messages are in `proto/bmq/internal/v1/records.proto`; `docs/formats/meta.md` describes what they mean.

use bytes::Bytes;
use prost::Message;

use super::decode::{
    DecodeError, SCHEMA, all, epoch, invalid, offset, optional, position, required, schema, topic_id, wrong_id_length,
};
use crate::internal as pb;
use crate::meta::{
    Checkpoint, ClusterRecord, EpochStart, GarbageRecord, Intent, NodeKind, Owner, PartitionHead, SegmentEnd,
    SegmentRecord, SegmentState, SessionId, SessionRecord, TopicRecord, TopicState,
};
use crate::{ClusterId, FileId, Incarnation, NodeId, PartitionId, Term, TopicPartition};

/// A record that metadata stores keep, and the message that is its stored form.
pub trait StoredRecord: TryFrom<Self::Message, Error = DecodeError> + Sized {
    /// The record's message.
    type Message: Message + Default + for<'a> From<&'a Self>;
    /// The message's name, for errors.
    const NAME: &'static str;
}

/// The bytes under which a metadata store keeps `record`.
pub fn encode_record<R: StoredRecord>(record: &R) -> Vec<u8> {
    R::Message::from(record).encode_to_vec()
}

/// Reads what [`encode_record`] wrote. Refuses what it does not understand completely.
pub fn decode_record<R: StoredRecord>(bytes: &[u8]) -> Result<R, DecodeError> {
    let malformed = |source| DecodeError::Malformed { message: R::NAME, source };
    R::try_from(R::Message::decode(bytes).map_err(malformed)?)
}

/// A session as a metadata store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// What others see.
    pub session: SessionRecord,
    /// The lease or slot that keeps it alive, in the store's own numbers.
    pub id: SessionId,
}

/// The newest term. Kept without a lease, so that terms only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermRecord {
    /// The term.
    pub term: Term,
    /// The session that took it.
    pub session: SessionId,
}

/// The next number of a sequence that is given out in ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CounterRecord {
    /// Every number below was given out.
    pub next: u64,
}

macro_rules! stored {
    ($($record:ty => $message:ty, $name:literal;)*) => {
        $(impl StoredRecord for $record {
            type Message = $message;
            const NAME: &'static str = $name;
        })*
    };
}

stored! {
    ClusterRecord => pb::ClusterRecord, "cluster record";
    TopicRecord => pb::TopicRecord, "topic record";
    StoredSession => pb::SessionRecord, "session record";
    Intent => pb::IntentRecord, "intent record";
    TermRecord => pb::TermRecord, "term record";
    CounterRecord => pb::CounterRecord, "counter record";
    PartitionHead => pb::PartitionHead, "partition head";
    SegmentRecord => pb::SegmentRecord, "segment record";
    Checkpoint => pb::CheckpointRecord, "checkpoint record";
    GarbageRecord => pb::GarbageRecord, "garbage record";
}

impl From<&ClusterRecord> for pb::ClusterRecord {
    fn from(record: &ClusterRecord) -> Self {
        Self {
            schema: SCHEMA,
            cluster_id: Bytes::copy_from_slice(&record.cluster.0),
            feature_level: record.feature_level,
        }
    }
}

impl TryFrom<pb::ClusterRecord> for ClusterRecord {
    type Error = DecodeError;
    fn try_from(message: pb::ClusterRecord) -> Result<Self, DecodeError> {
        schema("cluster.schema", message.schema)?;
        let id = &message.cluster_id;
        let cluster = ClusterId::from_slice(id).map_err(|_| wrong_id_length("cluster.cluster_id", id))?;
        Ok(Self { cluster, feature_level: message.feature_level })
    }
}

impl From<TopicState> for pb::TopicState {
    fn from(state: TopicState) -> Self {
        match state {
            TopicState::Active => pb::TopicState::Active,
            TopicState::Deleting => pb::TopicState::Deleting,
        }
    }
}

impl From<&TopicRecord> for pb::TopicRecord {
    fn from(record: &TopicRecord) -> Self {
        Self {
            schema: SCHEMA,
            topic_id: Bytes::copy_from_slice(&record.id.0),
            name: record.name.clone(),
            partitions: record.partitions,
            config: record.config.clone(),
            state: pb::TopicState::from(record.state).into(),
        }
    }
}

impl TryFrom<pb::TopicRecord> for TopicRecord {
    type Error = DecodeError;
    fn try_from(message: pb::TopicRecord) -> Result<Self, DecodeError> {
        schema("topic.schema", message.schema)?;
        let state = match message.state() {
            pb::TopicState::Active => TopicState::Active,
            pb::TopicState::Deleting => TopicState::Deleting,
            pb::TopicState::Unspecified => return Err(invalid("topic.state", message.state, "1 or 2")),
        };
        let id = topic_id("topic.topic_id", &message.topic_id)?;
        Ok(Self { id, name: message.name, partitions: message.partitions, config: message.config, state })
    }
}

impl From<NodeKind> for pb::NodeKind {
    fn from(kind: NodeKind) -> Self {
        match kind {
            NodeKind::Broker => pb::NodeKind::Broker,
            NodeKind::Proxy => pb::NodeKind::Proxy,
            NodeKind::Controller => pb::NodeKind::Controller,
            NodeKind::Coordinator => pb::NodeKind::Coordinator,
        }
    }
}

/// Reads the number of a [`NodeKind`].
pub(super) fn node_kind(field: &'static str, number: i32) -> Result<NodeKind, DecodeError> {
    match pb::NodeKind::try_from(number) {
        Ok(pb::NodeKind::Broker) => Ok(NodeKind::Broker),
        Ok(pb::NodeKind::Proxy) => Ok(NodeKind::Proxy),
        Ok(pb::NodeKind::Controller) => Ok(NodeKind::Controller),
        Ok(pb::NodeKind::Coordinator) => Ok(NodeKind::Coordinator),
        Ok(pb::NodeKind::Unspecified) | Err(_) => Err(invalid(field, number, "1, 2 or 3")),
    }
}

/// A session as it travels: its lease means nothing to others, so that stays 0.
impl From<&SessionRecord> for pb::SessionRecord {
    fn from(record: &SessionRecord) -> Self {
        Self {
            schema: SCHEMA,
            kind: pb::NodeKind::from(record.kind).into(),
            node_id: record.node.0,
            incarnation: record.incarnation.0,
            address: record.address.clone(),
            session_id: 0,
            endpoints: record.endpoints.clone(),
        }
    }
}

impl TryFrom<pb::SessionRecord> for SessionRecord {
    type Error = DecodeError;
    fn try_from(message: pb::SessionRecord) -> Result<Self, DecodeError> {
        schema("session.schema", message.schema)?;
        Ok(Self {
            kind: node_kind("session.kind", message.kind)?,
            node: NodeId(message.node_id),
            incarnation: Incarnation(message.incarnation),
            address: message.address,
            endpoints: message.endpoints,
        })
    }
}

impl From<&StoredSession> for pb::SessionRecord {
    fn from(stored: &StoredSession) -> Self {
        Self { session_id: stored.id.0, ..Self::from(&stored.session) }
    }
}

impl TryFrom<pb::SessionRecord> for StoredSession {
    type Error = DecodeError;
    fn try_from(message: pb::SessionRecord) -> Result<Self, DecodeError> {
        let id = SessionId(message.session_id);
        Ok(Self { session: message.try_into()?, id })
    }
}

impl From<&Intent> for pb::IntentRecord {
    fn from(intent: &Intent) -> Self {
        Self { schema: SCHEMA, node_id: intent.node.0, term: intent.term.0 }
    }
}

impl TryFrom<pb::IntentRecord> for Intent {
    type Error = DecodeError;
    fn try_from(message: pb::IntentRecord) -> Result<Self, DecodeError> {
        schema("intent.schema", message.schema)?;
        Ok(Self { node: NodeId(message.node_id), term: Term(message.term) })
    }
}

impl From<&TermRecord> for pb::TermRecord {
    fn from(record: &TermRecord) -> Self {
        Self { schema: SCHEMA, term: record.term.0, session_id: record.session.0 }
    }
}

impl TryFrom<pb::TermRecord> for TermRecord {
    type Error = DecodeError;
    fn try_from(message: pb::TermRecord) -> Result<Self, DecodeError> {
        schema("term.schema", message.schema)?;
        Ok(Self { term: Term(message.term), session: SessionId(message.session_id) })
    }
}

impl From<&CounterRecord> for pb::CounterRecord {
    fn from(record: &CounterRecord) -> Self {
        Self { schema: SCHEMA, next: record.next }
    }
}

impl TryFrom<pb::CounterRecord> for CounterRecord {
    type Error = DecodeError;
    fn try_from(message: pb::CounterRecord) -> Result<Self, DecodeError> {
        schema("counter.schema", message.schema)?;
        Ok(Self { next: message.next })
    }
}

impl From<TopicPartition> for pb::TopicPartition {
    fn from(name: TopicPartition) -> Self {
        Self { topic_id: Bytes::copy_from_slice(&name.topic.0), partition: name.partition.0 }
    }
}

impl TryFrom<pb::TopicPartition> for TopicPartition {
    type Error = DecodeError;
    fn try_from(message: pb::TopicPartition) -> Result<Self, DecodeError> {
        let topic = topic_id("topic_partition.topic_id", &message.topic_id)?;
        Ok(Self { topic, partition: PartitionId(message.partition) })
    }
}

impl From<FileId> for pb::FileId {
    fn from(file: FileId) -> Self {
        Self { epoch: file.epoch.0, nonce: file.nonce }
    }
}

impl TryFrom<pb::FileId> for FileId {
    type Error = DecodeError;
    fn try_from(message: pb::FileId) -> Result<Self, DecodeError> {
        Ok(Self { epoch: epoch("file.epoch", message.epoch)?, nonce: message.nonce })
    }
}

impl From<SegmentEnd> for pb::SegmentEnd {
    fn from(end: SegmentEnd) -> Self {
        Self { offset: end.offset.0, position: end.position.0 }
    }
}

impl TryFrom<pb::SegmentEnd> for SegmentEnd {
    type Error = DecodeError;
    fn try_from(message: pb::SegmentEnd) -> Result<Self, DecodeError> {
        Ok(Self {
            offset: offset("segment_end.offset", message.offset)?,
            position: position("segment_end.position", message.position)?,
        })
    }
}

impl From<Owner> for pb::Owner {
    fn from(owner: Owner) -> Self {
        Self { node_id: owner.node.0, incarnation: owner.incarnation.0 }
    }
}

impl From<pb::Owner> for Owner {
    fn from(message: pb::Owner) -> Self {
        Self { node: NodeId(message.node_id), incarnation: Incarnation(message.incarnation) }
    }
}

impl TryFrom<pb::EpochStart> for EpochStart {
    type Error = DecodeError;
    fn try_from(message: pb::EpochStart) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: epoch("epoch_chain.epoch", message.epoch)?,
            start: offset("epoch_chain.start", message.start)?,
        })
    }
}

impl From<&PartitionHead> for pb::PartitionHead {
    fn from(head: &PartitionHead) -> Self {
        let chain = head.epoch_chain.iter();
        Self {
            schema: SCHEMA,
            version: head.version,
            last_nonce: head.last_nonce,
            epoch: head.epoch.0,
            owner: head.owner.map(Into::into),
            recovered: head.recovered,
            epoch_chain: chain.map(|entry| pb::EpochStart { epoch: entry.epoch.0, start: entry.start.0 }).collect(),
            log_start: head.log_start.0,
            sealed_end: head.sealed_end.0,
            open: head.open.map(Into::into),
        }
    }
}

impl TryFrom<pb::PartitionHead> for PartitionHead {
    type Error = DecodeError;
    fn try_from(message: pb::PartitionHead) -> Result<Self, DecodeError> {
        schema("partition_head.schema", message.schema)?;
        Ok(Self {
            version: message.version,
            last_nonce: message.last_nonce,
            epoch: epoch("partition_head.epoch", message.epoch)?,
            owner: message.owner.map(Into::into),
            recovered: message.recovered,
            epoch_chain: all(message.epoch_chain)?,
            log_start: offset("partition_head.log_start", message.log_start)?,
            sealed_end: offset("partition_head.sealed_end", message.sealed_end)?,
            open: optional(message.open)?,
        })
    }
}

impl From<&SegmentRecord> for pb::SegmentRecord {
    fn from(record: &SegmentRecord) -> Self {
        let state = match record.state {
            SegmentState::Open => pb::SegmentState::Open,
            SegmentState::Sealed { .. } => pb::SegmentState::Sealed,
            SegmentState::Closed { .. } => pb::SegmentState::Closed,
        };
        Self {
            schema: SCHEMA,
            file: Some(record.file.into()),
            epoch: record.epoch.0,
            base_offset: record.base_offset.0,
            start_position: record.start_position.0,
            state: state.into(),
            end: record.end().map(Into::into),
            floor: record.floor.map(|floor| floor.0),
            created_at_ms: record.created_at_ms,
            sealed_at_ms: record.sealed_at_ms,
            max_timestamp_ms: record.max_timestamp_ms,
            compacted: record.compacted,
        }
    }
}

impl TryFrom<pb::SegmentRecord> for SegmentRecord {
    type Error = DecodeError;
    fn try_from(message: pb::SegmentRecord) -> Result<Self, DecodeError> {
        schema("segment.schema", message.schema)?;
        let number = message.state;
        let end = optional(message.end)?;
        let state = match (pb::SegmentState::try_from(number), end) {
            (Ok(pb::SegmentState::Open), None) => SegmentState::Open,
            (Ok(pb::SegmentState::Open), Some(_)) => {
                return Err(invalid("segment.state", number, "2 or 3, as there is an end"));
            }
            (Ok(pb::SegmentState::Sealed), _) => SegmentState::Sealed { end: required("segment.end", end)? },
            (Ok(pb::SegmentState::Closed), _) => SegmentState::Closed { end: required("segment.end", end)? },
            (Ok(pb::SegmentState::Unspecified) | Err(_), _) => {
                return Err(invalid("segment.state", number, "1, 2 or 3"));
            }
        };
        Ok(Self {
            file: required("segment.file", message.file)?.try_into()?,
            epoch: epoch("segment.epoch", message.epoch)?,
            base_offset: offset("segment.base_offset", message.base_offset)?,
            start_position: position("segment.start_position", message.start_position)?,
            state,
            floor: message.floor.map(|floor| position("segment.floor", floor)).transpose()?,
            created_at_ms: message.created_at_ms,
            sealed_at_ms: message.sealed_at_ms,
            max_timestamp_ms: message.max_timestamp_ms,
            compacted: message.compacted,
        })
    }
}

impl From<&Checkpoint> for pb::CheckpointRecord {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self {
            schema: SCHEMA,
            epoch: checkpoint.epoch.0,
            file: Some(checkpoint.file.into()),
            position: checkpoint.position.0,
            offset: checkpoint.offset.0,
        }
    }
}

impl TryFrom<pb::CheckpointRecord> for Checkpoint {
    type Error = DecodeError;
    fn try_from(message: pb::CheckpointRecord) -> Result<Self, DecodeError> {
        schema("checkpoint.schema", message.schema)?;
        Ok(Self {
            epoch: epoch("checkpoint.epoch", message.epoch)?,
            file: required("checkpoint.file", message.file)?.try_into()?,
            position: position("checkpoint.position", message.position)?,
            offset: offset("checkpoint.offset", message.offset)?,
        })
    }
}

impl From<&GarbageRecord> for pb::GarbageRecord {
    fn from(record: &GarbageRecord) -> Self {
        Self { schema: SCHEMA, file: Some(record.file.into()), dropped_at_ms: record.dropped_at_ms }
    }
}

impl TryFrom<pb::GarbageRecord> for GarbageRecord {
    type Error = DecodeError;
    fn try_from(message: pb::GarbageRecord) -> Result<Self, DecodeError> {
        schema("garbage.schema", message.schema)?;
        Ok(Self { file: required("garbage.file", message.file)?.try_into()?, dropped_at_ms: message.dropped_at_ms })
    }
}
