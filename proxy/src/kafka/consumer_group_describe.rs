//! `ConsumerGroupDescribe`: groups of KIP-848 with their members.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
use bmq_kafka::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName};
use bmq_kafka::{StrBytes, Uuid};
use bmq_proto::coordinator::{self, ConsumerGroupMember, CoordinatorService, TopicPartitionList};
use futures::FutureExt;

use super::authorized_operations::of_group;
use super::{GROUPS_AT_ONCE, RequestContext};
use crate::several::several;

/// Kinds of members.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;
/// Before this version the kind of a member is not told.
const KIND_SINCE: i16 = 1;
const KIND_UNKNOWN: i8 = -1;

pub async fn handle(
    context: &RequestContext<'_>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let asked = request.include_authorized_operations;
    let describe = |group| describe(context, group, asked).boxed();
    ConsumerGroupDescribeResponse::default().with_groups(several(request.group_ids, GROUPS_AT_ONCE, describe).await)
}

async fn describe(context: &RequestContext<'_>, group: GroupId, operations_asked: bool) -> DescribedGroup {
    let answer =
        DescribedGroup::default().with_group_id(group.clone()).with_authorized_operations(of_group(operations_asked));
    let asked = coordinator::ConsumerGroupDescribeRequest { group: group.to_string() };
    let described = match context.api.groups.consumer_group_describe(asked).await {
        Ok(described) => described,
        Err(error) => {
            let text = Some(StrBytes::from_string(error.to_string()));
            return answer.with_error_code(group_code(&error).code()).with_error_message(text);
        }
    };
    if described.error != 0 {
        let message = Some(described.error_message).filter(|text| !text.is_empty()).map(StrBytes::from_string);
        return answer.with_error_code(described.error as i16).with_error_message(message);
    }
    answer
        .with_group_state(StrBytes::from_string(described.state))
        .with_group_epoch(described.group_epoch)
        .with_assignment_epoch(described.assignment_epoch)
        .with_assignor_name(StrBytes::from_string(described.assignor))
        .with_members(described.members.into_iter().map(|member| member_of(context, member)).collect())
}

fn member_of(context: &RequestContext<'_>, member: ConsumerGroupMember) -> Member {
    let client = member.client.unwrap_or_default();
    let kind = match member.is_classic {
        _ if context.version < KIND_SINCE => KIND_UNKNOWN,
        true => CLASSIC,
        false => CONSUMER,
    };
    let names = member.subscribed_topics.into_iter().map(|name| TopicName(StrBytes::from_string(name)));
    let regex = Some(member.subscribed_regex).filter(|regex| !regex.is_empty());
    Member::default()
        .with_member_id(StrBytes::from_string(member.member))
        .with_instance_id(member.instance.map(StrBytes::from_string))
        .with_rack_id(member.rack.map(StrBytes::from_string))
        .with_member_epoch(member.member_epoch)
        .with_client_id(StrBytes::from_string(client.id))
        .with_client_host(StrBytes::from_string(client.host))
        .with_subscribed_topic_names(names.collect())
        .with_subscribed_topic_regex(regex.map(StrBytes::from_string))
        .with_assignment(assignment(member.assignment))
        .with_target_assignment(assignment(member.target_assignment))
        .with_member_type(kind)
}

fn assignment(list: Option<TopicPartitionList>) -> Assignment {
    let topics = list.unwrap_or_default().topics.into_iter().map(|it| {
        TopicPartitions::default()
            .with_topic_id(Uuid::from_slice(&it.topic_id).unwrap_or_default())
            .with_topic_name(TopicName(StrBytes::from_string(it.topic)))
            .with_partitions(it.partitions.into_iter().map(|number| number as i32).collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
