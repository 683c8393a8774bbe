//! Members go: by their own will, or because nothing was heard of them in time.

use bmq_proto::internal::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::ConsumerGroup;
use super::heartbeat::LEAVE_FOR_NOW;
use super::member::{AWAY, Current, Member, State};
use super::records::{Journal, current_record, epochs_record, gone_record};
use crate::assignor::{MemberId, Partitions};
use crate::group::error::GroupError;
use crate::group::step::Step;

impl ConsumerGroup {
    /// A heartbeat with which a member leaves.
    pub(super) fn leave(
        &mut self,
        group: &str,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, GroupError> {
        let id = self.member_of(&request.member, request.instance.as_deref())?;
        let mut journal = Journal::new(group);
        if request.member_epoch == LEAVE_FOR_NOW {
            self.leave_for_now(&id, &mut journal);
        } else {
            self.remove(&[id], step, &mut journal);
        }
        journal.store(step);
        Ok(ConsumerGroupHeartbeatResponse {
            member: request.member.clone(),
            member_epoch: request.member_epoch,
            ..Default::default()
        })
    }

    /// The member of this id, who must be the instance's present one if an instance is named.
    pub(super) fn member_of(&self, member: &str, instance: Option<&str>) -> Result<MemberId, GroupError> {
        match instance {
            None => {
                let known = self.members.get_key_value(member).ok_or(GroupError::UnknownMemberId)?;
                Ok(MemberId::clone(known.0))
            }
            Some(instance) => {
                let holder = self.instances.get(instance).ok_or(GroupError::UnknownMemberId)?;
                let is_present = **holder == *member;
                is_present.then(|| MemberId::clone(holder)).ok_or(GroupError::FencedInstanceId)
            }
        }
    }

    /// A static member keeps what it has for its next life, until its session ends. It revokes nothing any more: it has
    /// stopped.
    fn leave_for_now(&mut self, id: &MemberId, journal: &mut Journal<'_>) {
        let current = &self.members[id].current;
        let away = Current { epoch: AWAY, state: State::Stable, revoking: Partitions::new(), ..current.clone() };
        self.write(current_record(id, &away), journal);
        self.members.get_mut(id).expect("it was just changed").rebalance_deadline = None;
    }

    /// Removes members. What they held is free, and the group needs a new assignment.
    pub(super) fn remove(&mut self, ids: &[MemberId], step: &Step<'_>, journal: &mut Journal<'_>) {
        // The epoch is stored first, so that it is ahead whatever else is stored.
        self.write(epochs_record(self.epoch + 1, self.assignment_epoch, self.metadata_hash), journal);
        for id in ids {
            self.write(gone_record(id), journal);
        }
        let hash = self.resolve(step.topics).hash;
        // Of nobody, there is nothing to assign.
        let assignment_epoch = if self.members.is_empty() { self.epoch } else { self.assignment_epoch };
        self.write(epochs_record(self.epoch, assignment_epoch, hash), journal);
    }

    /// Fences those whose time is up. They learn of it when they next speak.
    pub fn tick(&mut self, group: &str, step: &mut Step<'_>) {
        let late = |member: &Member| member.deadline() <= step.now;
        let due: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| late(member)).map(|(id, _)| MemberId::clone(id)).collect();
        if !due.is_empty() {
            tracing::info!(group, members = ?due, "members did not show themselves in time and are fenced");
            let mut journal = Journal::new(group);
            self.remove(&due, step, &mut journal);
            journal.store(step);
        }
        self.wake = self.members.values().map(Member::deadline).min();
    }
}
