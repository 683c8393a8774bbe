//! A group as people and tools see it.

use bmq_proto::TopicId;
use bmq_proto::internal::{ConsumerGroupDescribeResponse, ConsumerGroupMember, TopicPartitionList};

use super::ConsumerGroup;
use super::member::Member;
use super::records::list_of;
use crate::assignor::Partitions;
use crate::group::step::Step;
use crate::topics::Topics;

impl ConsumerGroup {
    pub fn describe(&self, step: &Step<'_>) -> ConsumerGroupDescribeResponse {
        ConsumerGroupDescribeResponse {
            state: self.state().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor(&step.config.consumer).name().to_owned(),
            members: self.members.values().map(|member| describe_member(member, step.topics)).collect(),
            ..Default::default()
        }
    }
}

fn describe_member(member: &Member, topics: &Topics) -> ConsumerGroupMember {
    let subscription = &member.subscription;
    let target = member.target.as_ref();
    ConsumerGroupMember {
        member: subscription.member.clone(),
        instance: subscription.instance.clone(),
        rack: subscription.rack.clone(),
        member_epoch: member.current.epoch,
        client: subscription.client.clone(),
        subscribed_topics: subscription.topics.clone(),
        subscribed_regex: subscription.regex.clone(),
        assignment: Some(with_names(&member.current.assigned, topics)),
        target_assignment: Some(target.map(|target| with_names(target, topics)).unwrap_or_default()),
        is_classic: member.is_classic(),
    }
}

/// Topics that are no more have no name, and are left out.
fn with_names(partitions: &Partitions, topics: &Topics) -> TopicPartitionList {
    let mut list = list_of(partitions);
    list.topics.retain_mut(|entry| {
        let topic = TopicId::from_slice(&entry.topic_id).ok().and_then(|id| topics.with_id(id));
        topic.is_some_and(|topic| {
            entry.topic.clone_from(&topic.name);
            true
        })
    });
    list
}
