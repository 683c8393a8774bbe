//! `DescribeGroups`: classic groups with their members.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use bmq_kafka::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::coordinator::{CoordinatorService, DescribeGroupRequest, DescribeGroupResponse, DescribedMember};
use futures::FutureExt;

use super::authorized_operations::of_group;
use super::{GROUPS_AT_ONCE, RequestContext};
use crate::several::several;

/// From this version on a group that there is not is an error; before it is a dead group.
const NOT_FOUND_SINCE: i16 = 6;
/// From this version on static members are told as such.
const STATIC_MEMBERS_SINCE: i16 = 4;

pub async fn handle(context: &RequestContext<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let asked = request.include_authorized_operations;
    let describe = |group| describe(context, group, asked).boxed();
    DescribeGroupsResponse::default().with_groups(several(request.groups, GROUPS_AT_ONCE, describe).await)
}

async fn describe(context: &RequestContext<'_>, group: GroupId, operations_asked: bool) -> DescribedGroup {
    let answer =
        DescribedGroup::default().with_group_id(group.clone()).with_authorized_operations(of_group(operations_asked));
    match context.api.groups.describe_group(DescribeGroupRequest { group: group.to_string() }).await {
        Ok(described) if described.error == 0 => told(context, answer, described),
        Ok(described) if described.error == i32::from(ResponseError::GroupIdNotFound.code()) => {
            let dead = answer.with_group_state(StrBytes::from_static_str("Dead"));
            if context.version < NOT_FOUND_SINCE {
                return dead;
            }
            let message = format!("there is no group {} of the classic protocol", group.as_str());
            dead.with_error_code(described.error as i16).with_error_message(Some(StrBytes::from_string(message)))
        }
        Ok(described) => answer.with_error_code(described.error as i16),
        Err(error) => answer.with_error_code(group_code(&error).code()),
    }
}

fn told(context: &RequestContext<'_>, answer: DescribedGroup, described: DescribeGroupResponse) -> DescribedGroup {
    answer
        .with_group_state(StrBytes::from_string(described.state))
        .with_protocol_type(StrBytes::from_string(described.protocol_type))
        .with_protocol_data(StrBytes::from_string(described.protocol))
        .with_members(described.members.into_iter().map(|member| member_of(context, member)).collect())
}

fn member_of(context: &RequestContext<'_>, member: DescribedMember) -> DescribedGroupMember {
    let client = member.client.unwrap_or_default();
    let instance = member.instance.filter(|_| context.version >= STATIC_MEMBERS_SINCE);
    DescribedGroupMember::default()
        .with_member_id(StrBytes::from_string(member.member))
        .with_group_instance_id(instance.map(StrBytes::from_string))
        .with_client_id(StrBytes::from_string(client.id))
        .with_client_host(StrBytes::from_string(client.host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
