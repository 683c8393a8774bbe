//! What the watch has told, as far as the controller needs it. Pure.
//!
//! Invariant: `now` is what some moment looked like as a whole; a list that is still coming in is kept apart until it
//! is complete.

use std::collections::BTreeMap;

use bmq_proto::meta::{MetaChange, NodeKind, Owner, SessionRecord, TopicRecord, WatchEvent};
use bmq_proto::{NodeId, PartitionId, TopicId, TopicPartition};

use crate::planner::Intents;

/// The records there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub topics: BTreeMap<TopicId, TopicRecord>,
    pub brokers: BTreeMap<NodeId, SessionRecord>,
    pub coordinators: BTreeMap<NodeId, SessionRecord>,
    pub intents: Intents,
    /// Claims that were not released.
    pub owners: BTreeMap<TopicPartition, Owner>,
}

/// Which records an event has touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nothing that can be acted on yet.
    Nothing,
    Topics,
    Brokers,
    Coordinators,
    Intent(TopicPartition),
    Owners,
    /// Another controller's session ended, so a term may be free.
    ControllerGone,
    /// All of them: a list is complete.
    Everything,
}

/// The records, and the list that will replace them.
#[derive(Clone, Debug, Default)]
pub struct View {
    now: Records,
    listing: Option<Records>,
}

impl View {
    pub fn records(&self) -> &Records {
        &self.now
    }

    /// Puts an intent that was written before the watch has told of it.
    pub fn set_intent(&mut self, partition: TopicPartition, node: Option<NodeId>) {
        self.now.set_intent(partition, node);
    }

    /// Takes in one step of the watch.
    pub fn apply(&mut self, event: WatchEvent) -> Touched {
        match event {
            WatchEvent::Reset => self.listing = Some(Records::default()),
            WatchEvent::Change(change) => match &mut self.listing {
                Some(listing) => drop(listing.apply(change)),
                None => return self.now.apply(change),
            },
            WatchEvent::Synced => {
                if let Some(listed) = self.listing.take() {
                    self.now = listed;
                    return Touched::Everything;
                }
            }
        }
        Touched::Nothing
    }
}

impl Records {
    /// The partitions of a topic that have an intent or an owner start here.
    pub fn range_of(topic: TopicId) -> std::ops::RangeInclusive<TopicPartition> {
        let partition = |number| TopicPartition { topic, partition: PartitionId(number) };
        partition(0)..=partition(u32::MAX)
    }

    /// The kind of node that owns the partitions of a topic.
    pub fn owner_kind(&self, topic: TopicId) -> NodeKind {
        self.topics.get(&topic).map_or(NodeKind::Broker, TopicRecord::owner_kind)
    }

    /// Whether the node that claimed a partition is still there: this very run of it.
    pub fn is_alive(&self, partition: TopicPartition, owner: &Owner) -> bool {
        let nodes = match self.owner_kind(partition.topic) {
            NodeKind::Coordinator => &self.coordinators,
            _ => &self.brokers,
        };
        nodes.get(&owner.node).is_some_and(|session| session.incarnation == owner.incarnation)
    }

    fn set_intent(&mut self, partition: TopicPartition, node: Option<NodeId>) {
        match node {
            Some(node) => self.intents.insert(partition, node),
            None => self.intents.remove(&partition),
        };
    }

    fn apply(&mut self, change: MetaChange) -> Touched {
        match change {
            MetaChange::Topic(topic) => drop(self.topics.insert(topic.id, topic)),
            MetaChange::TopicGone(topic) => drop(self.topics.remove(&topic)),
            MetaChange::Session(session) => return self.apply_session(session),
            MetaChange::SessionGone(NodeKind::Broker, node) => {
                self.brokers.remove(&node);
                return Touched::Brokers;
            }
            MetaChange::SessionGone(NodeKind::Coordinator, node) => {
                self.coordinators.remove(&node);
                return Touched::Coordinators;
            }
            MetaChange::SessionGone(NodeKind::Controller, _) => return Touched::ControllerGone,
            MetaChange::SessionGone(NodeKind::Proxy, _) => return Touched::Nothing,
            MetaChange::Intent(partition, intent) => {
                self.set_intent(partition, Some(intent.node));
                return Touched::Intent(partition);
            }
            MetaChange::IntentGone(partition) => {
                self.set_intent(partition, None);
                return Touched::Intent(partition);
            }
            MetaChange::Head(partition, head) => return self.apply_owner(partition, head.owner),
            MetaChange::HeadGone(partition) => return self.apply_owner(partition, None),
        }
        Touched::Topics
    }

    fn apply_session(&mut self, session: SessionRecord) -> Touched {
        match session.kind {
            NodeKind::Broker => {
                self.brokers.insert(session.node, session);
                Touched::Brokers
            }
            NodeKind::Coordinator => {
                self.coordinators.insert(session.node, session);
                Touched::Coordinators
            }
            NodeKind::Proxy | NodeKind::Controller => Touched::Nothing,
        }
    }

    /// Heads change with every roll, so a head that says nothing new about the owner touches nothing.
    fn apply_owner(&mut self, partition: TopicPartition, owner: Option<Owner>) -> Touched {
        let before = match owner {
            Some(owner) => self.owners.insert(partition, owner),
            None => self.owners.remove(&partition),
        };
        if before == owner { Touched::Nothing } else { Touched::Owners }
    }
}

#[cfg(test)]
mod tests {
    use bmq_proto::Incarnation;
    use bmq_proto::meta::PartitionHead;

    use super::*;

    fn session(kind: NodeKind, node: u32) -> MetaChange {
        let (node, incarnation) = (NodeId(node), Incarnation(7));
        MetaChange::Session(SessionRecord {
            kind,
            node,
            incarnation,
            address: String::new(),
            endpoints: Default::default(),
        })
    }

    #[test]
    fn a_list_replaces_everything_and_only_when_complete() {
        let mut view = View::default();
        assert_eq!(view.apply(WatchEvent::Change(session(NodeKind::Broker, 1))), Touched::Brokers);
        assert_eq!(view.apply(WatchEvent::Reset), Touched::Nothing);
        assert_eq!(view.apply(WatchEvent::Change(session(NodeKind::Broker, 2))), Touched::Nothing);
        assert_eq!(view.records().brokers.keys().collect::<Vec<_>>(), [&NodeId(1)]);
        assert_eq!(view.apply(WatchEvent::Synced), Touched::Everything);
        assert_eq!(view.records().brokers.keys().collect::<Vec<_>>(), [&NodeId(2)]);
    }

    #[test]
    fn only_what_is_new_touches() {
        let mut view = View::default();
        let partition = TopicPartition { topic: TopicId([1; 16]), partition: PartitionId(0) };
        let owner = Owner { node: NodeId(1), incarnation: Incarnation(7) };
        let head =
            |version| MetaChange::Head(partition, PartitionHead { version, owner: Some(owner), ..Default::default() });
        assert_eq!(view.apply(WatchEvent::Change(head(1))), Touched::Owners);
        assert_eq!(view.apply(WatchEvent::Change(head(2))), Touched::Nothing);
        assert_eq!(view.apply(WatchEvent::Change(session(NodeKind::Proxy, 1))), Touched::Nothing);
        assert_eq!(view.apply(WatchEvent::Change(session(NodeKind::Coordinator, 1))), Touched::Coordinators);
        assert!(!view.records().is_alive(partition, &owner), "the topic is not a coordinator's");
        view.apply(WatchEvent::Change(session(NodeKind::Broker, 1)));
        assert!(view.records().is_alive(partition, &owner));
    }
}
