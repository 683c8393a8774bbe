//! A group goes from the classic protocol to the new one and back while it has members.
//!
//! Up when the first member of the new protocol joins; down when the last one has gone. What members have stays theirs:
//! upwards, what they were assigned last is what they hold; downwards, they are told their last target until the
//! rebalance that begins at once is complete.

use bmq_proto::internal::{
    ClassicGroupRecord, ClassicMemberRecord, ClassicMembership, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, ConsumerMemberRecord, group_record::Kind,
};
use prost::Message;

use super::classic_members::held_of;
use super::embedded::{Assignment, Subscription};
use super::member::{Current, Member, State};
use super::records::{Journal, current_record, epochs_record, target_record};
use super::{ConsumerGroup, PROTOCOL_TYPE};
use crate::assignor::Partitions;
use crate::group::classic::ClassicGroup;
use crate::group::error::GroupError;
use crate::group::step::Step;

/// A classic member, with what its bytes say.
struct Read {
    record: ClassicMemberRecord,
    subscription: Subscription,
    assigned: Partitions,
}

impl ConsumerGroup {
    /// The group that a classic group becomes when the first member of the new protocol joins. Refused if its members
    /// are no consumers, or if their assignor keeps data of its own; then nothing has changed.
    pub fn upgrade(
        classic: &mut ClassicGroup,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step<'_>,
    ) -> Result<(Self, ConsumerGroupHeartbeatResponse), GroupError> {
        let before = step.effects.len();
        let mut journal = Journal::new(&request.group);
        let mut group = Self::upgraded(classic.to_record(), &mut journal, step)?;
        journal.store(step);
        match group.heartbeat(&request.group, request, step) {
            Ok(response) => {
                classic.dissolve(step);
                Ok((group, response))
            }
            Err(error) => {
                step.effects.truncate(before);
                Err(error)
            }
        }
    }

    fn upgraded(classic: ClassicGroupRecord, journal: &mut Journal<'_>, step: &Step<'_>) -> Result<Self, GroupError> {
        if classic.protocol_type != PROTOCOL_TYPE || classic.members.len() > step.config.consumer.max_members {
            return Err(GroupError::GroupIdNotFound);
        }
        let mut members = Vec::with_capacity(classic.members.len());
        for record in classic.members {
            members.push(read(record, &classic.protocol, step).ok_or(GroupError::GroupIdNotFound)?);
        }
        let mut group = Self::default();
        group.write(epochs_record(classic.generation, classic.generation, 0), journal);
        // What members say they own counts only where nobody was assigned it since.
        for read in &members {
            group.add_upgraded(read, classic.generation, journal);
        }
        for read in &members {
            group.add_owned(read, step, journal);
        }
        group.finish_loading(step);
        Ok(group)
    }

    fn add_upgraded(&mut self, read: &Read, epoch: i32, journal: &mut Journal<'_>) {
        let record = &read.record;
        let mut topics = read.subscription.topics.clone();
        topics.sort_unstable();
        topics.dedup();
        let subscription = ConsumerMemberRecord {
            member: record.member.clone(),
            instance: record.instance.clone(),
            rack: read.subscription.rack.clone().filter(|rack| !rack.is_empty()),
            client: record.client.clone(),
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            topics,
            classic: Some(ClassicMembership {
                session_timeout_ms: record.session_timeout_ms,
                protocols: record.protocols.clone(),
            }),
            ..Default::default()
        };
        self.write(Kind::ConsumerMember(subscription), journal);
        // The leader may have given a partition to several.
        let assigned = read.assigned.iter().filter(|partition| !self.holders.contains_key(*partition)).copied();
        let assigned: Partitions = assigned.collect();
        self.write(target_record(&record.member, &assigned), journal);
        let current =
            Current { epoch, previous_epoch: epoch, state: State::Stable, assigned, revoking: Partitions::new() };
        self.write(current_record(&record.member, &current), journal);
    }

    /// In the middle of a rebalance a member has no assignment, but may have kept what it had before.
    fn add_owned(&mut self, read: &Read, step: &Step<'_>, journal: &mut Journal<'_>) {
        let owned = held_of(&read.subscription.owned, step.topics);
        let free: Partitions = owned.into_iter().filter(|partition| !self.holders.contains_key(partition)).collect();
        if read.assigned.is_empty() && !free.is_empty() {
            let current = &self.members[read.record.member.as_str()].current;
            let current = Current { assigned: free, ..current.clone() };
            self.write(current_record(&read.record.member, &current), journal);
        }
    }

    /// The classic group that this one becomes: when members are left, and all of them are classic.
    pub fn downgraded(&self, step: &Step<'_>) -> Option<ClassicGroupRecord> {
        let leader = self.members.keys().next()?.to_string();
        if !self.members.values().all(Member::is_classic) || self.members.len() > step.config.max_members {
            return None;
        }
        let record = ClassicGroupRecord {
            generation: self.epoch,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: self.shared_protocol()?,
            leader,
            state_since_ms: step.wall.0,
            members: self.members.values().map(|member| downgraded_member(member, step)).collect(),
        };
        // One that does not fit stays what it is.
        (record.encoded_len() <= step.config.max_append_bytes / 2).then_some(record)
    }

    /// The first member's first protocol that all know.
    fn shared_protocol(&self) -> Option<String> {
        let known = |member: &Member, name: &str| member.classic_protocols().iter().any(|known| known.name == name);
        let first = self.members.values().next()?;
        let mut names = first.classic_protocols().iter().map(|protocol| &protocol.name);
        names.find(|name| self.members.values().all(|member| known(member, name))).cloned()
    }
}

fn downgraded_member(member: &Member, step: &Step<'_>) -> ClassicMemberRecord {
    let subscription = &member.subscription;
    let nothing = Partitions::new();
    ClassicMemberRecord {
        member: subscription.member.clone(),
        instance: subscription.instance.clone(),
        client: subscription.client.clone(),
        session_timeout_ms: subscription.classic.as_ref().map_or(0, |classic| classic.session_timeout_ms),
        rebalance_timeout_ms: subscription.rebalance_timeout_ms,
        protocols: member.classic_protocols().to_vec(),
        assignment: member.classic_assignment(member.target.as_ref().unwrap_or(&nothing), step.topics),
    }
}

fn read(record: ClassicMemberRecord, protocol: &str, step: &Step<'_>) -> Option<Read> {
    let brought = record.protocols.iter().find(|brought| brought.name == protocol).or(record.protocols.first())?;
    let subscription = Subscription::read(&brought.metadata)?;
    let assignment = Assignment::read(&record.assignment).filter(|assignment| !assignment.has_user_data)?;
    let assigned = held_of(&assignment.partitions, step.topics);
    Some(Read { record, subscription, assigned })
}
