//! `SyncGroup`: the leader hands in the assignment, and each member gets its part of it. Answered when there is one.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::{SyncGroupRequest, SyncGroupResponse};
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::coordinator::{self, CoordinatorService, MemberAssignment};

use super::RequestContext;
use super::member_wait::while_wanted;

/// From this version on both sides name the protocol, so that a member that believes another one is found out.
const NAMES_PROTOCOL_SINCE: i16 = 5;

pub async fn handle(context: &RequestContext<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = context.version >= NAMES_PROTOCOL_SINCE;
    if names_protocol && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return refused(ResponseError::InconsistentGroupProtocol.code());
    }
    let assignment = |member: StrBytes, assignment| MemberAssignment { member: member.to_string(), assignment };
    let asked = coordinator::SyncGroupRequest {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        protocol_type: request.protocol_type.map(|text| text.to_string()),
        protocol: request.protocol_name.map(|text| text.to_string()),
        assignments: request.assignments.into_iter().map(|it| assignment(it.member_id, it.assignment)).collect(),
    };
    match while_wanted(context, context.api.groups.sync_group(asked)).await {
        Ok(synced) if synced.error == 0 => {
            let named = |text: String| Some(StrBytes::from_string(text)).filter(|_| names_protocol);
            SyncGroupResponse::default()
                .with_protocol_type(named(synced.protocol_type))
                .with_protocol_name(named(synced.protocol))
                .with_assignment(synced.assignment)
        }
        Ok(synced) => refused(synced.error as i16),
        Err(error) => refused(group_code(&error).code()),
    }
}

fn refused(error: i16) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error)
}
