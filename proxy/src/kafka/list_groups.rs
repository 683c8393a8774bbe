//! `ListGroups`: the groups whose coordinator this proxy is for the client. A client that wants all groups asks all
//! brokers, so each group is told by one of them.

use bmq_kafka::StrBytes;
use bmq_kafka::error::find_coordinator_code;
use bmq_kafka::messages::list_groups_response::ListedGroup;
use bmq_kafka::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use bmq_proto::coordinator::GroupListing;

use super::RequestContext;
use super::brokers::{brokers, coordinator};

pub async fn handle(context: &RequestContext<'_>, request: ListGroupsRequest) -> ListGroupsResponse {
    let listings = match context.api.groups.all().await {
        Ok(listings) => listings,
        Err(error) => return ListGroupsResponse::default().with_error_code(find_coordinator_code(&error).code()),
    };
    let (brokers, own) = (brokers(context), context.api.config.node());
    let is_told_here = |group: &str| coordinator(&brokers, group).is_none_or(|broker| broker.node == own);
    let groups = listings.into_iter().filter(|listing| {
        is_told_here(&listing.group)
            && passes(&request.states_filter, &listing.state)
            && passes(&request.types_filter, &listing.r#type)
    });
    ListGroupsResponse::default().with_groups(groups.map(listed).collect())
}

/// A filter that names nothing lets everything through; case does not matter.
fn passes(filter: &[StrBytes], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|allowed| allowed.eq_ignore_ascii_case(value))
}

fn listed(listing: GroupListing) -> ListedGroup {
    ListedGroup::default()
        .with_group_id(GroupId(StrBytes::from_string(listing.group)))
        .with_protocol_type(StrBytes::from_string(listing.protocol_type))
        .with_group_state(StrBytes::from_string(listing.state))
        .with_group_type(StrBytes::from_string(listing.r#type))
}
