//! Requests of KIP-848's protocol, and the passage of a group from one protocol to the other.

use bmq_proto::coordinator::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};

use super::classic::ClassicGroup;
use super::error::GroupError;
use super::step::Step;
use super::{Group, Groups, Membership};
use crate::consumer_group::{self, ConsumerGroup};

impl Groups {
    pub(super) fn consumer_group_heartbeat(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step<'_>,
    ) -> ConsumerGroupHeartbeatResponse {
        let validated = consumer_group::validate(request, &step.config.consumer);
        let result = validated.and_then(|()| self.heartbeat_of_consumer(request, step));
        self.arm(&request.group);
        result.unwrap_or_else(|error| ConsumerGroupHeartbeatResponse {
            error: error.code(),
            error_message: error.to_string(),
            ..Default::default()
        })
    }

    /// A group that is not there, or has members of the classic protocol only, becomes one of this protocol when the
    /// first member joins with it.
    fn heartbeat_of_consumer(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        step: &mut Step<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, GroupError> {
        let id = request.group.as_str();
        let joins = consumer_group::is_join(request);
        let (group, response) = match self.groups.get_mut(id).map(|group| &mut group.membership) {
            Some(Membership::Consumer(group)) => {
                let response = group.heartbeat(id, request, step)?;
                if !joins {
                    self.groups.get_mut(id).expect("it was just there").downgrade(id, step);
                }
                return Ok(response);
            }
            _ if !joins => return Err(GroupError::GroupIdNotFound),
            Some(Membership::Classic(classic)) if !classic.is_empty() => {
                ConsumerGroup::upgrade(classic, request, step)?
            }
            found => {
                if found.is_none() {
                    self.check_room_for_group()?;
                }
                let mut group = ConsumerGroup::default();
                let response = group.heartbeat(id, request, step)?;
                (group, response)
            }
        };
        self.groups.entry(id.to_owned()).or_default().membership = Membership::Consumer(group);
        Ok(response)
    }

    /// Of groups of this protocol only: to it, others are not there.
    pub(super) fn consumer_group_describe(
        &self,
        request: &ConsumerGroupDescribeRequest,
        step: &Step<'_>,
    ) -> ConsumerGroupDescribeResponse {
        match self.groups.get(&request.group).map(|group| &group.membership) {
            Some(Membership::Consumer(group)) => group.describe(step),
            Some(Membership::Classic(_)) | None => ConsumerGroupDescribeResponse {
                error: GroupError::GroupIdNotFound.code(),
                error_message: GroupError::GroupIdNotFound.to_string(),
                state: "Dead".to_owned(),
                ..Default::default()
            },
        }
    }
}

impl Group {
    /// Once the last member of the new protocol has gone, the classic ones that are left go on by themselves: called
    /// whenever a member may have gone.
    pub(super) fn downgrade(&mut self, id: &str, step: &mut Step<'_>) {
        let Membership::Consumer(consumer) = &self.membership else { return };
        if let Some(record) = consumer.downgraded(step) {
            self.membership = Membership::Classic(ClassicGroup::take_over(id, record, step));
        }
    }
}
