//! `LeaveGroup`: classic members leave, one by one in old versions.

use bmq_kafka::StrBytes;
use bmq_kafka::error::group_code;
use bmq_kafka::messages::leave_group_response::MemberResponse;
use bmq_kafka::messages::{LeaveGroupRequest, LeaveGroupResponse};
use bmq_proto::coordinator::{self, CoordinatorService, LeavingMember, LeftMember};

use super::RequestContext;

/// From this version on a request may name many members.
const BATCHED_SINCE: i16 = 3;

pub async fn handle(context: &RequestContext<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let batched = context.version >= BATCHED_SINCE;
    let members = if batched {
        let leaving = |instance: Option<StrBytes>, member: StrBytes, reason: Option<StrBytes>| LeavingMember {
            member: member.to_string(),
            instance: instance.map(|instance| instance.to_string()),
            reason: reason.map(|reason| reason.to_string()).unwrap_or_default(),
        };
        request.members.into_iter().map(|it| leaving(it.group_instance_id, it.member_id, it.reason)).collect()
    } else {
        vec![LeavingMember { member: request.member_id.to_string(), ..LeavingMember::default() }]
    };
    let asked = coordinator::LeaveGroupRequest { group: request.group_id.to_string(), members };
    let left = match context.api.groups.leave_group(asked).await {
        Ok(left) => left,
        Err(error) => return LeaveGroupResponse::default().with_error_code(group_code(&error).code()),
    };
    if batched {
        return LeaveGroupResponse::default()
            .with_error_code(left.error as i16)
            .with_members(left.members.into_iter().map(member_of).collect());
    }
    let of_member = left.members.first().map_or(0, |member| member.error);
    let error = if left.error == 0 { of_member } else { left.error };
    LeaveGroupResponse::default().with_error_code(error as i16)
}

fn member_of(left: LeftMember) -> MemberResponse {
    MemberResponse::default()
        .with_member_id(StrBytes::from_string(left.member))
        .with_group_instance_id(left.instance.map(StrBytes::from_string))
        .with_error_code(left.error as i16)
}
