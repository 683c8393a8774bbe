//! What is stored of a group, and the one place where a group's state changes: by taking a record.

use std::collections::BTreeSet;

use bmq_proto::internal::{
    ConsumerCurrentRecord, ConsumerGroupRecord, ConsumerMemberGoneRecord, ConsumerMemberRecord, ConsumerTargetRecord,
    GroupRecord, Reconciliation, TopicPartitionList, TopicPartitions, group_record::Kind,
};
use bmq_proto::{PartitionId, TopicId, TopicPartition};
use prost::Message;

use super::ConsumerGroup;
use super::member::{Current, Member, State};
use crate::assignor::{MemberId, Partitions};
use crate::group::step::{Step, record};

/// The records of one step, in their order.
#[derive(Debug)]
pub(super) struct Journal<'a> {
    group: &'a str,
    records: Vec<GroupRecord>,
}

impl<'a> Journal<'a> {
    pub fn new(group: &'a str) -> Self {
        Self { group, records: Vec::new() }
    }

    /// Has the records stored: together if they are few, else in several appends. After a part of them a reload finds a
    /// group whose epoch is ahead of its assignment, so that it assigns anew; who holds what is whole in any case.
    pub fn store(self, step: &mut Step<'_>) {
        let limit = step.config.max_append_bytes;
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        for record in self.records {
            let length = record.encoded_len();
            if bytes + length > limit {
                step.append_all(std::mem::take(&mut chunk));
                bytes = 0;
            }
            bytes += length;
            chunk.push(record);
        }
        step.append_all(chunk);
    }
}

impl ConsumerGroup {
    /// Changes the state, and notes the record of the change.
    pub(super) fn write(&mut self, kind: Kind, journal: &mut Journal<'_>) {
        journal.records.push(record(journal.group, kind.clone()));
        self.apply(kind).expect("what this group writes makes sense");
    }

    /// As [`Self::write`], for the record that comes before all others of the step: a higher epoch than the
    /// assignment's says that something changed, if the others do not make it.
    pub(super) fn write_first(&mut self, kind: Kind, journal: &mut Journal<'_>) {
        journal.records.insert(0, record(journal.group, kind.clone()));
        self.apply(kind).expect("what this group writes makes sense");
    }

    /// Takes a record of this group. An error names what makes no sense in it.
    pub fn apply(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::Consumer(record) => {
                self.epoch = record.epoch;
                self.assignment_epoch = record.assignment_epoch;
                self.metadata_hash = record.metadata_hash;
            }
            Kind::ConsumerMember(record) => self.apply_member(record),
            Kind::ConsumerTarget(record) => {
                let target = partitions_of(record.partitions.as_ref())?;
                self.member_mut(&record.member)?.target = Some(target);
            }
            Kind::ConsumerCurrent(record) => {
                let current = current_of(&record)?;
                self.apply_current(&record.member, current)?;
            }
            Kind::ConsumerMemberGone(record) => self.apply_gone(&record.member),
            _ => return Err("a record of another protocol in a consumer group".to_owned()),
        }
        Ok(())
    }

    fn member_mut(&mut self, id: &str) -> Result<&mut Member, String> {
        self.members.get_mut(id).ok_or_else(|| format!("a record of member `{id}`, who is not in the group"))
    }

    fn apply_member(&mut self, record: ConsumerMemberRecord) {
        let id = MemberId::from(record.member.as_str());
        let member = self.members.entry(MemberId::clone(&id)).or_default();
        let before = std::mem::replace(&mut member.subscription, record);
        self.subscription_bytes += member.subscription.encoded_len();
        self.subscription_bytes -= before.encoded_len();
        let instance = member.subscription.instance.clone();
        if before.instance != instance {
            self.release_instance(before.instance.as_deref(), &id);
        }
        if let Some(instance) = instance {
            self.instances.insert(instance, id);
        }
    }

    fn apply_current(&mut self, id: &str, current: Current) -> Result<(), String> {
        let before = std::mem::replace(&mut self.member_mut(id)?.current, current.clone());
        let id = MemberId::from(id);
        for partition in before.assigned.iter().chain(&before.revoking) {
            self.holders.remove(partition);
        }
        for partition in current.assigned.into_iter().chain(current.revoking) {
            if let Some(other) = self.holders.insert(partition, MemberId::clone(&id)) {
                return Err(format!("partition {partition} is given to `{id}` while `{other}` holds it"));
            }
        }
        Ok(())
    }

    fn apply_gone(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        self.subscription_bytes -= member.subscription.encoded_len();
        self.release_instance(member.subscription.instance.as_deref(), id);
        for partition in member.current.assigned.iter().chain(&member.current.revoking) {
            self.holders.remove(partition);
        }
    }

    /// An instance that has another member by now keeps it.
    fn release_instance(&mut self, instance: Option<&str>, id: &str) {
        if let Some(instance) = instance
            && self.instances.get(instance).is_some_and(|holder| **holder == *id)
        {
            self.instances.remove(instance);
        }
    }

    /// The group as records that make it when they are applied to an empty group.
    pub fn records(&self) -> Vec<Kind> {
        let mut records = vec![epochs_record(self.epoch, self.assignment_epoch, self.metadata_hash)];
        for (id, member) in &self.members {
            records.push(Kind::ConsumerMember(member.subscription.clone()));
            records.extend(member.target.as_ref().map(|target| target_record(id, target)));
            records.push(current_record(id, &member.current));
        }
        records
    }
}

pub(super) fn epochs_record(epoch: i32, assignment_epoch: i32, metadata_hash: u64) -> Kind {
    Kind::Consumer(ConsumerGroupRecord { epoch, assignment_epoch, metadata_hash })
}

pub(super) fn gone_record(id: &str) -> Kind {
    Kind::ConsumerMemberGone(ConsumerMemberGoneRecord { member: id.to_owned() })
}

pub(super) fn target_record(id: &str, target: &Partitions) -> Kind {
    Kind::ConsumerTarget(ConsumerTargetRecord { member: id.to_owned(), partitions: Some(list_of(target)) })
}

pub(super) fn current_record(id: &str, current: &Current) -> Kind {
    let state = match current.state {
        State::Stable => Reconciliation::Stable,
        State::UnrevokedPartitions => Reconciliation::UnrevokedPartitions,
        State::UnreleasedPartitions => Reconciliation::UnreleasedPartitions,
    };
    Kind::ConsumerCurrent(ConsumerCurrentRecord {
        member: id.to_owned(),
        epoch: current.epoch,
        previous_epoch: current.previous_epoch,
        state: state.into(),
        assigned: Some(list_of(&current.assigned)),
        revoking: Some(list_of(&current.revoking)),
    })
}

fn current_of(record: &ConsumerCurrentRecord) -> Result<Current, String> {
    let state = match record.state() {
        Reconciliation::Stable => State::Stable,
        Reconciliation::UnrevokedPartitions => State::UnrevokedPartitions,
        Reconciliation::UnreleasedPartitions => State::UnreleasedPartitions,
        Reconciliation::Unspecified => return Err(format!("member `{}` is in no known state", record.member)),
    };
    Ok(Current {
        epoch: record.epoch,
        previous_epoch: record.previous_epoch,
        state,
        assigned: partitions_of(record.assigned.as_ref())?,
        revoking: partitions_of(record.revoking.as_ref())?,
    })
}

/// As messages have it, without the topics' names.
pub(super) fn list_of(partitions: &Partitions) -> TopicPartitionList {
    let topics: BTreeSet<TopicId> = partitions.iter().map(|partition| partition.topic).collect();
    let list = |topic: TopicId| {
        let all = TopicPartition { topic, partition: PartitionId(0) }..=TopicPartition {
            topic,
            partition: PartitionId(u32::MAX),
        };
        partitions.range(all).map(|partition| partition.partition.0).collect()
    };
    let topics = topics.into_iter().map(|topic| TopicPartitions {
        topic_id: topic.0.to_vec().into(),
        partitions: list(topic),
        topic: String::new(),
    });
    TopicPartitionList { topics: topics.collect() }
}

/// The reverse of [`list_of`]; nothing for a list that is not there.
pub(super) fn partitions_of(list: Option<&TopicPartitionList>) -> Result<Partitions, String> {
    let mut partitions = Partitions::new();
    for topics in list.iter().flat_map(|list| &list.topics) {
        let topic = TopicId::from_slice(&topics.topic_id).map_err(|error| error.to_string())?;
        let numbers = topics.partitions.iter().map(|number| PartitionId(*number));
        partitions.extend(numbers.map(|partition| TopicPartition { topic, partition }));
    }
    Ok(partitions)
}
