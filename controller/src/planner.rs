//! The plan: from topics, intents and nodes to the intents that must change. Pure and deterministic.
//!
//! Invariants of a plan:
//! * internal topics are placed on coordinators, all others on brokers, and neither kind counts for the other;
//! * a partition of an active topic whose node is usable or held stays where it is;
//! * a new place is always a usable node, and of those one with the fewest partitions of the topic, then with the
//!   fewest in all. So a topic is spread within one over the nodes that were there when it was placed, also after
//!   some of them died, and so are many topics of one partition;
//! * what belongs to no active topic has no intent;
//! * nothing of a broker's moves for the sake of balance alone. An internal topic does: it is as old as the first
//!   coordinator, which would keep all of it, and one that joins or comes back takes its part.

use std::collections::{BTreeMap, BTreeSet};

use bmq_proto::meta::{NodeKind, TopicRecord, TopicState};
use bmq_proto::{NodeId, PartitionId, TopicId, TopicPartition};

/// Which node shall own each partition.
pub type Intents = BTreeMap<TopicPartition, NodeId>;

/// One intent to write; without a node the intent is removed.
pub type IntentChange = (TopicPartition, Option<NodeId>);

/// The nodes of one kind, as far as placing goes. The sets are disjoint; every other node counts as dead.
#[derive(Clone, Copy, Debug)]
pub struct Nodes<'a> {
    /// May be given partitions.
    pub usable: &'a BTreeSet<NodeId>,
    /// Gone, but may yet return: keep what they have, get nothing.
    pub held: &'a BTreeSet<NodeId>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What gets an owner that answers comes first: moves, then new partitions, then removals.
    pub changes: Vec<IntentChange>,
    /// Partitions that have no usable or held node, because there is none.
    pub unplaced: usize,
}

/// Plans the changes that lead from `intents` to what `topics` and the nodes ask for.
pub fn plan(
    topics: &BTreeMap<TopicId, TopicRecord>,
    intents: &Intents,
    brokers: Nodes<'_>,
    coordinators: Nodes<'_>,
) -> Plan {
    let mut placing = Placing::default();
    placing.place(NodeKind::Broker, brokers, topics, intents);
    placing.place(NodeKind::Coordinator, coordinators, topics, intents);
    let unwanted = intents.keys().filter(|partition| !is_wanted(topics, **partition));
    let removed = unwanted.map(|partition| (*partition, None));
    let Placing { moved, placed, unplaced } = placing;
    Plan { changes: moved.into_iter().chain(placed).chain(removed).collect(), unplaced }
}

#[derive(Default)]
struct Placing {
    moved: Vec<IntentChange>,
    placed: Vec<IntentChange>,
    unplaced: usize,
}

impl Placing {
    /// Places the partitions of the active topics that belong to one kind of node.
    fn place(&mut self, kind: NodeKind, nodes: Nodes<'_>, topics: &BTreeMap<TopicId, TopicRecord>, intents: &Intents) {
        let of_kind = |topic: &&TopicRecord| topic.state == TopicState::Active && topic.owner_kind() == kind;
        let is_of_kind = |topic: &TopicId| topics.get(topic).is_some_and(|topic| topic.owner_kind() == kind);
        let carried = intents.iter().filter(|(partition, _)| is_of_kind(&partition.topic)).map(|(_, node)| node);
        let mut places = Places::new(carried, nodes);
        for topic in topics.values().filter(of_kind) {
            places.begin_topic(topic.partition_ids().filter_map(|partition| intents.get(&partition)));
            let before = self.changed();
            for partition in topic.partition_ids() {
                let now = intents.get(&partition);
                if now.is_some_and(|node| nodes.usable.contains(node) || nodes.held.contains(node)) {
                    continue;
                }
                match (places.take_best(), now) {
                    (None, _) => self.unplaced += 1,
                    (Some(node), Some(_)) => self.moved.push((partition, Some(node))),
                    (Some(node), None) => self.placed.push((partition, Some(node))),
                }
            }
            if kind == NodeKind::Coordinator && nodes.held.is_empty() && self.changed() == before {
                self.moved.extend(places.spread(topic, intents));
            }
        }
    }

    fn changed(&self) -> usize {
        self.moved.len() + self.placed.len() + self.unplaced
    }
}

fn is_wanted(topics: &BTreeMap<TopicId, TopicRecord>, partition: TopicPartition) -> bool {
    let PartitionId(number) = partition.partition;
    let topic = topics.get(&partition.topic);
    topic.is_some_and(|topic| topic.state == TopicState::Active && number < topic.partitions)
}

/// What each usable node has to carry.
struct Places {
    carried: BTreeMap<NodeId, Carried>,
}

/// Ordered by what decides where the next partition goes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Carried {
    of_topic: usize,
    in_all: usize,
}

impl Places {
    fn new<'a>(carried_by: impl Iterator<Item = &'a NodeId>, nodes: Nodes<'_>) -> Self {
        let mut carried: BTreeMap<_, _> = nodes.usable.iter().map(|node| (*node, Carried::default())).collect();
        for node in carried_by {
            if let Some(carried) = carried.get_mut(node) {
                carried.in_all += 1;
            }
        }
        Places { carried }
    }

    /// Starts counting for a topic whose partitions are now at `nodes`.
    fn begin_topic<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId>) {
        self.carried.values_mut().for_each(|carried| carried.of_topic = 0);
        for node in nodes {
            if let Some(carried) = self.carried.get_mut(node) {
                carried.of_topic += 1;
            }
        }
    }

    /// The moves after which no node has two more partitions of the topic than another. All of them have a usable node.
    fn spread(&mut self, topic: &TopicRecord, intents: &Intents) -> Vec<IntentChange> {
        let mut moves = Vec::new();
        for partition in topic.partition_ids() {
            let Some(from) = intents.get(&partition) else { continue };
            let least = self.carried.iter().min_by_key(|(node, carried)| (**carried, **node)).map(|(node, _)| *node);
            let Some(to) = least else { break };
            let of_topic = |node: &NodeId| self.carried.get(node).map_or(0, |carried| carried.of_topic);
            if of_topic(from) < of_topic(&to) + 2 {
                continue;
            }
            self.shift(from, -1);
            self.shift(&to, 1);
            moves.push((partition, Some(to)));
        }
        moves
    }

    fn shift(&mut self, node: &NodeId, by: isize) {
        if let Some(carried) = self.carried.get_mut(node) {
            carried.of_topic = carried.of_topic.saturating_add_signed(by);
            carried.in_all = carried.in_all.saturating_add_signed(by);
        }
    }

    /// The node for the topic's next partition, which is then counted; none without nodes.
    fn take_best(&mut self) -> Option<NodeId> {
        let (node, carried) = self.carried.iter_mut().min_by_key(|(node, carried)| (**carried, **node))?;
        carried.of_topic += 1;
        carried.in_all += 1;
        Some(*node)
    }
}

#[cfg(test)]
mod tests {
    use bmq_proto::meta::TopicConfig;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn topic(number: u8, partitions: u32, state: TopicState) -> TopicRecord {
        let id = TopicId([number; 16]);
        TopicRecord { id, name: format!("t{number}"), partitions, config: TopicConfig::new(), state }
    }

    fn topics_of(partitions: &[u32]) -> BTreeMap<TopicId, TopicRecord> {
        let numbered = partitions.iter().zip(1_u8..);
        let topics = numbered.map(|(partitions, number)| topic(number, *partitions, TopicState::Active));
        topics.map(|topic| (topic.id, topic)).collect()
    }

    fn apply(intents: &mut Intents, plan: &Plan) {
        for (partition, node) in &plan.changes {
            match node {
                Some(node) => drop(intents.insert(*partition, *node)),
                None => drop(intents.remove(partition)),
            }
        }
    }

    fn planned(topics: &BTreeMap<TopicId, TopicRecord>, intents: &Intents, usable: &BTreeSet<NodeId>) -> Plan {
        let none = BTreeSet::new();
        plan(topics, intents, Nodes { usable, held: &none }, Nodes { usable: &none, held: &none })
    }

    /// The most less the least that one of `nodes` carries.
    fn unevenness<'a>(nodes: &BTreeSet<NodeId>, carried: impl Iterator<Item = &'a NodeId>) -> usize {
        let mut counts: BTreeMap<_, usize> = nodes.iter().map(|node| (*node, 0)).collect();
        carried.for_each(|node| *counts.get_mut(node).expect("only these nodes carry anything") += 1);
        counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
    }

    fn unevenness_of_topics(nodes: &BTreeSet<NodeId>, intents: &Intents) -> usize {
        let topics: BTreeSet<_> = intents.keys().map(|partition| partition.topic).collect();
        let of = |topic: &TopicId| {
            let topic = *topic;
            unevenness(nodes, intents.iter().filter(move |(at, _)| at.topic == topic).map(|(_, node)| node))
        };
        topics.iter().map(of).max().unwrap_or(0)
    }

    fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
        btree_set((1_u32..20).prop_map(NodeId), 1..8)
    }

    fn partition_counts() -> impl Strategy<Value = Vec<u32>> {
        vec(1_u32..20, 0..6)
    }

    /// Anything that could be found, also intents of topics and brokers that are not there any more.
    fn found_intents() -> impl Strategy<Value = Intents> {
        let partition = (1_u8..8, 0_u32..25)
            .prop_map(|(topic, number)| TopicPartition { topic: TopicId([topic; 16]), partition: PartitionId(number) });
        btree_map(partition, (1_u32..20).prop_map(NodeId), 0..60)
    }

    proptest! {
        #[test]
        fn new_partitions_are_spread_within_one(counts in partition_counts(), usable in nodes()) {
            let mut intents = Intents::new();
            let plan = planned(&topics_of(&counts), &intents, &usable);
            apply(&mut intents, &plan);
            prop_assert_eq!(intents.len(), counts.iter().sum::<u32>() as usize);
            prop_assert!(unevenness(&usable, intents.values()) <= 1);
            prop_assert!(unevenness_of_topics(&usable, &intents) <= 1);
        }

        #[test]
        fn a_death_moves_only_its_own_and_keeps_each_topic_within_one(
            counts in partition_counts(), mut usable in nodes(), which in any::<proptest::sample::Index>()
        ) {
            prop_assume!(usable.len() > 1);
            let mut intents = Intents::new();
            let topics = topics_of(&counts);
            let first = planned(&topics, &intents, &usable);
            apply(&mut intents, &first);
            let dead = *which.get(&usable.iter().copied().collect::<Vec<_>>());
            usable.remove(&dead);
            let plan = planned(&topics, &intents, &usable);
            for (partition, node) in &plan.changes {
                prop_assert_eq!(intents[partition], dead);
                prop_assert_ne!(*node, Some(dead));
            }
            apply(&mut intents, &plan);
            prop_assert!(unevenness_of_topics(&usable, &intents) <= 1);
        }

        #[test]
        fn whatever_is_found_the_plan_keeps_its_promises(
            counts in partition_counts(), found in found_intents(), usable in nodes(), held in nodes()
        ) {
            let topics = topics_of(&counts);
            let held = &held - &usable;
            let brokers = Nodes { usable: &usable, held: &held };
            let plan_from = |found: &Intents| super::plan(&topics, found, brokers, brokers);
            let plan = plan_from(&found);
            prop_assert_eq!(&plan, &plan_from(&found));
            for (partition, node) in &plan.changes {
                let kept = found.get(partition).is_some_and(|at| usable.contains(at) || held.contains(at));
                prop_assert!(node.is_none() || !kept, "{} moved without need", partition);
                prop_assert!(node.is_none_or(|node| usable.contains(&node)), "{} given to a dead broker", partition);
            }
            let mut intents = found.clone();
            apply(&mut intents, &plan);
            let wanted: BTreeSet<_> = topics.values().flat_map(TopicRecord::partition_ids).collect();
            prop_assert_eq!(intents.keys().copied().collect::<BTreeSet<_>>(), wanted);
            prop_assert_eq!(plan_from(&intents), Plan::default());
        }
    }

    #[test]
    fn many_small_topics_are_spread_too() {
        let usable = BTreeSet::from([1, 2, 3].map(NodeId));
        let mut intents = Intents::new();
        let topics = topics_of(&[1; 100]);
        let first = planned(&topics, &intents, &usable);
        apply(&mut intents, &first);
        assert!(unevenness(&usable, intents.values()) <= 1);
        let left = BTreeSet::from([1, 3].map(NodeId));
        let second = planned(&topics, &intents, &left);
        apply(&mut intents, &second);
        assert!(unevenness(&left, intents.values()) <= 1);
    }

    #[test]
    fn an_empty_broker_is_not_swamped_by_a_new_topic() {
        let mut intents = Intents::new();
        let old = planned(&topics_of(&[30]), &intents, &BTreeSet::from([NodeId(1)]));
        apply(&mut intents, &old);
        let usable = BTreeSet::from([1, 2].map(NodeId));
        let plan = planned(&topics_of(&[30, 4]), &intents, &usable);
        let of_first = plan.changes.iter().filter(|(_, node)| *node == Some(NodeId(1)));
        assert_eq!((plan.changes.len(), of_first.count()), (4, 2));
    }

    #[test]
    fn internal_topics_go_to_coordinators_and_do_not_count_at_brokers() {
        let user = topic(1, 2, TopicState::Active);
        let name = bmq_proto::coordinator::GROUPS_TOPIC.to_owned();
        let internal = TopicRecord { name, ..topic(2, 3, TopicState::Active) };
        let topics = BTreeMap::from([(user.id, user.clone()), (internal.id, internal.clone())]);
        let (none, brokers, coordinators) = (BTreeSet::new(), [1, 2].map(NodeId).into(), [1].map(NodeId).into());
        let plan_with = |intents: &Intents, coordinators: &BTreeSet<NodeId>| {
            let brokers = Nodes { usable: &brokers, held: &none };
            super::plan(&topics, intents, brokers, Nodes { usable: coordinators, held: &none })
        };
        let mut intents = Intents::new();
        let first = plan_with(&intents, &none);
        assert_eq!((first.changes.len(), first.unplaced), (2, 3), "brokers are no place for an internal topic");
        let second = plan_with(&intents, &coordinators);
        apply(&mut intents, &second);
        assert!(internal.partition_ids().all(|partition| intents[&partition] == NodeId(1)));
        assert_eq!(unevenness(&brokers, user.partition_ids().map(|partition| &intents[&partition])), 0);
    }

    proptest! {
        #[test]
        fn an_internal_topic_is_spread_within_one_also_over_coordinators_that_join(
            partitions in 1_u32..20, first in nodes(), second in nodes()
        ) {
            let name = bmq_proto::coordinator::GROUPS_TOPIC.to_owned();
            let internal = TopicRecord { name, ..topic(1, partitions, TopicState::Active) };
            let topics = BTreeMap::from([(internal.id, internal)]);
            let none = BTreeSet::new();
            let plan_over = |intents: &Intents, usable: &BTreeSet<NodeId>| {
                super::plan(&topics, intents, Nodes { usable: &none, held: &none }, Nodes { usable, held: &none })
            };
            let mut intents = Intents::new();
            for usable in [&first, &(&first | &second)] {
                let plan = plan_over(&intents, usable);
                apply(&mut intents, &plan);
                prop_assert!(unevenness(usable, intents.values()) <= 1);
                prop_assert_eq!(plan_over(&intents, usable), Plan::default());
            }
        }
    }

    #[test]
    fn a_deleted_topic_loses_its_intents_and_nothing_is_placed_without_brokers() {
        let (active, deleted) = (topic(1, 2, TopicState::Active), topic(2, 1, TopicState::Deleting));
        let gone = deleted.partition_ids().next().expect("it has one");
        let topics = BTreeMap::from([(active.id, active), (deleted.id, deleted)]);
        let plan = planned(&topics, &Intents::from([(gone, NodeId(1))]), &BTreeSet::new());
        assert_eq!(plan, Plan { changes: vec![(gone, None)], unplaced: 2 });
    }
}
