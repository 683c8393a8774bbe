//! The offsets that a group has committed.

mod commit;
pub(super) mod expire;
mod fetch;

use std::collections::BTreeMap;

use bmq_common::clock::WallMillis;
use bmq_proto::TopicId;
use bmq_proto::coordinator::CommittedOffset;
use bmq_proto::internal::{CommittedOffsetRecord, CommittedOffsetsRecord, group_record};
use bytes::Bytes;
use prost::Message;

/// About how much a snapshot puts into one record.
const SNAPSHOT_RECORD_BYTES: usize = 64 << 10;

/// Committed offsets by topic and partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OffsetTable {
    /// No topic without partitions.
    by_topic: BTreeMap<String, BTreeMap<u32, Commit>>,
    len: usize,
}

/// The last commit for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    /// If the committer said which topic of that name it meant.
    pub topic_id: Option<TopicId>,
    pub at: WallMillis,
    pub expires: Option<WallMillis>,
}

impl OffsetTable {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, topic: &str, partition: u32) -> Option<&Commit> {
        self.by_topic.get(topic)?.get(&partition)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, &Commit)> {
        self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, commit)| (topic.as_str(), *partition, commit))
        })
    }

    pub fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.iter().filter_map(|(_, _, commit)| commit.topic_id)
    }

    pub fn remove(&mut self, topic: &str, partition: u32) {
        let Some(partitions) = self.by_topic.get_mut(topic) else { return };
        self.len -= usize::from(partitions.remove(&partition).is_some());
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
    }

    fn insert(&mut self, topic: String, partition: u32, commit: Commit) {
        let before = self.by_topic.entry(topic).or_default().insert(partition, commit);
        self.len += usize::from(before.is_none());
    }

    /// Takes what was stored.
    pub fn restore(&mut self, record: CommittedOffsetsRecord) -> Result<(), String> {
        for CommittedOffsetRecord { offset, committed_at_ms, expires_at_ms } in record.offsets {
            let offset = offset.ok_or("a committed offset is missing from its record")?;
            let topic_id = topic_id(&offset.topic_id).map_err(|()| "the topic id of a commit is malformed")?;
            let commit = Commit {
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata: offset.metadata,
                topic_id,
                at: WallMillis(committed_at_ms),
                expires: expires_at_ms.map(WallMillis),
            };
            self.insert(offset.topic, offset.partition, commit);
        }
        Ok(())
    }

    /// What makes this table when applied to an empty one.
    pub fn records(&self) -> impl Iterator<Item = group_record::Kind> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut part = Vec::new();
        for (topic, partition, commit) in self.iter() {
            let record = commit.record(topic, partition);
            let length = record.encoded_len() + 8;
            if bytes + length > SNAPSHOT_RECORD_BYTES && !part.is_empty() {
                records.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += length;
            part.push(record);
        }
        records.push(part);
        records
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|offsets| group_record::Kind::Committed(CommittedOffsetsRecord { offsets }))
    }
}

impl Commit {
    fn record(&self, topic: &str, partition: u32) -> CommittedOffsetRecord {
        CommittedOffsetRecord {
            offset: Some(self.answer(topic, partition)),
            committed_at_ms: self.at.0,
            expires_at_ms: self.expires.map(|at| at.0),
        }
    }

    fn answer(&self, topic: &str, partition: u32) -> CommittedOffset {
        CommittedOffset {
            topic: topic.to_owned(),
            partition,
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            topic_id: self.topic_id_bytes(),
        }
    }

    fn topic_id_bytes(&self) -> Bytes {
        self.topic_id.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default()
    }
}

/// The topic id in a message, if there is one.
fn topic_id(bytes: &[u8]) -> Result<Option<TopicId>, ()> {
    match bytes {
        [] => Ok(None),
        bytes => TopicId::from_slice(bytes).map(Some).map_err(|_| ()),
    }
}
