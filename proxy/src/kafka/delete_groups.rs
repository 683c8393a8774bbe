//! `DeleteGroups`: groups without members, with their offsets.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::delete_groups_response::DeletableGroupResult;
use bmq_kafka::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use bmq_proto::coordinator::{CoordinatorService, DeleteGroupRequest};
use futures::FutureExt;

use super::{GROUPS_AT_ONCE, RequestContext};
use crate::several::several;

pub async fn handle(context: &RequestContext<'_>, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let delete = |group| delete(context, group).boxed();
    DeleteGroupsResponse::default().with_results(several(request.groups_names, GROUPS_AT_ONCE, delete).await)
}

async fn delete(context: &RequestContext<'_>, group: GroupId) -> DeletableGroupResult {
    let error = match context.api.groups.delete_group(DeleteGroupRequest { group: group.to_string() }).await {
        Ok(answer) => answer.error as i16,
        Err(error) => group_code(&error).code(),
    };
    DeletableGroupResult::default().with_group_id(group).with_error_code(error)
}
