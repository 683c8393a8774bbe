//! `Heartbeat`: a classic member's sign of life; the answer may tell it to join anew.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::{HeartbeatRequest, HeartbeatResponse};
use bmq_proto::coordinator::{CoordinatorService, GroupHeartbeatRequest};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let asked = GroupHeartbeatRequest {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
    };
    let error = match context.api.groups.group_heartbeat(asked).await {
        Ok(answer) => answer.error as i16,
        Err(error) => group_code(&error).code(),
    };
    HeartbeatResponse::default().with_error_code(error)
}
