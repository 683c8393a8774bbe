//! From requests to groups.

use bmq_proto::coordinator::{
    DeleteGroupRequest, DescribeGroupRequest, DescribeGroupResponse, GroupErrorResponse, GroupHeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use bmq_proto::internal::{GroupDeletedRecord, group_record};

use super::classic::join_error;
use super::error::{GroupError, code_of};
use super::limits::Limits;
use super::step::{Step, record};
use super::{Groups, Membership};
use crate::shard::{ReplyToken, Request, Response};

impl Groups {
    pub(super) fn dispatch(&mut self, request: Request, token: ReplyToken, step: &mut Step<'_>) {
        let response = match request {
            Request::JoinGroup(request) => return self.join_group(request, token, step),
            Request::SyncGroup(request) => return self.sync_group(request, token, step),
            Request::ConsumerGroupHeartbeat(request) => {
                Response::ConsumerGroupHeartbeat(self.consumer_group_heartbeat(&request, step))
            }
            Request::ConsumerGroupDescribe(request) => {
                Response::ConsumerGroupDescribe(self.consumer_group_describe(&request, step))
            }
            Request::GroupHeartbeat(request) => {
                let error = code_of(&self.group_heartbeat(request, step));
                Response::GroupHeartbeat(GroupErrorResponse { error })
            }
            Request::LeaveGroup(request) => Response::LeaveGroup(self.leave_group(request, step)),
            Request::CommitOffsets(request) => Response::CommitOffsets(self.commit_offsets(request, step)),
            Request::FetchOffsets(request) => Response::FetchOffsets(self.fetch_offsets(request)),
            Request::DeleteOffsets(request) => Response::DeleteOffsets(self.delete_offsets(request, step)),
            Request::ListGroups(_) => Response::ListGroups(self.list_groups()),
            Request::DescribeGroup(request) => Response::DescribeGroup(self.describe_group(&request)),
            Request::DeleteGroup(request) => {
                let error = code_of(&self.delete_group(&request, step));
                Response::DeleteGroup(GroupErrorResponse { error })
            }
        };
        step.reply(token, response);
    }

    fn join_group(&mut self, request: JoinGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        let id = request.group.clone();
        if let Err(error) = self.check_join(&request) {
            return step.reply(token, Response::JoinGroup(join_error(&request.member, error)));
        }
        let group = self.groups.entry(id.clone()).or_default();
        if matches!(&group.membership, Membership::Consumer(consumer) if consumer.is_empty()) {
            // Whoever comes first decides which protocol a group speaks.
            group.membership = Membership::default();
            step.append_all(group.membership.records().into_iter().map(|kind| record(&id, kind)).collect());
        }
        match &mut group.membership {
            Membership::Classic(classic) => classic.join(&id, request, token, step),
            Membership::Consumer(consumer) => {
                let response = consumer.classic_join(&id, request, step);
                step.reply(token, Response::JoinGroup(response));
                group.downgrade(&id, step);
            }
        }
        self.arm(&id);
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), GroupError> {
        request.check_limits()?;
        let session_timeouts = self.config.min_session_timeout..=self.config.max_session_timeout;
        if !session_timeouts.contains(&super::classic::session_timeout(request)) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.groups.contains_key(&request.group) {
            return Ok(());
        }
        // Whoever has a member id got it from a group that is gone.
        if request.member.is_empty() { self.check_room_for_group() } else { Err(GroupError::UnknownMemberId) }
    }

    /// Whether one more group may be made.
    pub(crate) fn check_room_for_group(&self) -> Result<(), GroupError> {
        if self.groups.len() < self.config.max_groups { Ok(()) } else { Err(GroupError::PolicyViolation) }
    }

    fn sync_group(&mut self, request: SyncGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        let id = request.group.clone();
        let refused = match (request.check_limits(), self.groups.get_mut(&id)) {
            (Err(error), _) => error,
            (Ok(()), None) => GroupError::UnknownMemberId,
            (Ok(()), Some(group)) => {
                match &mut group.membership {
                    Membership::Classic(classic) => classic.sync(&id, request, token, step),
                    Membership::Consumer(consumer) => {
                        let response = consumer.classic_sync(&request, step);
                        step.reply(token, Response::SyncGroup(response));
                    }
                }
                return self.arm(&id);
            }
        };
        let response = SyncGroupResponse { error: refused.code(), ..Default::default() };
        step.reply(token, Response::SyncGroup(response));
    }

    fn group_heartbeat(&mut self, request: GroupHeartbeatRequest, step: &mut Step<'_>) -> Result<(), GroupError> {
        request.check_limits()?;
        let group = self.groups.get_mut(&request.group).ok_or(GroupError::UnknownMemberId)?;
        match &mut group.membership {
            // Only moves a deadline further away, so no wake-up is set.
            Membership::Classic(classic) => classic.heartbeat(&request, step),
            Membership::Consumer(consumer) => {
                let result = consumer.classic_heartbeat(&request, step);
                self.arm(&request.group);
                result
            }
        }
    }

    fn leave_group(&mut self, request: LeaveGroupRequest, step: &mut Step<'_>) -> LeaveGroupResponse {
        let id = request.group.clone();
        let result = match (request.check_limits(), self.groups.get_mut(&id)) {
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(GroupError::UnknownMemberId),
            (Ok(()), Some(group)) => Ok(match &mut group.membership {
                Membership::Classic(classic) => classic.leave(&id, request.members, step),
                Membership::Consumer(consumer) => {
                    let left = consumer.classic_leave(&id, request.members, step);
                    group.downgrade(&id, step);
                    left
                }
            }),
        };
        self.arm(&id);
        LeaveGroupResponse { error: code_of(&result), members: result.unwrap_or_default() }
    }

    fn list_groups(&self) -> ListGroupsResponse {
        let groups = self.groups.iter().map(|(id, group)| group.membership.listing(id));
        ListGroupsResponse { groups: groups.collect() }
    }

    /// Of classic groups only: to it, others are not there.
    fn describe_group(&self, request: &DescribeGroupRequest) -> DescribeGroupResponse {
        match self.groups.get(&request.group).map(|group| &group.membership) {
            Some(Membership::Classic(classic)) => classic.describe(),
            Some(Membership::Consumer(_)) | None => DescribeGroupResponse {
                error: GroupError::GroupIdNotFound.code(),
                state: "Dead".to_owned(),
                ..Default::default()
            },
        }
    }

    fn delete_group(&mut self, request: &DeleteGroupRequest, step: &mut Step<'_>) -> Result<(), GroupError> {
        let group = self.groups.get(&request.group).ok_or(GroupError::GroupIdNotFound)?;
        if !group.membership.is_empty() {
            return Err(GroupError::NonEmptyGroup);
        }
        self.drop_group(&request.group);
        step.append(&request.group, group_record::Kind::Deleted(GroupDeletedRecord {}));
        Ok(())
    }
}
