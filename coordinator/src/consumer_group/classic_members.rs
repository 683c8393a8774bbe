//! Members that speak the classic protocol, in a group of the new one: while its consumers are upgraded one by one.
//!
//! To such a member the group looks like one that somebody else leads. Its generation is its member epoch; the
//! coordinator assigns, whatever the protocol that it is told was chosen. A join does what a heartbeat does in the new
//! protocol: it lists what the member owns. A heartbeat that is answered REBALANCE_IN_PROGRESS makes the member join
//! again, and revoke what it must.

use std::collections::BTreeMap;

use bmq_proto::coordinator::{
    GroupHeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeavingMember, LeftMember, SyncGroupRequest,
    SyncGroupResponse,
};
use bmq_proto::internal::{ClassicMembership, ConsumerMemberRecord};
use bmq_proto::{PartitionId, TopicPartition};
use bytes::Bytes;

use super::embedded::{Assignment, NamedPartitions, Subscription};
use super::heartbeat::Sender;
use super::member::{Member, State};
use super::records::Journal;
use super::{ConsumerGroup, PROTOCOL_TYPE};
use crate::assignor::{MemberId, Partitions};
use crate::group::classic::join_error;
use crate::group::error::{GroupError, code_of};
use crate::group::step::Step;
use crate::topics::Topics;

impl ConsumerGroup {
    /// A member joins, or joins again to get on. It never waits for others.
    pub fn classic_join(&mut self, group: &str, request: JoinGroupRequest, step: &mut Step<'_>) -> JoinGroupResponse {
        let is_unknown = request.member.is_empty();
        let id = MemberId::from(if is_unknown { step.fresh.to_string() } else { request.member.clone() });
        let subscription = match self.check_join(&id, &request) {
            Ok(subscription) => subscription,
            Err(error) => return join_error(&request.member, error),
        };
        if is_unknown && request.instance.is_none() && request.require_known_member {
            return join_error(&id, GroupError::MemberIdRequired);
        }
        match self.take_classic(group, &id, request, subscription, step) {
            Ok(response) => response,
            Err(error) => join_error(if is_unknown { "" } else { &id }, error),
        }
    }

    fn check_join(&self, id: &MemberId, request: &JoinGroupRequest) -> Result<Subscription, GroupError> {
        let first = request.protocols.first().ok_or(GroupError::InconsistentGroupProtocol)?;
        if request.protocol_type != PROTOCOL_TYPE || !self.shares_protocol(id, request) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Subscription::read(&first.metadata).ok_or(GroupError::InconsistentGroupProtocol)
    }

    /// Whether all classic members besides the sender know one of its protocols: a group that has only classic members
    /// left needs one.
    fn shares_protocol(&self, id: &MemberId, request: &JoinGroupRequest) -> bool {
        let others = || self.members.iter().filter(|(other, member)| *other != id && member.is_classic());
        request.protocols.iter().any(|protocol| others().all(|(_, member)| member.supports(&protocol.name)))
    }

    fn take_classic(
        &mut self,
        group: &str,
        id: &MemberId,
        request: JoinGroupRequest,
        subscription: Subscription,
        step: &mut Step<'_>,
    ) -> Result<JoinGroupResponse, GroupError> {
        let owned = held_of(&subscription.owned, step.topics);
        let protocol = request.protocols[0].name.clone();
        let sender = self.identify_classic(id, &request)?;
        let record = self.subscription_of_classic(id, &sender, request, subscription);
        self.check_subscription(&record, &sender, step)?;

        let mut journal = Journal::new(group);
        self.take_in(id, sender, record, step, &mut journal);
        self.advance_member(id, Some(&owned), step, &mut journal);
        journal.store(step);

        let member = self.members.get_mut(id).expect("the sender is a member now");
        member.session_deadline = step.now + member.session_timeout(&step.config.consumer);
        // Until it has fetched its assignment.
        member.rebalance_deadline = Some(step.now + member.rebalance_timeout());
        let response = JoinGroupResponse {
            generation: member.current.epoch,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol,
            member: id.to_string(),
            ..Default::default()
        };
        self.arm(id);
        Ok(response)
    }

    fn identify_classic(&self, id: &MemberId, request: &JoinGroupRequest) -> Result<Sender, GroupError> {
        let Some(instance) = &request.instance else {
            return Ok(if self.members.contains_key(id) { Sender::Known } else { Sender::New });
        };
        match self.instances.get(instance) {
            None if request.member.is_empty() => Ok(Sender::New),
            None => Err(GroupError::UnknownMemberId),
            Some(_) if request.member.is_empty() => Ok(Sender::Successor(MemberId::clone(&self.instances[instance]))),
            Some(holder) if holder == id => Ok(Sender::Known),
            Some(_) => Err(GroupError::FencedInstanceId),
        }
    }

    fn subscription_of_classic(
        &self,
        id: &MemberId,
        sender: &Sender,
        request: JoinGroupRequest,
        subscription: Subscription,
    ) -> ConsumerMemberRecord {
        let known = self.known(id, sender);
        let Subscription { mut topics, rack, .. } = subscription;
        topics.sort_unstable();
        topics.dedup();
        ConsumerMemberRecord {
            member: id.to_string(),
            instance: request.instance.or_else(|| known?.subscription.instance.clone()),
            rack: rack.filter(|rack| !rack.is_empty()),
            client: request.client,
            rebalance_timeout_ms: match request.rebalance_timeout_ms {
                // The first version of the protocol has no time-out of its own for this.
                0 => request.session_timeout_ms,
                millis => millis,
            },
            topics,
            regex: String::new(),
            assignor: known.and_then(|member| member.subscription.assignor.clone()),
            classic: Some(ClassicMembership {
                session_timeout_ms: request.session_timeout_ms,
                protocols: request.protocols,
            }),
        }
    }

    /// A member fetches what it was assigned when it joined.
    pub fn classic_sync(&mut self, request: &SyncGroupRequest, step: &Step<'_>) -> SyncGroupResponse {
        let result = self.try_sync(request, step);
        let error = code_of(&result);
        let told = result.is_ok().then(|| (request.protocol_type.clone(), request.protocol.clone()));
        let (protocol_type, protocol) = told.unwrap_or_default();
        SyncGroupResponse {
            error,
            protocol_type: protocol_type.unwrap_or_default(),
            protocol: protocol.unwrap_or_default(),
            assignment: result.unwrap_or_default(),
        }
    }

    fn try_sync(&mut self, request: &SyncGroupRequest, step: &Step<'_>) -> Result<Bytes, GroupError> {
        let id = self.classic_member(&request.member, request.instance.as_deref(), request.generation)?;
        let member = &self.members[&id];
        let protocol = member.classic_protocols().first().map(|protocol| protocol.name.as_str());
        let differs = |given: &Option<String>, present| given.as_deref().is_some_and(|given| Some(given) != present);
        if differs(&request.protocol_type, Some(PROTOCOL_TYPE)) || differs(&request.protocol, protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        // One that is revoking has joined again already, and goes on when it has revoked.
        if self.epoch > member.current.epoch && member.current.state != State::UnrevokedPartitions {
            self.ask_to_join(&id, step);
            return Err(GroupError::RebalanceInProgress);
        }
        let assignment = member.classic_assignment(&member.current.assigned, step.topics);
        let member = self.members.get_mut(&id).expect("it was just found");
        member.session_deadline = step.now + member.session_timeout(&step.config.consumer);
        member.rebalance_deadline = None;
        self.arm(&id);
        Ok(assignment)
    }

    /// A member says that it is alive, and hears whether it should join again.
    pub fn classic_heartbeat(&mut self, request: &GroupHeartbeatRequest, step: &Step<'_>) -> Result<(), GroupError> {
        let id = self.classic_member(&request.member, request.instance.as_deref(), request.generation)?;
        let member = self.members.get_mut(&id).expect("it was just found");
        member.session_deadline = step.now + member.session_timeout(&step.config.consumer);
        let member = &self.members[&id];
        let must_join = member.current.epoch < self.epoch
            || match member.current.state {
                State::Stable => false,
                State::UnrevokedPartitions => true,
                State::UnreleasedPartitions => !self.waits_for_others(&id, member),
            };
        if must_join {
            self.ask_to_join(&id, step);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Members leave, or are removed by a tool that names their instance ids. One answer each, in the request's order.
    pub fn classic_leave(&mut self, group: &str, leaving: Vec<LeavingMember>, step: &mut Step<'_>) -> Vec<LeftMember> {
        let mut gone: Vec<MemberId> = Vec::new();
        let mut answers = Vec::with_capacity(leaving.len());
        for LeavingMember { member, instance, .. } in leaving {
            let found = match (&instance, member.as_str()) {
                (Some(instance), "") => self.instances.get(instance).cloned().ok_or(GroupError::UnknownMemberId),
                _ => self.member_of(&member, instance.as_deref()),
            };
            answers.push(LeftMember { member, instance, error: code_of(&found) });
            gone.extend(found.ok().filter(|id| !gone.contains(id)));
        }
        if !gone.is_empty() {
            let mut journal = Journal::new(group);
            self.remove(&gone, step, &mut journal);
            journal.store(step);
        }
        answers
    }

    fn classic_member(&self, id: &str, instance: Option<&str>, generation: i32) -> Result<MemberId, GroupError> {
        let id = self.member_of(id, instance)?;
        let member = &self.members[&id];
        if !member.is_classic() {
            return Err(GroupError::UnknownMemberId);
        }
        if member.current.epoch != generation {
            return Err(GroupError::IllegalGeneration);
        }
        Ok(id)
    }

    /// It has until its time-out to come.
    fn ask_to_join(&mut self, id: &MemberId, step: &Step<'_>) {
        let member = self.members.get_mut(id).expect("it was just found");
        let deadline = step.now + member.rebalance_timeout();
        member.rebalance_deadline.get_or_insert(deadline);
        self.arm(id);
    }

    /// Whether something of the member's target is still with others.
    fn waits_for_others(&self, id: &MemberId, member: &Member) -> bool {
        let is_others = |partition: &TopicPartition| self.holders.get(partition).is_some_and(|holder| holder != id);
        member.target.iter().flatten().any(is_others)
    }
}

impl Member {
    pub(super) fn classic_protocols(&self) -> &[bmq_proto::internal::GroupProtocol] {
        self.subscription.classic.as_ref().map_or(&[], |classic| &classic.protocols)
    }

    fn supports(&self, protocol: &str) -> bool {
        self.classic_protocols().iter().any(|supported| supported.name == protocol)
    }

    /// Partitions as the member's own version of the embedded protocol has them; topics that are no more are left out.
    pub(super) fn classic_assignment(&self, partitions: &Partitions, topics: &Topics) -> Bytes {
        let mut by_name: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for partition in partitions {
            if let Some(topic) = topics.with_id(partition.topic) {
                by_name.entry(&topic.name).or_default().push(partition.partition.0);
            }
        }
        let metadata = self.classic_protocols().first().map(|protocol| &protocol.metadata);
        let version = metadata.and_then(|bytes| Subscription::read(bytes)).map_or(0, |read| read.version);
        Assignment::write(version, &by_name)
    }
}

/// The partitions of topics that exist.
pub(super) fn held_of(named: &NamedPartitions, topics: &Topics) -> Partitions {
    let known = named.iter().filter_map(|(name, numbers)| Some((topics.named(name)?.id, numbers)));
    known
        .flat_map(|(topic, numbers)| {
            numbers.iter().map(move |number| TopicPartition { topic, partition: PartitionId(*number) })
        })
        .collect()
}
