//! Every key of the metadata store, one function each.
//!
//! Keys are ASCII text; numbers are padded with zeros so that keys sort as their numbers do. A store that is shared
//! with others puts a prefix of its own before them (`etcd.prefix`). What is watched stands under prefixes that hold
//! nothing else, so that no watch sees segments or checkpoints. The records are described in `docs/formats/meta.md`.

use bmq_proto::meta::{NodeKind, SessionId};
use bmq_proto::{FileId, NodeId, Offset, PartitionId, TopicId, TopicPartition};

/// The cluster's id and feature level: `ClusterRecord`, written once.
pub const CLUSTER: &str = "cluster";
/// The newest controller term: `TermRecord`, never deleted, so that terms only grow.
pub const TERM: &str = "term";
/// Who holds the term: `TermRecord` under the holder's lease, so that it ends with the session.
pub const TERM_HOLDER: &str = "term-holder";
/// The next producer id that was never given: `CounterRecord`.
pub const PRODUCER_IDS: &str = "counter/producer-id";

/// All topics. Watched.
pub const TOPICS: &str = "topic/";
/// All sessions. Watched.
pub const SESSIONS: &str = "session/";
/// All intents. Watched.
pub const INTENTS: &str = "intent/";
/// All heads. Watched.
pub const HEADS: &str = "head/";

/// One topic: `TopicRecord`. By name, so that a name is taken once.
pub fn topic(name: &str) -> String {
    format!("{TOPICS}{name}")
}

/// The name of the topic with this id, as plain text.
pub fn topic_name(topic: TopicId) -> String {
    format!("topic-name/{topic}")
}

/// The newest session of a node: `SessionRecord` under the session's lease.
pub fn session(kind: NodeKind, node: NodeId) -> String {
    format!("{SESSIONS}{}/{:010}", kind_name(kind), node.0)
}

/// A session by its id: `SessionRecord` under the session's lease. Gone as soon as a newer session of the node opens,
/// while its lease may live a little longer.
pub fn session_by_id(session: SessionId) -> String {
    format!("session-id/{:020}", session.0)
}

/// What the controller wants of a partition: `IntentRecord`.
pub fn intent(partition: TopicPartition) -> String {
    format!("{INTENTS}{}", partition_part(partition))
}

/// A partition's head: `PartitionHead`.
pub fn head(partition: TopicPartition) -> String {
    format!("{HEADS}{}", partition_part(partition))
}

/// A partition's segments.
pub fn segments(partition: TopicPartition) -> String {
    format!("segment/{}/", partition_part(partition))
}

/// The segment that starts at an offset: `SegmentRecord`.
pub fn segment(partition: TopicPartition, base_offset: Offset) -> String {
    format!("{}{:020}", segments(partition), base_offset.0)
}

/// A partition's checkpoint: `CheckpointRecord`.
pub fn checkpoint(partition: TopicPartition) -> String {
    format!("checkpoint/{}", partition_part(partition))
}

/// A partition's garbage.
pub fn all_garbage(partition: TopicPartition) -> String {
    format!("garbage/{}/", partition_part(partition))
}

/// One file that no record needs any more: `GarbageRecord`.
pub fn garbage(partition: TopicPartition, file: FileId) -> String {
    format!("{}{file}", all_garbage(partition))
}

/// Every prefix under which a topic's partitions keep records, in the order in which a purge empties them: without an
/// intent nobody can claim, and without a head nothing that an owner still sends can apply.
pub fn partition_prefixes(topic: TopicId) -> [String; 5] {
    ["intent", "head", "segment", "checkpoint", "garbage"].map(|kind| format!("{kind}/{topic}/"))
}

/// The partition that an intent's or head's key names; `None` if it is no such key.
pub fn parse_partition(key: &str) -> Option<TopicPartition> {
    let rest = key.strip_prefix(INTENTS).or_else(|| key.strip_prefix(HEADS))?;
    let (topic, partition) = rest.split_once('/')?;
    Some(TopicPartition { topic: topic.parse().ok()?, partition: PartitionId(partition.parse().ok()?) })
}

fn partition_part(partition: TopicPartition) -> String {
    format!("{}/{:010}", partition.topic, partition.partition.0)
}

fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Broker => "broker",
        NodeKind::Proxy => "proxy",
        NodeKind::Controller => "controller",
        NodeKind::Coordinator => "coordinator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::Epoch;

    const PARTITION: TopicPartition = TopicPartition { topic: TopicId([0xab; 16]), partition: PartitionId(7) };

    #[test]
    fn keys_are_as_documented() {
        let topic = "ab".repeat(16);
        let check = |key: String, expect: &str| assert_eq!(key, expect.replace("TOPIC", &topic));
        check(super::topic("orders"), "topic/orders");
        check(topic_name(PARTITION.topic), "topic-name/TOPIC");
        check(session(NodeKind::Broker, NodeId(3)), "session/broker/0000000003");
        check(session_by_id(SessionId(9)), "session-id/00000000000000000009");
        check(intent(PARTITION), "intent/TOPIC/0000000007");
        check(head(PARTITION), "head/TOPIC/0000000007");
        check(segment(PARTITION, Offset(42)), "segment/TOPIC/0000000007/00000000000000000042");
        check(checkpoint(PARTITION), "checkpoint/TOPIC/0000000007");
        let file = FileId { epoch: Epoch(2), nonce: 0xff };
        check(garbage(PARTITION, file), "garbage/TOPIC/0000000007/0000000002-00000000000000ff");
    }

    #[test]
    fn partitions_parse_back() {
        assert_eq!(parse_partition(&head(PARTITION)), Some(PARTITION));
        assert_eq!(parse_partition(&intent(PARTITION)), Some(PARTITION));
        assert_eq!(parse_partition(&checkpoint(PARTITION)), None);
        assert_eq!(parse_partition("head/xyz/0000000001"), None);
    }

    #[test]
    fn watched_prefixes_hold_nothing_else() {
        let unwatched = [
            topic_name(PARTITION.topic),
            session_by_id(SessionId(1)),
            segment(PARTITION, Offset(0)),
            checkpoint(PARTITION),
            TERM_HOLDER.to_owned(),
        ];
        for prefix in [TOPICS, SESSIONS, INTENTS, HEADS] {
            assert!(unwatched.iter().all(|key| !key.starts_with(prefix)), "{prefix}");
        }
    }
}
