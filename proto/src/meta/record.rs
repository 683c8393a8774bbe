//! The records that the metadata service keeps. Their bytes are the protobuf messages of the same names in
//! `proto/bmq/internal/v1/records.proto`; see `docs/formats/meta.md`.

use std::collections::BTreeMap;

use super::SegmentEnd;
use crate::{BytePosition, ClusterId, Epoch, FileId, Incarnation, NodeId, Offset, PartitionId, Term, TopicId};

/// The cluster itself, written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    pub cluster: ClusterId,
    /// The newest persisted shape in use. A binary that does not know it refuses to start.
    pub feature_level: u32,
}

/// A topic's settings as given: names and values, checked against the known ones when set.
pub type TopicConfig = BTreeMap<String, String>;

/// Whether a topic is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicState {
    Active,
    /// The marker that deletion has begun; it stays until nothing of the topic is left.
    Deleting,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    pub id: TopicId,
    pub name: String,
    pub partitions: u32,
    pub config: TopicConfig,
    pub state: TopicState,
}

impl TopicRecord {
    /// Whether it holds a service's state; only tools may look at it.
    pub fn is_internal(&self) -> bool {
        self.name == crate::coordinator::GROUPS_TOPIC
    }

    /// The kind of node that owns its partitions.
    pub fn owner_kind(&self) -> NodeKind {
        if self.is_internal() { NodeKind::Coordinator } else { NodeKind::Broker }
    }

    /// The topic's partitions in order.
    pub fn partition_ids(&self) -> impl Iterator<Item = crate::TopicPartition> + use<> {
        let topic = self.id;
        (0..self.partitions).map(move |number| crate::TopicPartition { topic, partition: PartitionId(number) })
    }
}

/// The kinds of node that open sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    Broker,
    Proxy,
    Controller,
    Coordinator,
}

/// A node that is alive, as far as its lease says. Never a reason to allow or refuse a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    pub kind: NodeKind,
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub address: String,
    /// A proxy's Kafka listeners: `host:port` by the listener's name.
    pub endpoints: BTreeMap<String, String>,
}

/// What the controller wants of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// The broker that shall own the partition.
    pub node: NodeId,
    /// The controller's term under which this was written.
    pub term: Term,
}

/// Who holds a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// An epoch and the first offset written under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: Epoch,
    pub start: Offset,
}

/// One partition's head record: the small part that others watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionHead {
    /// Grows with every change of the partition's records (checkpoints excepted).
    pub version: u64,
    /// The last command applied, so that a command sent twice is applied once.
    pub last_nonce: u64,
    /// The newest claim.
    pub epoch: Epoch,
    /// The holder of that claim; `None` once released.
    pub owner: Option<Owner>,
    /// Whether the holder has finished recovery under `epoch`: only then do new segments open.
    pub recovered: bool,
    /// Oldest first, strictly growing in epoch and never shrinking in start. An epoch that wrote nothing has the same
    /// start as its successor.
    pub epoch_chain: Vec<EpochStart>,
    /// First offset that may be read. Segments below it go as they can: the newest sealed one stays all the same.
    pub log_start: Offset,
    /// First offset after the last sealed segment: where the open segment starts, or the next one will.
    pub sealed_end: Offset,
    /// The segment that is open for writing: its base offset is `sealed_end`.
    pub open: Option<FileId>,
}

/// How far a segment's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// Being written, or left so by an owner that died.
    Open,
    /// Its end is fixed for ever.
    Sealed { end: SegmentEnd },
    /// Sealed, and the store has closed the file, its length covers the end, and its index is written.
    Closed { end: SegmentEnd },
}

/// One segment of one partition: byte range × offset range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRecord {
    pub file: FileId,
    /// The epoch under which it was registered; a compacted segment may be newer than its offsets.
    pub epoch: Epoch,
    pub base_offset: Offset,
    /// Where its first batch stands in the file.
    pub start_position: BytePosition,
    pub state: SegmentState,
    /// A length that the store knew to be covered when the file was fenced: less than this is damage.
    pub floor: Option<BytePosition>,
    /// When it was registered, in milliseconds since 1970, by the owner's clock. Informs people and age limits.
    pub created_at_ms: i64,
    /// When it was sealed, likewise; 0 while it is open.
    pub sealed_at_ms: i64,
    /// The highest timestamp of its records; `None` until it is closed, and if no record has one.
    pub max_timestamp_ms: Option<i64>,
    /// Whether it was written by compaction: its offsets may have gaps, and its batches come from older epochs.
    pub compacted: bool,
}

impl SegmentRecord {
    /// The fixed end, if there is one.
    pub fn end(&self) -> Option<SegmentEnd> {
        match self.state {
            SegmentState::Open => None,
            SegmentState::Sealed { end } | SegmentState::Closed { end } => Some(end),
        }
    }

    /// Whether its file can be read straight from the store.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, SegmentState::Closed { .. })
    }
}

/// A line up to which a partition's data is known good. Only a floor: recovery may find more, never less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub epoch: Epoch,
    pub file: FileId,
    pub position: BytePosition,
    pub offset: Offset,
}

/// A file that no record needs any more; deleted once no read can still be using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GarbageRecord {
    pub file: FileId,
    /// Milliseconds since 1970 by the clock of the owner that dropped it.
    pub dropped_at_ms: i64,
}
