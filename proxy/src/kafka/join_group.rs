//! `JoinGroup`: a member of the classic protocol joins. Answered when the rebalance is complete, which may take long.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::join_group_response::JoinGroupResponseMember;
use bmq_kafka::messages::{JoinGroupRequest, JoinGroupResponse};
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::coordinator::{self, CoordinatorService, GroupProtocol, JoinedMember};

use super::RequestContext;
use super::member_wait::while_wanted;

/// From these versions on clients know these things.
const KNOWN_MEMBER_SINCE: i16 = 4;
const STATIC_MEMBERS_SINCE: i16 = 5;
const NULL_PROTOCOL_SINCE: i16 = 7;
const SKIPPED_ASSIGNMENT_SINCE: i16 = 9;

pub async fn handle(context: &RequestContext<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let member = request.member_id.clone();
    let Ok(session_timeout_ms) = u32::try_from(request.session_timeout_ms) else {
        return refused(context, ResponseError::InvalidSessionTimeout.code(), member);
    };
    let joining = context.api.groups.join_group(asked(context, request, session_timeout_ms));
    match while_wanted(context, joining).await {
        Ok(joined) if joined.error == 0 => told(context, joined),
        Ok(joined) => {
            // A new member is told its id together with the error.
            let member = if joined.member.is_empty() { member } else { StrBytes::from_string(joined.member) };
            refused(context, joined.error as i16, member)
        }
        Err(error) => refused(context, group_code(&error).code(), member),
    }
}

fn asked(
    context: &RequestContext<'_>,
    request: JoinGroupRequest,
    session_timeout_ms: u32,
) -> coordinator::JoinGroupRequest {
    let protocol = |name: StrBytes, metadata| GroupProtocol { name: name.to_string(), metadata };
    coordinator::JoinGroupRequest {
        group: request.group_id.to_string(),
        client: Some(context.client.as_group_client()),
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|it| protocol(it.name, it.metadata)).collect(),
        session_timeout_ms,
        // Version 0 has one time-out for both.
        rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms).unwrap_or(session_timeout_ms),
        require_known_member: context.version >= KNOWN_MEMBER_SINCE,
        supports_skipping_assignment: context.version >= SKIPPED_ASSIGNMENT_SINCE,
        reason: request.reason.map(|reason| reason.to_string()).unwrap_or_default(),
    }
}

fn told(context: &RequestContext<'_>, joined: coordinator::JoinGroupResponse) -> JoinGroupResponse {
    let with_assignment = context.version >= SKIPPED_ASSIGNMENT_SINCE;
    let protocol_type = Some(joined.protocol_type).filter(|_| context.version >= NULL_PROTOCOL_SINCE);
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(protocol_type.map(StrBytes::from_string))
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol)))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_skip_assignment(joined.skip_assignment && with_assignment)
        .with_member_id(StrBytes::from_string(joined.member))
        .with_members(joined.members.into_iter().map(|member| member_of(context, member)).collect())
}

fn member_of(context: &RequestContext<'_>, joined: JoinedMember) -> JoinGroupResponseMember {
    let instance = joined.instance.filter(|_| context.version >= STATIC_MEMBERS_SINCE);
    JoinGroupResponseMember::default()
        .with_member_id(StrBytes::from_string(joined.member))
        .with_group_instance_id(instance.map(StrBytes::from_string))
        .with_metadata(joined.metadata)
}

fn refused(context: &RequestContext<'_>, error: i16, member: StrBytes) -> JoinGroupResponse {
    // Older clients do not know a protocol without a name.
    let no_protocol = (context.version < NULL_PROTOCOL_SINCE).then(StrBytes::default);
    JoinGroupResponse::default()
        .with_error_code(error)
        .with_generation_id(-1)
        .with_protocol_name(no_protocol)
        .with_member_id(member)
}
