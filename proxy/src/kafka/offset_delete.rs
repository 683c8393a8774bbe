//! `OffsetDelete`: a group forgets where it was in partitions that no member reads.

use std::collections::HashMap;

use bmq_kafka::ResponseError;
use bmq_kafka::error::group_code;
use bmq_kafka::messages::offset_delete_request::OffsetDeleteRequestTopic;
use bmq_kafka::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use bmq_kafka::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use bmq_proto::coordinator::{CoordinatorService, DeleteOffsetsRequest, TopicPartitionName};
use bytes::Bytes;

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let partitions = request.topics.iter().flat_map(|topic| names(context, topic)).collect();
    let asked = DeleteOffsetsRequest { group: request.group_id.to_string(), partitions };
    let answer = match context.api.groups.delete_offsets(asked).await {
        Ok(answer) if answer.error == 0 => answer,
        Ok(answer) => return OffsetDeleteResponse::default().with_error_code(answer.error as i16),
        Err(error) => return OffsetDeleteResponse::default().with_error_code(group_code(&error).code()),
    };
    let failed = answer.partitions.into_iter().map(|it| ((it.topic, it.partition as i32), it.error as i16));
    let failed: HashMap<(String, i32), i16> = failed.collect();
    let topics = request.topics.iter().map(|topic| told(context, topic, &failed)).collect();
    OffsetDeleteResponse::default().with_topics(topics)
}

/// The partitions that are asked about: those that there may be.
fn names(context: &RequestContext<'_>, topic: &OffsetDeleteRequestTopic) -> Vec<TopicPartitionName> {
    let known = context.api.directory.known_topic(&topic.name);
    let topic_id: Bytes = known.map(|known| known.id.0.to_vec().into()).unwrap_or_default();
    let name = |index: i32| {
        let (topic, topic_id) = (topic.name.to_string(), topic_id.clone());
        Some(TopicPartitionName { topic, partition: u32::try_from(index).ok()?, topic_id })
    };
    topic.partitions.iter().filter_map(|it| name(it.partition_index)).collect()
}

fn told(
    context: &RequestContext<'_>,
    topic: &OffsetDeleteRequestTopic,
    failed: &HashMap<(String, i32), i16>,
) -> OffsetDeleteResponseTopic {
    let count = context.api.directory.known_topic(&topic.name).map_or(0, |known| i64::from(known.partitions));
    let error = |index: i32| match failed.get(&(topic.name.to_string(), index)) {
        Some(error) => *error,
        None if (0..count).contains(&i64::from(index)) => 0,
        None => ResponseError::UnknownTopicOrPartition.code(),
    };
    let partition =
        |index| OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(error(index));
    let partitions = topic.partitions.iter().map(|it| partition(it.partition_index)).collect();
    OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
}
