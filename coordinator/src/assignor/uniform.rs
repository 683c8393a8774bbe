//! The uniform assignor: even over all topics together, and sticky.
//!
//! Topics with the same subscribers form a class, whose partitions are as good as one another. Members keep what they
//! had; what nobody has goes to the least loaded subscriber; then, class by class, partitions move from the most to the
//! least loaded subscriber until they are even. Where all members subscribe to the same topics there is one class, and
//! the fewest moves lead to members that differ by at most one. With several classes a move in one can undo the balance
//! of another, so the classes take turns until none has a move left. Each move makes the sum of the squared loads
//! smaller, so that comes to an end; a bound on the turns makes it come soon.
//!
//! Racks are ignored, as Kafka 4 does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use bmq_proto::{PartitionId, TopicId, TopicPartition};

use super::{MemberId, Partitions, Subscriber};

/// After so many turns an assignment of overlapping subscriptions is as even as it needs to be.
const MAX_TURNS: usize = 16;

/// A member's place in the order of their ids.
type MemberIndex = usize;

/// Topics that the same members subscribe to.
struct Class {
    subscribers: Vec<MemberIndex>,
    /// What is assigned, the newest last.
    held: BTreeMap<MemberIndex, Vec<TopicPartition>>,
    unassigned: Vec<TopicPartition>,
    partitions: usize,
}

pub(super) fn assign(
    members: &BTreeMap<MemberId, Subscriber<'_>>,
    sizes: &BTreeMap<TopicId, u32>,
) -> BTreeMap<MemberId, Partitions> {
    let mut loads = vec![0; members.len()];
    let mut classes = classes(members, sizes, &mut loads);
    for class in &mut classes {
        class.fill(&mut loads);
    }
    for _ in 0..MAX_TURNS {
        let moves: usize = classes.iter_mut().map(|class| class.balance(&mut loads)).sum();
        if moves == 0 {
            break;
        }
    }
    let mut assigned = vec![Partitions::new(); members.len()];
    for (index, partitions) in classes.into_iter().flat_map(|class| class.held) {
        assigned[index].extend(partitions);
    }
    members.keys().cloned().zip(assigned).collect()
}

/// The classes with what their subscribers keep, those with the most partitions for each subscriber first: they have
/// the least choice.
fn classes(
    members: &BTreeMap<MemberId, Subscriber<'_>>,
    sizes: &BTreeMap<TopicId, u32>,
    loads: &mut [usize],
) -> Vec<Class> {
    let mut subscribers: BTreeMap<TopicId, Vec<MemberIndex>> = BTreeMap::new();
    for (index, member) in members.values().enumerate() {
        for topic in member.topics.iter() {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut topics: BTreeMap<Vec<MemberIndex>, Vec<TopicId>> = BTreeMap::new();
    for (topic, subscribers) in subscribers {
        topics.entry(subscribers).or_default().push(topic);
    }
    let previous: Vec<&Partitions> = members.values().map(|member| member.previous).collect();
    let mut classes: Vec<Class> = topics
        .into_iter()
        .map(|(subscribers, topics)| Class::new(subscribers, &topics, sizes, &previous, loads))
        .collect();
    // The shares are compared as fractions, in whole numbers that cannot overflow.
    classes.sort_by_cached_key(|class| {
        let share = (class.partitions as u128) << 32;
        (Reverse(share / class.subscribers.len() as u128), class.subscribers.len())
    });
    classes
}

impl Class {
    fn new(
        subscribers: Vec<MemberIndex>,
        topics: &[TopicId],
        sizes: &BTreeMap<TopicId, u32>,
        previous: &[&Partitions],
        loads: &mut [usize],
    ) -> Self {
        let mut kept = HashSet::new();
        let mut held = BTreeMap::new();
        for &index in &subscribers {
            let mut keeps = Vec::new();
            for &topic in topics {
                let all = first_of(topic)..first_of_count(topic, sizes);
                keeps.extend(previous[index].range(all).copied().filter(|partition| kept.insert(*partition)));
            }
            loads[index] += keeps.len();
            held.insert(index, keeps);
        }
        let all: Vec<TopicPartition> = topics.iter().flat_map(|topic| partitions_of(*topic, sizes)).collect();
        let partitions = all.len();
        let unassigned = all.into_iter().filter(|partition| !kept.contains(partition)).collect();
        Self { subscribers, held, unassigned, partitions }
    }

    /// Gives what nobody has to the least loaded.
    fn fill(&mut self, loads: &mut [usize]) {
        let mut takers = self.by_load(loads);
        for partition in std::mem::take(&mut self.unassigned) {
            let (_, taker) = takers.pop_first().expect("a class has subscribers");
            self.held.entry(taker).or_default().push(partition);
            loads[taker] += 1;
            takers.insert((loads[taker], taker));
        }
    }

    /// Moves partitions of this class until no subscriber that has one is ahead of another by more than one.
    /// Returns the number of moves.
    fn balance(&mut self, loads: &mut [usize]) -> usize {
        let mut takers = self.by_load(loads);
        let mut givers: BTreeSet<(usize, MemberIndex)> =
            takers.iter().copied().filter(|(_, index)| !self.held[index].is_empty()).collect();
        let mut moves = 0;
        while let (Some(&(most, giver)), Some(&(least, taker))) = (givers.last(), takers.first()) {
            if most <= least + 1 {
                break;
            }
            // What came last was kept by nobody, if there is such.
            let partition = self.held.get_mut(&giver).and_then(Vec::pop).expect("a giver holds a partition");
            self.held.entry(taker).or_default().push(partition);
            for (index, before, after) in [(giver, most, most - 1), (taker, least, least + 1)] {
                takers.remove(&(before, index));
                givers.remove(&(before, index));
                loads[index] = after;
                takers.insert((after, index));
                if !self.held[&index].is_empty() {
                    givers.insert((after, index));
                }
            }
            moves += 1;
        }
        moves
    }

    fn by_load(&self, loads: &[usize]) -> BTreeSet<(usize, MemberIndex)> {
        self.subscribers.iter().map(|&index| (loads[index], index)).collect()
    }
}

fn first_of(topic: TopicId) -> TopicPartition {
    TopicPartition { topic, partition: PartitionId(0) }
}

/// The first number that is no partition of the topic.
fn first_of_count(topic: TopicId, sizes: &BTreeMap<TopicId, u32>) -> TopicPartition {
    TopicPartition { topic, partition: PartitionId(sizes.get(&topic).copied().unwrap_or(0)) }
}

fn partitions_of(topic: TopicId, sizes: &BTreeMap<TopicId, u32>) -> impl Iterator<Item = TopicPartition> {
    let count = sizes.get(&topic).copied().unwrap_or(0);
    (0..count).map(move |number| TopicPartition { topic, partition: PartitionId(number) })
}
