//! The topics that groups can subscribe to, as metadata's watch has told them.
//!
//! A view is told whole: while a list comes in again, the one before it stays.

mod watcher;

use std::collections::{BTreeMap, BTreeSet};

use bmq_proto::coordinator::GROUPS_TOPIC;
use bmq_proto::meta::{TopicRecord, TopicState};
use bmq_proto::{PartitionId, TopicId, TopicPartition};

pub use watcher::watch_topics;

/// Active topics of users, by name and by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: BTreeMap<TopicId, String>,
}

/// What groups need to know of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub partitions: u32,
}

impl Topics {
    /// The active topics among `records`.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a TopicRecord>) -> Self {
        let mut topics = Self::default();
        for record in records {
            if record.state == TopicState::Active && !record.is_internal() {
                let topic = Topic { id: record.id, name: record.name.clone(), partitions: record.partitions };
                topics.names.insert(topic.id, topic.name.clone());
                topics.by_name.insert(topic.name.clone(), topic);
            }
        }
        topics
    }

    pub fn named(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub fn with_id(&self, id: TopicId) -> Option<&Topic> {
        self.by_name.get(self.names.get(&id)?)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values()
    }
}

/// What metadata says of topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicView {
    complete: bool,
    topics: Topics,
    groups: Option<TopicRecord>,
}

impl TopicView {
    /// A complete view.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a TopicRecord> + Clone) -> Self {
        let groups = records.clone().into_iter().find(|record| record.name == GROUPS_TOPIC).cloned();
        Self { complete: true, topics: Topics::of(records), groups }
    }

    /// Whether a list has come to its end.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The topic whose partitions hold the groups, once it was created.
    pub fn groups_topic(&self) -> Option<&TopicRecord> {
        self.groups.as_ref()
    }

    /// The topics here that are not in `newer`: deleted, or not known yet to a watch that was opened elsewhere.
    pub fn gone_in(&self, newer: &TopicView) -> BTreeSet<TopicId> {
        self.topics.names.keys().filter(|id| newer.topics.with_id(**id).is_none()).copied().collect()
    }

    /// The partition that holds a shard.
    pub fn shard(&self, shard: PartitionId) -> Option<TopicPartition> {
        let topic = self.groups.as_ref()?;
        (shard.0 < topic.partitions).then_some(TopicPartition { topic: topic.id, partition: shard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::meta::TopicConfig;

    fn record(number: u8, name: &str, state: TopicState) -> TopicRecord {
        let (id, config) = (TopicId([number; 16]), TopicConfig::new());
        TopicRecord { id, name: name.to_owned(), partitions: 3, config, state }
    }

    #[test]
    fn only_active_topics_of_users_can_be_subscribed_to() {
        let mut records = vec![
            record(1, "orders", TopicState::Active),
            record(2, "old", TopicState::Deleting),
            record(3, GROUPS_TOPIC, TopicState::Active),
        ];
        let view = TopicView::of(&records);
        assert_eq!(view.topics().iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["orders"]);
        assert_eq!(view.topics().with_id(TopicId([1; 16])), view.topics().named("orders"));
        assert!(view.shard(PartitionId(2)).is_some() && view.shard(PartitionId(3)).is_none());
        records[0].state = TopicState::Deleting;
        let newer = TopicView::of(&records);
        assert_eq!(view.gone_in(&newer), BTreeSet::from([TopicId([1; 16])]));
        assert_eq!(newer.gone_in(&view), BTreeSet::new());
    }
}
