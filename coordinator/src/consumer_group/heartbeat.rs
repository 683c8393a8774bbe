//! A member's heartbeat: it joins, tells of itself, and learns what it shall have.
//!
//! Everything that can be refused is refused before anything changes.

use bmq_proto::internal::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ConsumerMemberRecord, TopicNames, group_record::Kind,
};
use prost::Message;

use super::ConsumerGroup;
use super::config::ConsumerGroupConfig;
use super::member::{AWAY, Current, Member, State};
use super::reconcile::{self, Goal};
use super::records::{Journal, current_record, epochs_record, gone_record, list_of, partitions_of, target_record};
use super::subscription::{Resolved, compile};
use crate::assignor::{Assignor, MemberId, Partitions};
use crate::group::error::GroupError;
use crate::group::step::Step;

/// The member epoch of one that joins.
const JOIN: i32 = 0;
/// The member epoch of one that leaves.
pub(super) const LEAVE: i32 = -1;
/// The member epoch of a static member that leaves for now.
pub(super) const LEAVE_FOR_NOW: i32 = AWAY;

/// Of a group's name: what Kafka's wire can carry. A member's names are bounded by its record.
const MAX_GROUP_BYTES: usize = i16::MAX as usize;

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sender {
    New,
    /// The group has this member.
    Known,
    /// A new member that takes the place of this one, whose instance id it has.
    Successor(MemberId),
}

/// Refuses what makes no sense whatever the state of the group.
pub(crate) fn validate(
    request: &ConsumerGroupHeartbeatRequest,
    config: &ConsumerGroupConfig,
) -> Result<(), GroupError> {
    let epoch = request.member_epoch;
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
    let nonsense = request.group.is_empty()
        || request.group.len() > MAX_GROUP_BYTES
        || (request.member.is_empty() && epoch != JOIN)
        || is_empty(&request.instance)
        || is_empty(&request.rack)
        || epoch < LEAVE_FOR_NOW
        || (epoch == LEAVE_FOR_NOW && request.instance.is_none());
    let bad_join = epoch == JOIN
        && (request.rebalance_timeout_ms.is_none()
            || request.owned.as_ref().is_none_or(|owned| !owned.topics.is_empty())
            || (request.subscribed_topics.is_none() && request.subscribed_regex.is_none()));
    if nonsense || bad_join {
        return Err(GroupError::InvalidRequest);
    }
    let assignor = request.server_assignor.as_deref().map(Assignor::named);
    if assignor.is_some_and(|named| named.is_none_or(|assignor| !config.assignors.contains(&assignor))) {
        return Err(GroupError::UnsupportedAssignor);
    }
    Ok(())
}

/// Whether the request may make a group that is not there.
pub(crate) fn is_join(request: &ConsumerGroupHeartbeatRequest) -> bool {
    request.member_epoch == JOIN
}

impl ConsumerGroup {
    /// Handles a heartbeat that [`validate`] has passed.
    pub fn heartbeat(
        &mut self,
        group: &str,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, GroupError> {
        if matches!(request.member_epoch, LEAVE | LEAVE_FOR_NOW) {
            return self.leave(group, request, step);
        }
        let id = match request.member.as_str() {
            "" => MemberId::from(step.fresh.to_string()),
            id => MemberId::from(id),
        };
        let owned = match &request.owned {
            Some(list) => Some(partitions_of(Some(list)).map_err(|_| GroupError::InvalidRequest)?),
            None => None,
        };
        let sender = self.identify(&id, request, owned.as_ref())?;
        let subscription = self.subscription_of(&id, &sender, request);
        self.check_subscription(&subscription, &sender, step)?;

        let mut journal = Journal::new(group);
        let before = self.members.get(&id).map(|member| member.current.assigned.clone()).unwrap_or_default();
        self.take_in(&id, sender, subscription, step, &mut journal);
        self.advance_member(&id, owned.as_ref(), step, &mut journal);
        journal.store(step);

        let member = self.members.get_mut(&id).expect("the sender is a member now");
        member.session_deadline = step.now + step.config.consumer.session_timeout;
        if member.current.state != State::UnrevokedPartitions {
            member.rebalance_deadline = None;
        }
        let is_full = request.rebalance_timeout_ms.is_some()
            && (request.subscribed_topics.is_some() || request.subscribed_regex.is_some())
            && request.owned.is_some();
        let tell = is_join(request) || is_full || member.current.assigned != before;
        let response = ConsumerGroupHeartbeatResponse {
            member: id.to_string(),
            member_epoch: member.current.epoch,
            heartbeat_interval_ms: millis(step.config.consumer.heartbeat_interval),
            assignment: tell.then(|| list_of(&member.current.assigned)),
            ..Default::default()
        };
        self.arm(&id);
        Ok(response)
    }

    fn identify(
        &self,
        id: &MemberId,
        request: &ConsumerGroupHeartbeatRequest,
        owned: Option<&Partitions>,
    ) -> Result<Sender, GroupError> {
        let by_id = self.members.get(id);
        let by_instance = request.instance.as_ref().and_then(|instance| self.instances.get(instance));
        if is_join(request) {
            return match by_instance {
                // Also one that did not hear the answer to its join, or that was told to join anew.
                Some(holder) if holder == id => Ok(Sender::Known),
                Some(holder) => {
                    let member = &self.members[holder];
                    let released = member.current.epoch == AWAY || member.is_classic();
                    // A member that exists already cannot become another one.
                    let successor = released && by_id.is_none();
                    let successor = successor.then(|| Sender::Successor(MemberId::clone(holder)));
                    successor.ok_or(GroupError::UnreleasedInstanceId)
                }
                None => Ok(by_id.map_or(Sender::New, |_| Sender::Known)),
            };
        }
        if request.instance.is_some() {
            let holder = by_instance.ok_or(GroupError::UnknownMemberId)?;
            if holder != id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        let current = &by_id.ok_or(GroupError::UnknownMemberId)?.current;
        check_epoch(current, request.member_epoch, owned)?;
        Ok(Sender::Known)
    }

    /// The member that the sender is, or whose place it takes.
    pub(super) fn known(&self, id: &str, sender: &Sender) -> Option<&Member> {
        match sender {
            Sender::New => None,
            Sender::Known => self.members.get(id),
            Sender::Successor(predecessor) => self.members.get(predecessor),
        }
    }

    /// What the member is subscribed to, with what the request says anew.
    fn subscription_of(
        &self,
        id: &MemberId,
        sender: &Sender,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerMemberRecord {
        let known = self.known(id, sender).map(|member| member.subscription.clone()).unwrap_or_default();
        ConsumerMemberRecord {
            member: id.to_string(),
            instance: request.instance.clone().or(known.instance),
            rack: request.rack.clone().or(known.rack),
            client: request.client.clone().or(known.client),
            rebalance_timeout_ms: request.rebalance_timeout_ms.unwrap_or(known.rebalance_timeout_ms),
            topics: request.subscribed_topics.as_ref().map_or(known.topics, sorted),
            regex: request.subscribed_regex.clone().unwrap_or(known.regex),
            assignor: request.server_assignor.clone().or(known.assignor),
            classic: None,
        }
    }

    /// Refuses a subscription that is not valid, or that the group has no room for.
    pub(super) fn check_subscription(
        &self,
        subscription: &ConsumerMemberRecord,
        sender: &Sender,
        step: &Step<'_>,
    ) -> Result<(), GroupError> {
        let config = &step.config.consumer;
        if *sender == Sender::New && self.members.len() >= config.max_members {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let known = self.known(&subscription.member, sender).map(|member| &member.subscription);
        let is_new_regex = known.is_none_or(|known| known.regex != subscription.regex);
        if is_new_regex && !subscription.regex.is_empty() {
            compile(&subscription.regex)?;
        }
        let bytes = subscription.encoded_len();
        let others = self.subscription_bytes - known.map_or(0, Message::encoded_len);
        // One record of several in an append: half of it is more than enough for anything sensible.
        if bytes > step.config.max_append_bytes / 2 {
            return Err(GroupError::InvalidRequest);
        }
        if others + bytes > config.max_subscription_bytes {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// Makes the sender a member with this subscription, and moves the group's epoch and assignment where that, or the
    /// topics, call for it.
    pub(super) fn take_in(
        &mut self,
        id: &MemberId,
        sender: Sender,
        subscription: ConsumerMemberRecord,
        step: &Step<'_>,
        journal: &mut Journal<'_>,
    ) {
        let known = self.known(id, &sender).map(|member| &member.subscription);
        let same_topics =
            known.is_some_and(|known| known.topics == subscription.topics && known.regex == subscription.regex);
        let is_changed = known != Some(&subscription);
        match sender {
            Sender::Successor(predecessor) => self.replace(&predecessor, id, subscription, journal),
            _ if is_changed => self.write(Kind::ConsumerMember(subscription), journal),
            _ => {}
        }
        let is_unassigned = self.members[id].target.is_none();
        let resolved = self.refresh(!same_topics || is_unassigned || self.epoch == 0, step, journal);
        if self.epoch > self.assignment_epoch {
            let resolved = resolved.unwrap_or_else(|| self.resolve(step.topics));
            self.assign(resolved, &step.config.consumer, journal);
        }
    }

    /// Begins a new group epoch if `changed`, or if the topics that the group subscribes to are not what they were.
    fn refresh(&mut self, changed: bool, step: &Step<'_>, journal: &mut Journal<'_>) -> Option<Resolved> {
        if !changed && !self.topics_stale {
            return None;
        }
        self.topics_stale = false;
        let resolved = self.resolve(step.topics);
        if changed || resolved.hash != self.metadata_hash {
            self.write_first(epochs_record(self.epoch + 1, self.assignment_epoch, resolved.hash), journal);
        }
        Some(resolved)
    }

    /// A static member comes back under another member id, and has what it had.
    fn replace(
        &mut self,
        predecessor: &MemberId,
        id: &MemberId,
        subscription: ConsumerMemberRecord,
        journal: &mut Journal<'_>,
    ) {
        let before = self.members[predecessor].clone();
        self.write(gone_record(predecessor), journal);
        self.write(Kind::ConsumerMember(subscription), journal);
        if let Some(target) = &before.target {
            self.write(target_record(id, target), journal);
        }
        let current = Current { epoch: 0, previous_epoch: 0, ..before.current };
        self.write(current_record(id, &current), journal);
    }

    /// Takes the member one step towards its target.
    pub(super) fn advance_member(
        &mut self,
        id: &MemberId,
        owned: Option<&Partitions>,
        step: &Step<'_>,
        journal: &mut Journal<'_>,
    ) {
        let member = &self.members[id];
        let nothing = Partitions::new();
        let target = member.target.as_ref().unwrap_or(&nothing);
        let goal = Goal { epoch: self.assignment_epoch, partitions: target };
        let is_held = |partition: &_| self.holders.get(partition).is_some_and(|holder| holder != id);
        let next = reconcile::step(&member.current, goal, owned, is_held);
        if next == member.current {
            return;
        }
        self.write(current_record(id, &next), journal);
        let member = self.members.get_mut(id).expect("it was just changed");
        // Classic members revoke, join and sync under one time limit, which those requests set.
        if !member.is_classic() && next.state == State::UnrevokedPartitions {
            member.rebalance_deadline = Some(step.now + member.rebalance_timeout());
        }
    }
}

/// A member that is behind by one epoch may not have heard of the newer one; it must then own nothing that it has not.
fn check_epoch(current: &Current, epoch: i32, owned: Option<&Partitions>) -> Result<(), GroupError> {
    let missed_an_answer = epoch == current.previous_epoch
        && epoch < current.epoch
        && owned.is_some_and(|owned| owned.is_subset(&current.assigned));
    if epoch == current.epoch || missed_an_answer { Ok(()) } else { Err(GroupError::FencedMemberEpoch) }
}

fn sorted(topics: &TopicNames) -> Vec<String> {
    let mut names = topics.names.clone();
    names.sort_unstable();
    names.dedup();
    names
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
