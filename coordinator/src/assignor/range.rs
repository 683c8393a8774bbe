//! The range assignor: each topic is cut into as many ranges as it has subscribers, the longer ones first.
//!
//! Subscribers come in one order for all topics, so topics of equal size and equal subscribers are cut alike. Static
//! members come first, by instance id, since that survives a restart and keeps their ranges where they are.

use std::collections::BTreeMap;

use bmq_proto::{PartitionId, TopicId, TopicPartition};

use super::{MemberId, Partitions, Subscriber};

/// What is left of a topic to be handed out.
struct Remainder {
    next: u32,
    partitions: u32,
    subscribers: u32,
}

impl Remainder {
    /// The next subscriber's range: its even share of what is left, rounded up.
    fn cut(&mut self) -> std::ops::Range<u32> {
        let start = self.next;
        self.next += (self.partitions - start).div_ceil(self.subscribers);
        self.subscribers -= 1;
        start..self.next
    }
}

pub(super) fn assign(
    members: &BTreeMap<MemberId, Subscriber<'_>>,
    sizes: &BTreeMap<TopicId, u32>,
) -> BTreeMap<MemberId, Partitions> {
    let mut topics: BTreeMap<TopicId, Remainder> = BTreeMap::new();
    for topic in members.values().flat_map(|member| member.topics.iter()) {
        let partitions = sizes.get(topic).copied().unwrap_or(0);
        topics.entry(*topic).or_insert(Remainder { next: 0, partitions, subscribers: 0 }).subscribers += 1;
    }
    let mut order: Vec<(&MemberId, &Subscriber<'_>)> = members.iter().collect();
    // `None` would come before `Some`; the member id decides among the dynamic ones.
    order.sort_by_key(|(id, member)| (member.instance.is_none(), member.instance, *id));
    let mut assignment = BTreeMap::new();
    for (id, member) in order {
        let mut partitions = Partitions::new();
        for topic in member.topics.iter() {
            let range = topics.get_mut(topic).expect("every subscribed topic was counted").cut();
            partitions.extend(range.map(|number| TopicPartition { topic: *topic, partition: PartitionId(number) }));
        }
        assignment.insert(MemberId::clone(id), partitions);
    }
    assignment
}
