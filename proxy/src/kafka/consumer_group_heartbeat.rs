//! `ConsumerGroupHeartbeat`: the whole of the membership protocol of KIP-848.

use bmq_kafka::error::group_code;
use bmq_kafka::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use bmq_kafka::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, consumer_group_heartbeat_request,
};
use bmq_kafka::{StrBytes, Uuid};
use bmq_proto::coordinator::{self, CoordinatorService, TopicNames, TopicPartitionList};

use super::RequestContext;

pub async fn handle(
    context: &RequestContext<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let answer = match context.api.groups.consumer_group_heartbeat(asked(context, request)).await {
        Ok(answer) => answer,
        Err(error) => {
            return ConsumerGroupHeartbeatResponse::default()
                .with_error_code(group_code(&error).code())
                .with_error_message(Some(StrBytes::from_string(error.to_string())));
        }
    };
    let text = |text: String| Some(text).filter(|text| !text.is_empty()).map(StrBytes::from_string);
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(answer.error as i16)
        .with_error_message(text(answer.error_message))
        .with_member_id(text(answer.member))
        .with_member_epoch(answer.member_epoch)
        .with_heartbeat_interval_ms(i32::try_from(answer.heartbeat_interval_ms).unwrap_or(i32::MAX))
        .with_assignment(answer.assignment.map(assignment_of))
}

fn asked(
    context: &RequestContext<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> coordinator::ConsumerGroupHeartbeatRequest {
    let text = |text: Option<StrBytes>| text.map(|text| text.to_string());
    let names = |names: Vec<_>| TopicNames { names: names.iter().map(ToString::to_string).collect() };
    coordinator::ConsumerGroupHeartbeatRequest {
        group: request.group_id.to_string(),
        client: Some(context.client.as_group_client()),
        member: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance: text(request.instance_id),
        rack: text(request.rack_id),
        // -1 stands for "as before".
        rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms).ok(),
        subscribed_topics: request.subscribed_topic_names.map(|it| names(it.into_iter().map(|name| name.0).collect())),
        subscribed_regex: text(request.subscribed_topic_regex),
        server_assignor: text(request.server_assignor),
        owned: request.topic_partitions.map(owned),
    }
}

fn owned(topics: Vec<consumer_group_heartbeat_request::TopicPartitions>) -> TopicPartitionList {
    // A number that no partition can have names none, so it is left out.
    let partitions = |numbers: Vec<i32>| numbers.into_iter().filter_map(|number| u32::try_from(number).ok()).collect();
    let topics = topics.into_iter().map(|it| coordinator::TopicPartitions {
        topic_id: it.topic_id.as_bytes().to_vec().into(),
        partitions: partitions(it.partitions),
        topic: String::new(),
    });
    TopicPartitionList { topics: topics.collect() }
}

fn assignment_of(list: TopicPartitionList) -> Assignment {
    let topics = list.topics.into_iter().map(|it| {
        TopicPartitions::default()
            .with_topic_id(Uuid::from_slice(&it.topic_id).unwrap_or_default())
            .with_partitions(it.partitions.into_iter().map(|number| number as i32).collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
