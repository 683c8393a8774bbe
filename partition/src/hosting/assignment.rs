//! What this node should be hosting: compares what the controller wants with what runs here. Pure.
//!
//! It works by level, not by edge: the same state gives the same answer however it came about, and a watch that was
//! interrupted needs nothing but the new state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{Intent, MetaChange, NodeKind, Owner, PartitionHead, TopicConfig, TopicRecord, WatchEvent};
use bmq_proto::{Incarnation, NodeId, TopicId, TopicPartition};

/// Metadata as the watch has told it, and what follows for this node.
#[derive(Debug)]
pub struct Assignment {
    /// Nodes of other kinds have numbers and partitions of their own.
    kind: NodeKind,
    me: Owner,
    handover_wait: Duration,
    synced: bool,
    topics: BTreeMap<TopicId, TopicRecord>,
    intents: BTreeMap<TopicPartition, Intent>,
    heads: BTreeMap<TopicPartition, PartitionHead>,
    /// The living nodes of this kind.
    nodes: BTreeMap<NodeId, Incarnation>,
    /// Named again since the last reset; the rest goes when the watch is in step again.
    named: Option<Named>,
    hosted: BTreeMap<TopicPartition, Hosted>,
    /// Partitions that shall come here while another owner still has them: since when.
    awaited: BTreeMap<TopicPartition, Monotonic>,
    /// The settings that the partitions running here were last told, by topic.
    told: BTreeMap<TopicId, TopicConfig>,
}

#[derive(Debug, Default)]
struct Named {
    topics: BTreeSet<TopicId>,
    intents: BTreeSet<TopicPartition>,
    heads: BTreeSet<TopicPartition>,
    nodes: BTreeSet<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hosted {
    Running,
    Releasing,
    /// It ended here and may be started again from then on.
    Resting {
        until: Monotonic,
    },
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Start(TopicPartition, TopicRecord),
    /// The topic's settings are others now.
    Reconfigure(TopicPartition, TopicRecord),
    Release(TopicPartition),
}

impl Assignment {
    pub fn new(kind: NodeKind, me: Owner, handover_wait: Duration) -> Self {
        Self {
            kind,
            me,
            handover_wait,
            synced: false,
            topics: BTreeMap::new(),
            intents: BTreeMap::new(),
            heads: BTreeMap::new(),
            nodes: BTreeMap::new(),
            named: None,
            hosted: BTreeMap::new(),
            awaited: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Takes one step of the watch.
    pub fn learn(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Reset => self.named = Some(Named::default()),
            WatchEvent::Change(change) => self.apply(change),
            WatchEvent::Synced => self.forget_unnamed(),
        }
    }

    fn apply(&mut self, change: MetaChange) {
        let named = self.named.get_or_insert_default();
        match change {
            MetaChange::Topic(topic) => {
                named.topics.insert(topic.id);
                self.topics.insert(topic.id, topic);
            }
            MetaChange::TopicGone(topic) => drop(self.topics.remove(&topic)),
            MetaChange::Session(session) if session.kind == self.kind => {
                named.nodes.insert(session.node);
                self.nodes.insert(session.node, session.incarnation);
            }
            MetaChange::SessionGone(kind, node) if kind == self.kind => drop(self.nodes.remove(&node)),
            MetaChange::Session(_) | MetaChange::SessionGone(..) => {}
            MetaChange::Intent(partition, intent) => {
                named.intents.insert(partition);
                self.intents.insert(partition, intent);
            }
            MetaChange::IntentGone(partition) => drop(self.intents.remove(&partition)),
            MetaChange::Head(partition, head) => {
                named.heads.insert(partition);
                self.heads.insert(partition, head);
            }
            MetaChange::HeadGone(partition) => drop(self.heads.remove(&partition)),
        }
    }

    fn forget_unnamed(&mut self) {
        if let Some(named) = self.named.take() {
            self.topics.retain(|topic, _| named.topics.contains(topic));
            self.intents.retain(|partition, _| named.intents.contains(partition));
            self.heads.retain(|partition, _| named.heads.contains(partition));
            self.nodes.retain(|node, _| named.nodes.contains(node));
        }
        self.synced = true;
    }

    /// The partition's task ended here.
    pub fn ended(&mut self, partition: TopicPartition, rest: Duration, now: Monotonic) {
        self.hosted.insert(partition, Hosted::Resting { until: now + rest });
    }

    /// What is to be done now.
    pub fn reconcile(&mut self, now: Monotonic) -> Vec<Step> {
        if !self.synced {
            return Vec::new();
        }
        let mut steps = self.reconfigure();
        let wanted: Vec<TopicPartition> = self.wanted().collect();
        for partition in &wanted {
            // Without its topic's settings a partition waits for the watch to bring them.
            let Some(topic) = self.topics.get(&partition.topic).cloned() else { continue };
            if self.may_start(*partition, now) {
                self.hosted.insert(*partition, Hosted::Running);
                self.awaited.remove(partition);
                self.told.entry(topic.id).or_insert_with(|| topic.config.clone());
                steps.push(Step::Start(*partition, topic));
            }
        }
        let wanted: BTreeSet<TopicPartition> = wanted.into_iter().collect();
        self.awaited.retain(|partition, _| wanted.contains(partition));
        for (partition, hosted) in &mut self.hosted {
            if *hosted == Hosted::Running && !wanted.contains(partition) {
                *hosted = Hosted::Releasing;
                steps.push(Step::Release(*partition));
            }
        }
        self.hosted.retain(|partition, hosted| !matches!(hosted, Hosted::Resting { .. }) || wanted.contains(partition));
        steps
    }

    /// Tells running partitions of settings that changed. One that starts has its topic's present ones.
    fn reconfigure(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.told.retain(|topic, _| self.topics.contains_key(topic));
        for (id, told) in &mut self.told {
            let Some(topic) = self.topics.get(id).filter(|topic| topic.config != *told) else { continue };
            told.clone_from(&topic.config);
            let running = |partition: &TopicPartition| self.hosted.get(partition) == Some(&Hosted::Running);
            let running = topic.partition_ids().filter(running);
            steps.extend(running.map(|partition| Step::Reconfigure(partition, topic.clone())));
        }
        steps
    }

    fn wanted(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        let is_of_kind = |topic| self.topics.get(&topic).is_none_or(|topic| topic.owner_kind() == self.kind);
        let is_mine = move |(partition, intent): &(&TopicPartition, &Intent)| {
            intent.node == self.me.node && is_of_kind(partition.topic)
        };
        self.intents.iter().filter(is_mine).map(|(partition, _)| *partition)
    }

    fn may_start(&mut self, partition: TopicPartition, now: Monotonic) -> bool {
        match self.hosted.get(&partition) {
            Some(Hosted::Running | Hosted::Releasing) => return false,
            Some(Hosted::Resting { until }) if now < *until => return false,
            Some(Hosted::Resting { .. }) => drop(self.hosted.remove(&partition)),
            None => {}
        }
        if !self.is_held_by_another(partition) {
            self.awaited.remove(&partition);
            return true;
        }
        let since = *self.awaited.entry(partition).or_insert(now);
        now.saturating_since(since) >= self.handover_wait
    }

    /// Whether somebody who is alive may still release the partition in good order.
    fn is_held_by_another(&self, partition: TopicPartition) -> bool {
        let Some(owner) = self.heads.get(&partition).and_then(|head| head.owner) else { return false };
        owner.node != self.me.node && self.nodes.get(&owner.node) == Some(&owner.incarnation)
    }

    /// When something may change without anything being told.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let awaited = self.awaited.values().map(|since| *since + self.handover_wait);
        let resting = self.hosted.values().filter_map(|hosted| match hosted {
            Hosted::Resting { until } => Some(*until),
            _ => None,
        });
        awaited.chain(resting).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::meta::{SessionRecord, TopicConfig, TopicState};
    use bmq_proto::{Epoch, PartitionId, Term};

    const ME: Owner = Owner { node: NodeId(1), incarnation: Incarnation(10) };
    const OTHER: Owner = Owner { node: NodeId(2), incarnation: Incarnation(20) };

    fn topic() -> TopicRecord {
        let (id, name, config) = (TopicId([7; 16]), "t".to_owned(), TopicConfig::new());
        TopicRecord { id, name, partitions: 1, config, state: TopicState::Active }
    }

    fn partition() -> TopicPartition {
        TopicPartition { topic: topic().id, partition: PartitionId(0) }
    }

    fn intent(node: u32) -> MetaChange {
        MetaChange::Intent(partition(), Intent { node: NodeId(node), term: Term(1) })
    }

    fn session(owner: Owner) -> MetaChange {
        let Owner { node, incarnation } = owner;
        MetaChange::Session(SessionRecord {
            kind: NodeKind::Broker,
            node,
            incarnation,
            address: String::new(),
            endpoints: Default::default(),
        })
    }

    fn head(owner: Owner) -> MetaChange {
        MetaChange::Head(partition(), PartitionHead { epoch: Epoch(3), owner: Some(owner), ..Default::default() })
    }

    fn told(changes: Vec<MetaChange>) -> Assignment {
        let mut assignment = Assignment::new(NodeKind::Broker, ME, Duration::from_secs(2));
        assignment.learn(WatchEvent::Reset);
        changes.into_iter().for_each(|change| assignment.learn(WatchEvent::Change(change)));
        assert_eq!(assignment.reconcile(at(0)), [], "nothing is decided on half of the state");
        assignment.learn(WatchEvent::Synced);
        assignment
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000_000)
    }

    #[test]
    fn starts_what_is_wanted_and_releases_what_is_not() {
        let mut assignment = told(vec![MetaChange::Topic(topic()), intent(1)]);
        assert_eq!(assignment.reconcile(at(0)), [Step::Start(partition(), topic())]);
        assert_eq!(assignment.reconcile(at(0)), []);
        assignment.learn(WatchEvent::Change(intent(2)));
        assert_eq!(assignment.reconcile(at(0)), [Step::Release(partition())]);
        assert_eq!(assignment.reconcile(at(0)), []);
    }

    #[test]
    fn leaves_to_other_kinds_what_is_theirs() {
        let name = bmq_proto::coordinator::GROUPS_TOPIC.to_owned();
        let internal = TopicRecord { name, ..topic() };
        let mut assignment = told(vec![MetaChange::Topic(internal), intent(1)]);
        assert_eq!(assignment.reconcile(at(0)), [], "node 1 is meant, but the coordinator of that number");
    }

    #[test]
    fn settings_that_change_are_told_once() {
        let mut assignment = told(vec![MetaChange::Topic(topic()), intent(1)]);
        assignment.reconcile(at(0));
        let config = TopicConfig::from([("segment.ms".to_owned(), "5000".to_owned())]);
        let changed = TopicRecord { config, ..topic() };
        assignment.learn(WatchEvent::Change(MetaChange::Topic(changed.clone())));
        assert_eq!(assignment.reconcile(at(0)), [Step::Reconfigure(partition(), changed)]);
        assert_eq!(assignment.reconcile(at(0)), []);
    }

    #[test]
    fn waits_for_a_living_owner_to_let_go() {
        let mut assignment = told(vec![MetaChange::Topic(topic()), session(OTHER), head(OTHER), intent(1)]);
        assert_eq!(assignment.reconcile(at(1)), []);
        assert_eq!(assignment.next_deadline(), Some(at(3)));
        assert_eq!(assignment.reconcile(at(3)), [Step::Start(partition(), topic())]);
    }

    #[test]
    fn does_not_wait_for_a_dead_owner_or_an_older_self() {
        let older_self = Owner { node: ME.node, incarnation: Incarnation(1) };
        for owner in [OTHER, older_self] {
            let mut assignment = told(vec![MetaChange::Topic(topic()), head(owner), intent(1)]);
            assert_eq!(assignment.reconcile(at(1)), [Step::Start(partition(), topic())]);
        }
    }

    #[test]
    fn rests_after_an_end_and_forgets_what_a_reset_does_not_name() {
        let mut assignment = told(vec![MetaChange::Topic(topic()), intent(1)]);
        assignment.reconcile(at(0));
        assignment.ended(partition(), Duration::from_secs(1), at(5));
        assert_eq!(assignment.reconcile(at(5)), []);
        assert_eq!(assignment.reconcile(at(6)), [Step::Start(partition(), topic())]);
        assignment.learn(WatchEvent::Reset);
        assignment.learn(WatchEvent::Synced);
        assert_eq!(assignment.reconcile(at(7)), [Step::Release(partition())]);
    }
}
