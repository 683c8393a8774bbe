//! What the assignors promise, on examples and at random.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bmq_proto::{PartitionId, TopicId, TopicPartition};
use proptest::prelude::*;

use super::{Assignor, MemberId, Partitions, Subscriber};

type Assignment = BTreeMap<MemberId, Partitions>;

fn topic(number: u8) -> TopicId {
    TopicId([number; 16])
}

/// A group for the assignors: members with the topics they subscribe to.
#[derive(Debug, Clone)]
struct Group {
    members: BTreeMap<MemberId, BTreeSet<TopicId>>,
    sizes: BTreeMap<TopicId, u32>,
}

impl Group {
    fn of(members: &[(&str, &[u8])], sizes: &[(u8, u32)]) -> Self {
        Self {
            members: members
                .iter()
                .map(|(id, topics)| (MemberId::from(*id), topics.iter().map(|number| topic(*number)).collect()))
                .collect(),
            sizes: sizes.iter().map(|(number, size)| (topic(*number), *size)).collect(),
        }
    }

    fn assign(&self, assignor: Assignor, previous: &Assignment) -> Assignment {
        let nothing = Partitions::new();
        let members = self
            .members
            .iter()
            .map(|(id, topics)| {
                let previous = previous.get(id).unwrap_or(&nothing);
                (id.clone(), Subscriber { instance: None, topics: Arc::new(topics.clone()), previous })
            })
            .collect();
        assignor.assign(&members, &self.sizes)
    }

    /// Every partition of a subscribed topic has one owner, who subscribes to it, and nothing else is assigned.
    fn check_complete(&self, assignment: &Assignment) {
        let mut seen = BTreeSet::new();
        assert!(assignment.keys().eq(self.members.keys()), "every member is in the assignment");
        for (id, partitions) in assignment {
            for partition in partitions {
                assert!(self.members[id].contains(&partition.topic), "{id} does not subscribe to {partition}");
                assert!(partition.partition.0 < self.sizes[&partition.topic], "{partition} does not exist");
                assert!(seen.insert(*partition), "{partition} is assigned twice");
            }
        }
        let subscribed: BTreeSet<TopicId> = self.members.values().flatten().copied().collect();
        let expected: u32 = subscribed.iter().map(|topic| self.sizes[topic]).sum();
        assert_eq!(seen.len(), expected as usize, "something is left over");
    }

    /// No member could give a partition to a subscriber of its topic and still have as many.
    fn check_balanced(&self, assignment: &Assignment) {
        for (id, partitions) in assignment {
            for partition in partitions {
                for (other, topics) in &self.members {
                    let (mine, theirs) = (partitions.len(), assignment[other].len());
                    assert!(
                        !topics.contains(&partition.topic) || mine <= theirs + 1,
                        "{id} has {mine} with {partition}, {other} has {theirs}"
                    );
                }
            }
        }
    }
}

fn moved(before: &Assignment, after: &Assignment) -> usize {
    let nothing = Partitions::new();
    after.iter().map(|(id, partitions)| partitions.difference(before.get(id).unwrap_or(&nothing)).count()).sum()
}

fn numbers(partitions: &Partitions, of: u8) -> Vec<u32> {
    partitions.iter().filter(|partition| partition.topic == topic(of)).map(|found| found.partition.0).collect()
}

#[test]
fn ranges_are_alike_for_topics_of_a_size() {
    let group = Group::of(&[("a", &[1, 2]), ("b", &[1, 2])], &[(1, 3), (2, 3)]);
    let assignment = group.assign(Assignor::Range, &Assignment::new());
    for number in [1, 2] {
        assert_eq!(numbers(&assignment["a"], number), [0, 1]);
        assert_eq!(numbers(&assignment["b"], number), [2]);
    }
}

#[test]
fn ranges_of_different_subscriptions_and_few_partitions() {
    let group = Group::of(&[("a", &[1]), ("b", &[1, 2]), ("c", &[2])], &[(1, 3), (2, 1)]);
    let assignment = group.assign(Assignor::Range, &Assignment::new());
    assert_eq!(numbers(&assignment["a"], 1), [0, 1]);
    assert_eq!((numbers(&assignment["b"], 1), numbers(&assignment["b"], 2)), (vec![2], vec![0]));
    assert!(assignment["c"].is_empty());
}

#[test]
fn ranges_go_to_static_members_first() {
    let nothing = Partitions::new();
    let topics = Arc::new(BTreeSet::from([topic(1)]));
    let member = |instance| Subscriber { instance, topics: Arc::clone(&topics), previous: &nothing };
    let members = BTreeMap::from([
        (MemberId::from("a"), member(None)),
        (MemberId::from("b"), member(Some("second"))),
        (MemberId::from("c"), member(Some("first"))),
    ]);
    let assignment = Assignor::Range.assign(&members, &BTreeMap::from([(topic(1), 3)]));
    assert_eq!(["c", "b", "a"].map(|id| numbers(&assignment[id], 1)), [[0], [1], [2]]);
}

#[test]
fn a_newcomer_takes_only_its_share() {
    let before = Group::of(&[("a", &[1, 2]), ("b", &[1, 2])], &[(1, 5), (2, 4)]);
    let first = before.assign(Assignor::Uniform, &Assignment::new());
    let after = Group::of(&[("a", &[1, 2]), ("b", &[1, 2]), ("c", &[1, 2])], &[(1, 5), (2, 4)]);
    let second = after.assign(Assignor::Uniform, &first);
    assert_eq!(second.values().map(Partitions::len).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(moved(&first, &second), 3);
}

#[test]
fn an_assignment_that_overlaps_is_repaired() {
    let group = Group::of(&[("a", &[1]), ("b", &[1])], &[(1, 4)]);
    let both: Partitions = (0..4).map(|n| TopicPartition { topic: topic(1), partition: PartitionId(n) }).collect();
    let broken = BTreeMap::from([(MemberId::from("a"), both.clone()), (MemberId::from("b"), both)]);
    let repaired = group.assign(Assignor::Uniform, &broken);
    group.check_complete(&repaired);
    group.check_balanced(&repaired);
}

fn groups(equal_subscriptions: bool) -> impl Strategy<Value = Group> {
    let sizes = prop::collection::vec(1_u32..12, 1..6);
    (sizes, prop::collection::vec(any::<u8>(), 1..9)).prop_map(move |(sizes, masks)| {
        let sizes: BTreeMap<TopicId, u32> = (0..).map(topic).zip(sizes).collect();
        let members = masks.iter().enumerate().map(|(number, mask)| {
            let chosen = sizes.keys().enumerate().filter(|(bit, _)| equal_subscriptions || mask >> bit & 1 == 1);
            (MemberId::from(format!("member-{number}")), chosen.map(|(_, topic)| *topic).collect())
        });
        Group { members: members.collect(), sizes: sizes.clone() }
    })
}

/// The fewest partitions that must change hands for an even assignment over equal subscriptions.
fn fewest_moves(group: &Group, before: &Assignment) -> usize {
    let mut kept: Vec<usize> = group.members.keys().map(|id| before.get(id).map_or(0, Partitions::len)).collect();
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let total = group.sizes.values().sum::<u32>() as usize;
    let (share, extra) = (total / kept.len(), total % kept.len());
    let stay: usize = kept.iter().enumerate().map(|(i, kept)| (*kept).min(share + usize::from(i < extra))).sum();
    total - stay
}

proptest! {
    #[test]
    fn every_partition_is_assigned_once(group in prop_oneof![groups(true), groups(false)]) {
        for assignor in [Assignor::Range, Assignor::Uniform] {
            let assignment = group.assign(assignor, &Assignment::new());
            group.check_complete(&assignment);
            prop_assert_eq!(&assignment, &group.assign(assignor, &Assignment::new()));
        }
    }

    #[test]
    fn uniform_is_balanced_and_at_rest(first in groups(false), second in groups(false)) {
        let before = first.assign(Assignor::Uniform, &Assignment::new());
        let after = second.assign(Assignor::Uniform, &before);
        second.check_complete(&after);
        second.check_balanced(&after);
        prop_assert_eq!(&second.assign(Assignor::Uniform, &after), &after);
    }

    #[test]
    fn uniform_moves_no_more_than_it_must(group in groups(true), joining in 0_usize..3, leaving in 0_usize..3) {
        let before = group.assign(Assignor::Uniform, &Assignment::new());
        let mut next = group.clone();
        let topics: BTreeSet<TopicId> = group.sizes.keys().copied().collect();
        next.members.extend((0..joining).map(|n| (MemberId::from(format!("joined-{n}")), topics.clone())));
        for _ in 0..leaving.min(next.members.len() - 1) {
            next.members.pop_first();
        }
        let after = next.assign(Assignor::Uniform, &before);
        next.check_complete(&after);
        next.check_balanced(&after);
        prop_assert_eq!(moved(&before, &after), fewest_moves(&next, &before));
    }
}
